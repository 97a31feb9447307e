//! The rows that the index takes and gives.

use std::collections::BTreeMap;

use crate::clock::Wall;
use crate::oci::Digest;

/// What is known of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// What upstream last said that it means.
    pub observed: Digest,
    /// What is served for it: the last observed digest whose manifest is here.
    pub served: Digest,
    /// Media type of the observed manifest.
    pub media_type: String,
    /// Length of the observed manifest in bytes.
    pub size: u64,
    /// Upstream's entity tag, where it gave one.
    pub etag: Option<String>,
    /// When upstream last confirmed it.
    pub checked: Wall,
    /// When it last moved.
    pub moved: Wall,
    /// When upstream said that it is gone, where that was its last word.
    pub gone: Option<Wall>,
}

/// One digest that a tag has pointed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The digest.
    pub digest: Digest,
    /// When it was first seen under the tag.
    pub first: Wall,
    /// When it was last confirmed.
    pub last: Wall,
    /// Why the tag moved there.
    pub cause: String,
}

/// What is known of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestRow {
    /// Its media type.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its effective artifact type (distribution-spec, "Listing Referrers").
    pub artifact_type: Option<String>,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it points to; empty in answers.
    pub edges: Vec<EdgeRow>,
}

/// One descriptor in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeRow {
    /// `config`, `layer`, `child` or `subject`.
    pub kind: String,
    /// What it points to.
    pub digest: Digest,
    /// The length it announces, in bytes.
    pub size: u64,
    /// The media type it announces.
    pub media_type: String,
    /// Where else it may be had (foreign layers).
    pub urls: Vec<String>,
}
