//! The labels of an image, out of its configuration (image-spec `config.md`, `config.Labels`; Docker's has the same place).

use std::collections::BTreeMap;

use serde_json::Value;

use super::media_type::MediaType;

/// The most labels that are read.
const LABELS_MAX: usize = 1000;
/// The longest value that is read, in bytes; a longer one is left out.
const VALUE_MAX: usize = 64 * 1024;

/// Whether a configuration of this type has labels.
pub fn has_labels(config: &MediaType) -> bool {
    matches!(
        config.as_str(),
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}

/// The labels in a configuration; none where it is not one.
pub fn parse(config: &[u8]) -> BTreeMap<String, String> {
    let Ok(Value::Object(mut config)) = serde_json::from_slice(config) else {
        return BTreeMap::new();
    };
    let labels = config
        .remove("config")
        .and_then(|mut inner| inner.get_mut("Labels").map(Value::take));
    let Some(Value::Object(labels)) = labels else {
        return BTreeMap::new();
    };
    labels
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
        .filter(|(_, value)| value.len() <= VALUE_MAX)
        .take(LABELS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn labels_and_what_is_none() {
        let labels = parse(br#"{"config":{"Labels":{"a":"1","b":2,"c":""}},"os":"linux"}"#);
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        assert_eq!(labels, [("a", "1"), ("c", "")]);
        for none in [
            "",
            "[]",
            "{}",
            r#"{"config":null}"#,
            r#"{"config":{"Labels":null}}"#,
            "{\"config\":[]}",
        ] {
            assert!(parse(none.as_bytes()).is_empty(), "{none}");
        }
    }
}
