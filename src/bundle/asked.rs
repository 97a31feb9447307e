//! What somebody asks to be listed, locked, fetched, exported or copied, as it goes from the command line to the process that has the store.
//!
//! Lists travel as they were read: both ends understand them alike, and what is wrong with one is told with its file and line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::list::{self, ListError, Referrers, Wanted};
use super::lock::Lock;
use crate::oci::Platform;

/// Which images, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// Images named on the command line.
    pub images: Vec<String>,
    /// Lists of images.
    pub lists: Vec<ListFile>,
    /// A lock: what it has counts, and nothing else is looked up.
    pub lock: Option<TextFile>,
    /// Only these platforms, whatever the lists say.
    pub platforms: Vec<String>,
    /// All referrers, whatever the lists say.
    pub with_referrers: bool,
    /// What was pulled.
    pub pulled: Option<Pulled>,
}

/// A file of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// Its name, for messages.
    pub file: String,
    /// What stands in it.
    pub text: String,
}

/// A list of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListFile {
    /// How it is to be read.
    pub kind: ListKind,
    /// Its name, for messages.
    pub file: String,
    /// What stands in it.
    pub text: String,
    /// Values for what a Compose file leaves open.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// How a list of images is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListKind {
    /// Plain, TOML or YAML.
    List,
    /// Kubernetes manifests, or what Helm renders.
    Kubernetes,
    /// A Compose file.
    Compose,
}

/// What was pulled through this mirror.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pulled {
    /// In the last so many seconds; ever, where there are none.
    pub since_seconds: Option<u64>,
    /// By these users or groups; by anybody, where there are none.
    pub by: Vec<String>,
}

impl Asked {
    /// Whether nothing at all is asked for.
    pub const fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.lists.is_empty()
            && self.lock.is_none()
            && self.pulled.is_none()
    }

    /// The images that are named: by arguments first, then list by list.
    pub fn wanted(&self) -> Result<Vec<Wanted>, ListError> {
        let mut wanted = list::from_arguments(&self.images)?;
        for list in &self.lists {
            let (file, bytes) = (list.file.as_str(), list.text.as_bytes());
            wanted.extend(match list.kind {
                ListKind::List => list::from_file(file, bytes)?,
                ListKind::Kubernetes => list::from_kubernetes(file, bytes)?,
                ListKind::Compose => list::from_compose(file, bytes, &list.variables)?,
            });
        }
        let platforms = self.platforms()?;
        for one in &mut wanted {
            if !platforms.is_empty() {
                one.platforms.clone_from(&platforms);
            }
            if self.with_referrers {
                one.referrers = Referrers::All;
            }
        }
        Ok(wanted)
    }

    /// The platforms that the command line names.
    pub fn platforms(&self) -> Result<Vec<Platform>, ListError> {
        let parse = |text: &String| {
            Platform::parse(text)
                .map_err(|error| ListError::plain(format!("`{text}` is no platform: {error}")))
        };
        self.platforms.iter().map(parse).collect()
    }

    /// The lock.
    pub fn locked(&self) -> Result<Option<Lock>, ListError> {
        let Some(lock) = &self.lock else {
            return Ok(None);
        };
        Lock::parse(&lock.file, &lock.text).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_counts_before_the_lists() {
        let asked = Asked {
            images: vec!["nginx".to_owned()],
            lists: vec![ListFile {
                kind: ListKind::List,
                file: "images.yaml".to_owned(),
                text: "- image: redis\n  tag: \"7\"\n  platforms: [linux/arm64]\n".to_owned(),
                variables: BTreeMap::new(),
            }],
            platforms: vec!["linux/amd64".to_owned()],
            with_referrers: true,
            ..Asked::default()
        };
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Asked>(&text).unwrap(), asked);
        let wanted = asked.wanted().unwrap();
        let names: Vec<&str> = wanted.iter().map(|one| one.image.as_str()).collect();
        assert_eq!(names, ["nginx", "redis"]);
        for one in &wanted {
            assert_eq!(one.platforms, [Platform::new("linux", "amd64")]);
            assert_eq!(one.referrers, Referrers::All);
        }
        assert!(!asked.is_empty() && Asked::default().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_file() {
        let asked = Asked {
            platforms: vec!["linux".to_owned()],
            ..Asked::default()
        };
        let said = asked.wanted().unwrap_err().to_string();
        assert!(said.contains("`linux` is no platform"), "{said}");
        let asked = Asked {
            lists: vec![ListFile {
                kind: ListKind::List,
                file: "images.txt".to_owned(),
                text: "nginx\nNGINX:/\n".to_owned(),
                variables: BTreeMap::new(),
            }],
            ..Asked::default()
        };
        let said = asked.wanted().unwrap_err().to_string();
        assert!(said.contains("images.txt:2"), "{said}");
    }
}
