//! Media types of manifests (image-spec `media-types.md`; Docker "Image Manifest Version 2, Schema 2").

use std::fmt;

/// What a manifest is, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManifestKind {
    /// One image or artifact: a config and layers.
    Image,
    /// A list of manifests, usually one a platform.
    Index,
}

/// A media type of a manifest, without parameters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaType(Box<str>);

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What a blob is answered as.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The `Accept` that tags and manifests are asked with upstream: all types that are kept, schema 1 left out on purpose.
pub const MANIFEST_ACCEPT: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// The most bytes a media type may have (RFC 6838, 4.2: two restricted names of 127 and a slash).
pub const MEDIA_TYPE_MAX: usize = 255;

impl MediaType {
    /// Parses `type/subtype`, dropping parameters (`; charset=utf-8`) and folding the case.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.split(';').next().unwrap_or_default().trim();
        let (main, sub) = bare.split_once('/')?;
        let fits = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| {
                    b.is_ascii_alphanumeric()
                        || matches!(
                            b,
                            b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+'
                        )
                })
        };
        (bare.len() <= MEDIA_TYPE_MAX && fits(main) && fits(sub))
            .then(|| Self(bare.to_ascii_lowercase().into()))
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which manifest this is, if it is one that is kept.
    pub fn kind(&self) -> Option<ManifestKind> {
        match self.as_str() {
            OCI_INDEX | DOCKER_LIST => Some(ManifestKind::Index),
            OCI_MANIFEST | DOCKER_MANIFEST => Some(ManifestKind::Image),
            _ => None,
        }
    }

    /// Whether this is one of the types of Docker's schema 1, which is refused.
    pub fn is_schema1(&self) -> bool {
        matches!(
            self.as_str(),
            "application/vnd.docker.distribution.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v1+prettyjws"
        )
    }

    /// Whether this is one of the OCI types, which an old client may not take.
    pub fn is_oci(&self) -> bool {
        self.as_str().starts_with("application/vnd.oci.")
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
