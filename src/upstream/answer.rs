//! What an upstream answered, parsed as far as its headers go. Nothing here has been compared with a digest yet.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Wall;
use crate::oci::{Digest, MediaType};

/// What a HEAD tells of a manifest. Upstreams leave out what they please.
#[derive(Debug, Clone)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`, where it is one.
    pub digest: Option<Digest>,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Content-Length`.
    pub size: Option<u64>,
    /// `ETag`, as it stands.
    pub etag: Option<String>,
}

/// A manifest as it was sent, at most [`crate::oci::manifest::MANIFEST_MAX`] bytes.
#[derive(Debug, Clone)]
pub struct ManifestBody {
    /// The bytes.
    pub bytes: Bytes,
    /// `Content-Type`.
    pub media_type: Option<MediaType>,
    /// `Docker-Content-Digest`, where it is one. It may lie.
    pub digest_header: Option<Digest>,
    /// `ETag`, as it stands.
    pub etag: Option<String>,
}

/// What a HEAD tells of a blob.
#[derive(Debug, Clone, Copy)]
pub struct BlobHead {
    /// `Content-Length`.
    pub size: Option<u64>,
}

/// Which part of a blob is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// All of it.
    Whole,
    /// Everything from an offset on.
    From(u64),
    /// Both ends inclusive.
    FromTo(u64, u64),
}

/// What is left of the pulls that an upstream grants (Docker Hub's `RateLimit-*` headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Pulls in a window.
    pub limit: u64,
    /// Pulls left.
    pub remaining: u64,
    /// Length of the window.
    pub window: Option<Duration>,
    /// Whom they are counted for: an address or an account id.
    pub source: Option<String>,
}

/// One credential of an upstream, and what was last told of its quota.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountQuota {
    /// What the credential is called: its user name, never its secret; `anonymous` where there is none.
    pub credential: String,
    /// What was told.
    pub quota: Option<Quota>,
    /// When.
    pub seen: Option<Wall>,
    /// Whether that is less than a window ago.
    pub is_current: bool,
}
