//! Manifests and indexes, read but never rewritten (image-spec `manifest.md`, `image-index.md`; Docker "schema 2").
//!
//! Strict about danger, lenient about the rest. Danger is whatever lets two readers see two images in the same bytes
//! (CVE-2021-41190), names content that cannot be verified, or costs more than its length. Unknown fields, unknown media types
//! of layers and configs, and missing layers are none of our business: the bytes are passed on as they came.
//! Knows nothing about where the bytes came from; whether they fit their digest is checked elsewhere.

use std::collections::BTreeMap;

use serde_json::Value;

use super::descriptor::Descriptor;
use super::json::{self, Fields, Malformed};
use super::media_type::{ManifestKind, MediaType, OCI_INDEX, OCI_MANIFEST};
use super::platform::Platform;

pub use super::json::{JSON_DEPTH_MAX, JSON_VALUES_MAX};

/// The most bytes a manifest may have, which is also what containerd and containers/image read.
pub const MANIFEST_MAX: usize = 4 * 1024 * 1024;
/// The most manifests an index may name.
pub const CHILDREN_MAX: usize = 1000;
/// The most layers an image may have.
pub const LAYERS_MAX: usize = 1000;

const KNOWN: [&str; 8] = [
    "schemaVersion",
    "mediaType",
    "config",
    "layers",
    "manifests",
    "subject",
    "artifactType",
    "annotations",
];

/// Why bytes are no manifest that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// More than [`MANIFEST_MAX`] bytes.
    #[error("a manifest has at most {MANIFEST_MAX} bytes")]
    TooLarge,
    /// Docker's schema 1, whose digest is not the digest of its bytes.
    #[error("this is a manifest of Docker's schema 1, which is not supported")]
    Schema1,
    /// JSON of a media type that is not one of a manifest that is kept.
    #[error("the media type is not that of an image manifest or an index")]
    Unsupported,
    /// Anything else.
    #[error("not a valid manifest: {0}")]
    Invalid(#[from] Malformed),
}

/// What a manifest says of the content that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EdgeKind {
    /// The configuration of an image.
    Config,
    /// A layer of an image.
    Layer,
    /// A manifest of an index.
    Child,
    /// The manifest that this one is about; it need not exist.
    Subject,
}

impl EdgeKind {
    /// The word for tables, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Child => "child",
            Self::Subject => "subject",
        }
    }
}

/// A manifest or an index that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    media_type: MediaType,
    kind: ManifestKind,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    children: Vec<Descriptor>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads `bytes`, which came with the media type `declared` or with none.
    ///
    /// A `declared` type that is not one of a manifest counts as none: registries answer with `application/json` or
    /// `text/plain` at times. The body's own `mediaType` decides then, and if there is none, what the body holds.
    pub fn parse(bytes: &[u8], declared: Option<&MediaType>) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_MAX {
            return Err(ManifestError::TooLarge);
        }
        if declared.is_some_and(MediaType::is_schema1) {
            return Err(ManifestError::Schema1);
        }
        let mut fields = Fields::open(json::parse(bytes)?, &KNOWN)?;
        let own = own_media_type(&mut fields)?;
        check_schema_version(&mut fields)?;

        let config = fields.take("config");
        let layers = capped(&mut fields, "layers", LAYERS_MAX)?;
        let children = capped(&mut fields, "manifests", CHILDREN_MAX)?;
        let is_image = config.is_some() || layers.is_some();
        if is_image && children.is_some() {
            return Err(Malformed::new("it has both manifests and layers or a config").into());
        }

        let declared = declared.filter(|media_type| media_type.kind().is_some());
        let media_type = match (own, declared) {
            (Some(own), Some(declared)) if own != *declared => {
                return Err(
                    Malformed::new("its mediaType is not the Content-Type it came with").into(),
                );
            }
            (Some(own), _) => own,
            (None, Some(declared)) => declared.clone(),
            (None, None) if children.is_some() => known_type(OCI_INDEX)?,
            (None, None) if is_image => known_type(OCI_MANIFEST)?,
            (None, None) => return Err(ManifestError::Unsupported),
        };
        let kind = media_type.kind().ok_or(ManifestError::Unsupported)?;
        match kind {
            ManifestKind::Image if children.is_some() => {
                return Err(Malformed::new("an image manifest has manifests").into());
            }
            ManifestKind::Image if config.is_none() => {
                return Err(Malformed::new("an image manifest has no config").into());
            }
            ManifestKind::Index if is_image => {
                return Err(Malformed::new("an index has layers or a config").into());
            }
            ManifestKind::Image | ManifestKind::Index => {}
        }

        Ok(Self {
            media_type,
            kind,
            config: config.map(Descriptor::from_value).transpose()?,
            layers: descriptors(layers)?,
            children: descriptors(children)?,
            subject: fields
                .take("subject")
                .map(Descriptor::from_value)
                .transpose()?,
            artifact_type: fields.text("artifactType")?,
            annotations: fields.text_map("annotations")?,
        })
    }

    /// The media type: the body's own, else the declared one, else what the body holds.
    pub const fn media_type(&self) -> &MediaType {
        &self.media_type
    }

    /// Image or index.
    pub const fn kind(&self) -> ManifestKind {
        self.kind
    }

    /// The configuration; every image has one, no index has.
    pub const fn config(&self) -> Option<&Descriptor> {
        self.config.as_ref()
    }

    /// The layers of an image, in order.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The manifests of an index, in order.
    pub fn children(&self) -> &[Descriptor] {
        &self.children
    }

    /// The manifest that this one is about.
    pub const fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// What the referrers list shows as `artifactType`: the manifest's own, else the media type of an image's config.
    pub fn artifact_type(&self) -> Option<&str> {
        let of_config = || self.config.as_ref().map(Descriptor::media_type);
        self.artifact_type
            .as_deref()
            .or_else(of_config)
            .filter(|text| !text.is_empty())
    }

    /// Free notes.
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The first manifest of an index that is for this platform, whatever its variant.
    pub fn child_for(&self, os: &str, architecture: &str) -> Option<&Descriptor> {
        let fits =
            |platform: &Platform| platform.os() == os && platform.architecture() == architecture;
        self.children
            .iter()
            .find(|child| child.platform().is_some_and(fits))
    }

    /// All content that the manifest names, each with what it is to the manifest, as often as it is named.
    pub fn edges(&self) -> impl Iterator<Item = (EdgeKind, &Descriptor)> {
        let config = self.config.iter().map(|d| (EdgeKind::Config, d));
        let layers = self.layers.iter().map(|d| (EdgeKind::Layer, d));
        let children = self.children.iter().map(|d| (EdgeKind::Child, d));
        let subject = self.subject.iter().map(|d| (EdgeKind::Subject, d));
        config.chain(layers).chain(children).chain(subject)
    }
}

/// The body's `mediaType`. It must be spelt exactly: clients compare it letter by letter, so another spelling is another type.
fn own_media_type(fields: &mut Fields) -> Result<Option<MediaType>, ManifestError> {
    let Some(text) = fields.text("mediaType")? else {
        return Ok(None);
    };
    match MediaType::parse(&text) {
        Some(media_type) if media_type.is_schema1() => Err(ManifestError::Schema1),
        Some(media_type) if media_type.kind().is_some() && media_type.as_str() == text => {
            Ok(Some(media_type))
        }
        _ => Err(ManifestError::Unsupported),
    }
}

fn check_schema_version(fields: &mut Fields) -> Result<(), ManifestError> {
    match fields
        .take("schemaVersion")
        .as_ref()
        .and_then(Value::as_u64)
    {
        Some(2) => Ok(()),
        Some(1) => Err(ManifestError::Schema1),
        _ => Err(Malformed::new("its schemaVersion is not 2").into()),
    }
}

fn known_type(text: &str) -> Result<MediaType, ManifestError> {
    MediaType::parse(text).ok_or(ManifestError::Unsupported)
}

/// Takes a list out, if it is not too long. It is asked before any part of the document is judged, so that length alone is what a
/// long list costs.
pub(super) fn capped(
    fields: &mut Fields,
    key: &str,
    most: usize,
) -> Result<Option<Vec<Value>>, Malformed> {
    let list = fields.list(key)?;
    if list.as_ref().is_some_and(|list| list.len() > most) {
        return Err(Malformed::new("it names too many layers or manifests"));
    }
    Ok(list)
}

pub(super) fn descriptors(list: Option<Vec<Value>>) -> Result<Vec<Descriptor>, Malformed> {
    list.unwrap_or_default()
        .into_iter()
        .map(Descriptor::from_value)
        .collect()
}
