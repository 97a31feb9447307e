//! `/api/storage/<key>/<path>`: what there is, and its properties (PROTOCOL E4, E7).

use std::collections::BTreeMap;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::path::{Node, Tagged, find, tags_below};
use crate::api::error::ApiError;
use crate::api::record::Record;
use crate::api::{Api, Call, respond};
use crate::auth::Right;
use crate::body::Body;
use crate::clock;
use crate::oci::Digest;
use crate::repository::Repository;
use crate::store::Change;
use crate::store::index::items::manifest_file;

/// The most properties that one request sets.
const PROPERTIES_MAX: usize = 100;
/// The longest key or value, in bytes.
const TEXT_MAX: usize = 2400;

/// Properties: keys with their values.
pub(super) type Properties = BTreeMap<String, Vec<String>>;

impl Api {
    /// `GET` tells of a file or folder, or of its properties; `PUT` and `DELETE` with `?properties=` change them.
    pub(in crate::api) async fn storage(
        &self,
        call: &Call<'_>,
        path: &str,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let (key, path) = path.split_once('/').unwrap_or((path, ""));
        let repository = call
            .there
            .named(key)
            .ok_or_else(|| self.unknown(call, key))?;
        record.note_repository(repository.key(), "storage");
        let right = if *call.method == Method::GET {
            Right::Pull
        } else {
            Right::Push
        };
        self.require_all(call, repository.key(), right)?;
        if let Repository::Virtual(_) = repository {
            return Err(ApiError::bad_request(format!(
                "{key} is virtual; name the member that has the image"
            )));
        }
        let asked = call.query.iter().find(|(key, _)| key == "properties");
        let asked = asked.map(|(_, value)| value.as_str());
        match (call.method, asked) {
            (&Method::GET, None) => self.info(call, key, repository, path).await,
            (&Method::GET, Some(wanted)) => self.tell(call, key, repository, path, wanted).await,
            (&Method::PUT, Some(text)) => {
                let set = parse(text)?;
                self.set(repository, path, (set, Vec::new())).await
            }
            (&Method::DELETE, Some(text)) => {
                let remove: Vec<String> = keys(text);
                self.set(repository, path, (BTreeMap::new(), remove)).await
            }
            (&Method::PUT | &Method::DELETE, None) => Err(ApiError::bad_request(
                "properties: it is needed: ?properties=key=value;other=value",
            )),
            _ => Err(ApiError::method("GET, PUT, DELETE")),
        }
    }

    async fn info(
        &self,
        call: &Call<'_>,
        key: &str,
        repository: &Repository,
        path: &str,
    ) -> Result<Response<Body>, ApiError> {
        let Some(node) = find(&self.config.store, repository, path).await? else {
            return Err(ApiError::no_item());
        };
        Ok(respond::json(&describe(&self.base(call), key, path, &node)))
    }

    async fn tell(
        &self,
        call: &Call<'_>,
        key: &str,
        repository: &Repository,
        path: &str,
        wanted: &str,
    ) -> Result<Response<Body>, ApiError> {
        let tagged = match find(&self.config.store, repository, path).await? {
            Some(Node::Tag(tagged, _) | Node::Manifest(tagged)) => tagged,
            Some(Node::Folder(_) | Node::Blob(..)) => return Err(ApiError::no_properties()),
            None => return Err(ApiError::no_item()),
        };
        let mut properties = self.properties(repository.key(), &tagged).await?;
        let wanted = keys(wanted);
        if !wanted.is_empty() {
            properties.retain(|key, _| wanted.contains(key));
        }
        if properties.is_empty() {
            return Err(ApiError::no_properties());
        }
        let uri = format!("{}/artifactory/api/storage/{key}/{path}", self.base(call));
        Ok(respond::json(
            &json!({ "properties": properties, "uri": uri }),
        ))
    }

    /// What somebody set, and what follows from the image itself, which nobody can set.
    pub(super) async fn properties(
        &self,
        repo: &str,
        tagged: &Tagged,
    ) -> Result<Properties, ApiError> {
        let Tagged { name, tag, row } = tagged;
        let index = self.config.store.index();
        let failed = |error: crate::store::IndexError| ApiError::failed(&error);
        let properties = index.properties(repo, name, tag).await.map_err(failed)?;
        let labels = index.labels(&row.served).await.map_err(failed)?;
        Ok(with_own(
            properties,
            &labels,
            (name.as_str(), tag.as_str()),
            (&row.served, &row.media_type),
        ))
    }

    async fn set(
        &self,
        repository: &Repository,
        path: &str,
        change: (Properties, Vec<String>),
    ) -> Result<Response<Body>, ApiError> {
        let own = change.0.keys().chain(&change.1).find(|key| is_own(key));
        if let Some(own) = own {
            return Err(ApiError::bad_request(format!(
                "{own}: it follows from the image and is not set"
            )));
        }
        let tags = tags_below(&self.config.store, repository, path).await?;
        if tags.is_empty() {
            return Err(ApiError::no_item());
        }
        let now = clock::now();
        if let Repository::Local(local) = repository {
            let tags = tags.into_iter().map(|tagged| (tagged.name, tagged.tag));
            let set = local.set_properties(tags.collect(), change, now).await;
            set.map_err(ApiError::from_overlay)?;
        } else {
            let changes = tags.iter().map(|tagged| {
                let Tagged { name, tag, .. } = tagged;
                let change = change.clone();
                (
                    Change::set_properties(repository.key(), name, tag, change, now),
                    None,
                )
            });
            let done = self.config.store.commit_changes(changes.collect()).await;
            done.map_err(|error| ApiError::failed(&error))?;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }
}

/// Properties that somebody set, together with what follows from the image: name and tag, manifest and its media type.
pub(super) fn with_own(
    mut properties: Properties,
    labels: &BTreeMap<String, String>,
    (name, tag): (&str, &str),
    (manifest, media_type): (&Digest, &str),
) -> Properties {
    for (key, value) in labels {
        properties.insert(format!("docker.label.{key}"), vec![value.clone()]);
    }
    for (key, value) in [
        ("docker.manifest", tag.to_owned()),
        ("docker.manifest.digest", manifest.to_string()),
        ("docker.manifest.type", media_type.to_owned()),
        ("docker.repoName", name.to_owned()),
        ("sha256", manifest.hex().to_owned()),
    ] {
        properties.insert(key.to_owned(), vec![value]);
    }
    properties
}

/// A file or folder as Artifactory describes it.
fn describe(base: &str, key: &str, path: &str, node: &Node) -> Value {
    let folder = |children: &[String], files: bool| {
        let children: Vec<Value> = children
            .iter()
            .map(|child| json!({ "uri": format!("/{child}"), "folder": !files }))
            .collect();
        json!({ "children": children })
    };
    let file = |digest: &Digest, size: u64, kind: &str| {
        json!({
            "downloadUri": format!("{base}/artifactory/{key}/{path}"),
            "mimeType": kind,
            "size": size.to_string(),
            "checksums": { "sha256": digest.hex() },
            "originalChecksums": { "sha256": digest.hex() },
        })
    };
    let (mut told, tagged) = match node {
        Node::Folder(children) => (folder(children, false), None),
        Node::Tag(tagged, children) => (folder(children, true), Some(tagged)),
        Node::Manifest(tagged) => {
            let row = &tagged.row;
            (file(&row.served, row.size, &row.media_type), Some(tagged))
        }
        Node::Blob(tagged, digest, size) => (
            file(digest, *size, crate::oci::media_type::OCTET_STREAM),
            Some(tagged),
        ),
    };
    if let Value::Object(told) = &mut told {
        told.insert("repo".to_owned(), json!(key));
        told.insert("path".to_owned(), json!(format!("/{path}")));
        let uri = format!("{base}/artifactory/api/storage/{key}/{path}");
        told.insert("uri".to_owned(), json!(uri.trim_end_matches('/')));
        if let Some(Tagged { row, .. }) = tagged {
            let (moved, checked) = (row.moved.to_string(), row.checked.to_string());
            told.insert("created".to_owned(), json!(moved));
            told.insert("lastModified".to_owned(), json!(moved));
            told.insert("lastUpdated".to_owned(), json!(checked));
        }
    }
    told
}

/// The path of the manifest of a tag.
pub(super) fn manifest_path(name: &str, tag: &str, media_type: &str) -> String {
    format!("{name}/{tag}/{}", manifest_file(media_type))
}

fn is_own(key: &str) -> bool {
    key == "sha256"
        || key == "docker.manifest"
        || key == "docker.repoName"
        || key.starts_with("docker.manifest.")
        || key.starts_with("docker.label.")
}

fn keys(text: &str) -> Vec<String> {
    let keys = text.split(',').map(str::trim);
    keys.filter(|key| !key.is_empty())
        .map(str::to_owned)
        .collect()
}

/// `a=1,2;b=3`, with a backslash before a separator that is meant as it stands; `|` parts like `;`, as old clients have it.
fn parse(text: &str) -> Result<Properties, ApiError> {
    let mut properties = Properties::new();
    let wrong = |what: &str| ApiError::bad_request(format!("properties: {what}"));
    for pair in split(text, &[';', '|']) {
        if pair.is_empty() {
            continue;
        }
        let (key, values) = pair
            .split_once('=')
            .ok_or_else(|| wrong("write key=value, and ; between several"))?;
        let values: Vec<String> = split(values, &[','])
            .iter()
            .map(|value| value.replace('\\', ""))
            .collect();
        let fits = !key.is_empty()
            && key.len() <= TEXT_MAX
            && values.iter().all(|value| value.len() <= TEXT_MAX)
            && !key.contains([
                '(', ')', '{', '}', '[', ']', '*', '+', '^', '$', '\\', '/', '~', '`', '!', '@',
                '#', '%', '<', '>', ' ',
            ]);
        if !fits {
            return Err(wrong(
                "a key has no brackets, spaces or other marks of patterns, and neither it nor a value more than 2400 bytes",
            ));
        }
        properties.insert(key.to_owned(), values);
    }
    if properties.is_empty() || properties.len() > PROPERTIES_MAX {
        return Err(wrong("set between 1 and 100 of them"));
    }
    Ok(properties)
}

/// Splits at separators that have no backslash before them.
fn split(text: &str, at: &[char]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for letter in text.chars() {
        if at.contains(&letter) && !escaped {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_as_clients_write_them() {
        let read = |text: &str| parse(text).map(|found| format!("{found:?}"));
        assert_eq!(read("a=1").unwrap(), r#"{"a": ["1"]}"#);
        assert_eq!(
            read("a=1,2;b=x=y").unwrap(),
            r#"{"a": ["1", "2"], "b": ["x=y"]}"#
        );
        assert_eq!(read("a=1|b=").unwrap(), r#"{"a": ["1"], "b": [""]}"#);
        assert_eq!(read(r"a=1\,2\;3").unwrap(), r#"{"a": ["1,2;3"]}"#);
        for bad in ["", ";", "a", "=1", "a b=1", "a*=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..=PROPERTIES_MAX).map(|n| format!("k{n}=1")).collect();
        assert!(parse(&many.join(";")).is_err());
        assert!(parse(&format!("a={}", "x".repeat(TEXT_MAX + 1))).is_err());
    }
}
