//! What the index answers with: plain rows, owned, free of any database type.

use std::collections::BTreeMap;

use crate::clock::Wall;
use crate::oci::Digest;

/// What is known of a manifest without opening its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManifestRow {
    /// The media type that it is served with.
    pub media_type: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its effective artifact type (own, else the config's media type).
    pub artifact_type: Option<String>,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it points at. May be empty in an answer: [`super::Index::manifest`] leaves the edges out.
    pub edges: Vec<EdgeRow>,
    /// Labels of its configuration, where that is here. Left out like the edges.
    pub labels: BTreeMap<String, String>,
}

/// One descriptor in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeRow {
    /// `config`, `layer`, `child` or `subject`.
    pub kind: String,
    /// What is pointed at.
    pub digest: Digest,
    /// The length that the descriptor claims.
    pub size: u64,
    /// The media type that the descriptor claims.
    pub media_type: String,
    /// Where else the descriptor says that the bytes are (foreign layers).
    pub urls: Vec<String>,
}

/// A layer that a manifest says is to be had elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLayerRow {
    /// The length that the descriptor claims.
    pub size: u64,
    /// Where it is to be had.
    pub urls: Vec<String>,
}

/// A tag as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRow {
    /// What upstream last said.
    pub observed: Digest,
    /// What clients are given; differs from `observed` where admission holds a move back.
    pub served: Digest,
    /// The media type of `served`.
    pub media_type: String,
    /// The length of `served` in bytes.
    pub size: u64,
    /// Upstream's validator.
    pub etag: Option<String>,
    /// When upstream last confirmed it.
    pub checked: Wall,
    /// When `served` last changed.
    pub moved: Wall,
    /// Since when upstream says that it does not exist.
    pub gone: Option<Wall>,
}

/// One stretch of a tag's past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// What was served.
    pub digest: Digest,
    /// Since when.
    pub first: Wall,
    /// When it was last confirmed.
    pub last: Wall,
    /// Why it came to be served.
    pub cause: String,
}

/// How a digest stands with the rules of a remote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StandingRow {
    /// When upstream first showed it.
    pub first_seen: Option<Wall>,
    /// What it was admitted under.
    pub terms: Option<String>,
    /// Whether something that contains it is admitted under the terms that were asked about.
    pub vouched: bool,
    /// Whether somebody pinned a tag to it, or to something that contains it.
    pub pinned: bool,
}
