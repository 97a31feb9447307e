//! Descriptors: how a manifest names other content (image-spec `descriptor.md`).
//!
//! A descriptor that exists has a digest that can be verified and a size that every JSON reader agrees on. Its media type is
//! any text, also none: what the content is for is the client's business. Embedded `data` is not kept; the content is asked
//! for by its digest like any other.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::digest::Digest;
use super::json::{Fields, Malformed};
use super::platform::Platform;

/// The largest size that a descriptor may tell: 2^53, up to which all JSON readers agree on integers.
pub const SIZE_MAX: u64 = 1 << 53;

const KNOWN: [&str; 8] = [
    "mediaType",
    "digest",
    "size",
    "urls",
    "artifactType",
    "annotations",
    "platform",
    "data",
];

/// The name, size and kind of some content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    urls: Vec<String>,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor with nothing but the required fields; a size over [`SIZE_MAX`] is refused.
    pub fn new(
        media_type: impl Into<String>,
        digest: Digest,
        size: u64,
    ) -> Result<Self, Malformed> {
        if size > SIZE_MAX {
            return Err(BAD_SIZE);
        }
        Ok(Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            platform: None,
        })
    }

    /// The same with an artifact type, as the referrers list shows it.
    #[must_use]
    pub fn with_artifact_type(mut self, artifact_type: Option<String>) -> Self {
        self.artifact_type = artifact_type.filter(|text| !text.is_empty());
        self
    }

    /// The same with annotations.
    #[must_use]
    pub fn with_annotations(mut self, annotations: BTreeMap<String, String>) -> Self {
        self.annotations = annotations;
        self
    }

    /// The same with a platform.
    #[must_use]
    pub fn with_platform(mut self, platform: Option<Platform>) -> Self {
        self.platform = platform;
        self
    }

    /// Reads the object of a manifest.
    pub fn from_value(value: Value) -> Result<Self, Malformed> {
        let mut fields = Fields::open(value, &KNOWN)?;
        let digest = fields.text("digest")?.unwrap_or_default();
        let Ok(digest) = Digest::parse(&digest) else {
            return Err(Malformed::new("a descriptor has no usable digest"));
        };
        // A size with a fraction or an exponent is none, even if it comes out even: readers differ about it.
        let size = fields.take("size").and_then(|size| size.as_u64());
        let media_type = fields.text("mediaType")?.unwrap_or_default();
        let mut made = Self::new(media_type, digest, size.ok_or(BAD_SIZE)?)?;
        made.urls = fields.texts("urls")?;
        made.artifact_type = fields.text("artifactType")?;
        made.annotations = fields.text_map("annotations")?;
        made.platform = fields
            .take("platform")
            .map(Platform::from_value)
            .transpose()?;
        Ok(made)
    }

    /// The object as it stands in a manifest. Fields that are empty are left out.
    pub fn to_value(&self) -> Value {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("mediaType", self.media_type.as_str().into());
        put("digest", self.digest.to_string().into());
        put("size", self.size.into());
        if !self.urls.is_empty() {
            put("urls", self.urls.clone().into());
        }
        if let Some(artifact_type) = &self.artifact_type {
            put("artifactType", artifact_type.as_str().into());
        }
        if !self.annotations.is_empty() {
            let entries = self.annotations.iter();
            put(
                "annotations",
                entries.map(|(k, v)| (k.clone(), v.as_str())).collect(),
            );
        }
        if let Some(platform) = &self.platform {
            put("platform", platform.to_value());
        }
        Value::Object(object)
    }

    /// The media type of the content, unparsed; empty when none was given.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The digest of the content.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The length of the content in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where else the content may be had: any text, to be trusted by nobody.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The artifact type of the manifest that this names.
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// Free notes.
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// What the image runs on, if this stands in an index.
    pub const fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }
}

const BAD_SIZE: Malformed = Malformed::new("a descriptor's size is not an integer from 0 to 2^53");
