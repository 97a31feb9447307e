//! The URL grammar of the registry API, both ways (distribution-spec, "Endpoints"; Docker's `_catalog`).
//!
//! A name may have components called `blobs`, `manifests`, `tags`, `uploads` or `referrers`, so a path is split from the right:
//! the last but one segment says what it is (or the last two before an upload's id), and no path can be read in two ways.
//! Names, references and digests come out as text: a repository prefix may stand before a name, and the caller who parses
//! them knows which error to answer with. Only the shape is judged here, and what could climb out of it.

use super::digest::Digest;
use super::name::Name;
use super::reference::Reference;

/// What a path asks for. The method and the query are not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the parts of the path")]
pub enum Endpoint {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/v2/<name>/manifests/<reference>`
    Manifest { name: String, reference: String },
    /// `/v2/<name>/blobs/<digest>`
    Blob { name: String, digest: String },
    /// `/v2/<name>/blobs/uploads/`, the last slash optional
    UploadStart { name: String },
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload { name: String, id: String },
    /// `/v2/<name>/tags/list`
    Tags { name: String },
    /// `/v2/<name>/referrers/<digest>`
    Referrers { name: String, digest: String },
}

/// Why a path names no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A bad escape, a segment that is empty, `.` or `..`, or a character that no path of the API holds.
    #[error("the path is malformed")]
    Malformed,
    /// A path that the API does not have.
    #[error("the API has no such path")]
    NotFound,
}

/// Splits the raw, still percent-encoded path behind `/v2`.
pub fn split(path: &str) -> Result<Endpoint, PathError> {
    if path.is_empty() || path == "/" {
        return Ok(Endpoint::Base);
    }
    let path = path.strip_prefix('/').ok_or(PathError::NotFound)?;
    // Only behind `uploads` an empty last segment has a meaning; everywhere else it is refused with the other empty ones.
    let (path, slash) = match path.strip_suffix('/') {
        Some(rest) => (rest, true),
        None => (path, false),
    };
    let segments = path
        .split('/')
        .map(segment)
        .collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let endpoint = match segments.as_slice() {
        [name @ .., "blobs", "uploads"] if !name.is_empty() => Endpoint::UploadStart {
            name: name.join("/"),
        },
        _ if slash => return Err(PathError::Malformed),
        ["_catalog"] => Endpoint::Catalog,
        [name @ .., "tags", "list"] if !name.is_empty() => Endpoint::Tags {
            name: name.join("/"),
        },
        [name @ .., "manifests", reference] if !name.is_empty() => Endpoint::Manifest {
            name: name.join("/"),
            reference: (*reference).to_owned(),
        },
        [name @ .., "referrers", digest] if !name.is_empty() => Endpoint::Referrers {
            name: name.join("/"),
            digest: (*digest).to_owned(),
        },
        [name @ .., "blobs", digest] if !name.is_empty() => Endpoint::Blob {
            name: name.join("/"),
            digest: (*digest).to_owned(),
        },
        [name @ .., "blobs", "uploads", id] if !name.is_empty() => Endpoint::Upload {
            name: name.join("/"),
            id: (*id).to_owned(),
        },
        _ => return Err(PathError::NotFound),
    };
    Ok(endpoint)
}

/// `/v2/<name>/manifests/<reference>`
pub fn manifest(name: &Name, reference: &Reference) -> String {
    format!("/v2/{name}/manifests/{reference}")
}

/// `/v2/<name>/blobs/<digest>`
pub fn blob(name: &Name, digest: &Digest) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// `/v2/<name>/blobs/uploads/`
pub fn uploads(name: &Name) -> String {
    format!("/v2/{name}/blobs/uploads/")
}

/// `/v2/<name>/tags/list`
pub fn tags(name: &Name) -> String {
    format!("/v2/{name}/tags/list")
}

/// `/v2/<name>/referrers/<digest>`
pub fn referrers(name: &Name, digest: &Digest) -> String {
    format!("/v2/{name}/referrers/{digest}")
}

/// Decodes one segment, once, and refuses what is not text or would be a path of its own.
fn segment(raw: &str) -> Result<String, PathError> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || bytes.next().and_then(hex).ok_or(PathError::Malformed);
            digit()? << 4 | digit()?
        } else {
            byte
        });
    }
    let Ok(text) = String::from_utf8(decoded) else {
        return Err(PathError::Malformed);
    };
    let climbs = matches!(text.as_str(), "" | "." | "..");
    if climbs || text.contains(|c: char| c == '/' || c == '\\' || c.is_control()) {
        return Err(PathError::Malformed);
    }
    Ok(text)
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
