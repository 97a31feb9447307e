//! What a path of a repository means in Artifactory's layout (PROTOCOL E4): folders, images, tags, manifests, layers.

use crate::api::error::ApiError;
use crate::oci::manifest::{MANIFEST_MAX, Manifest};
use crate::oci::{Algorithm, Digest, ErrorCode, MediaType, Name, Tag};
use crate::repository::Repository;
use crate::store::Store;
use crate::store::index::TagRow;
use crate::store::index::items::{BLOB_PREFIX, manifest_file};

/// A tag, with what it means.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    pub(super) name: Name,
    pub(super) tag: Tag,
    pub(super) row: TagRow,
}

/// What a path means.
#[derive(Debug)]
pub(super) enum Node {
    /// A folder of images, or an image as a folder of tags: what is in it.
    Folder(Vec<String>),
    /// A tag as a folder: what is in it.
    Tag(Tagged, Vec<String>),
    /// The manifest of a tag.
    Manifest(Tagged),
    /// A layer or configuration of a tag, and its length.
    Blob(Tagged, Digest, u64),
}

/// Whether a file is called as manifests are.
pub(super) fn is_manifest(file: &str) -> bool {
    matches!(file, "manifest.json" | "list.manifest.json")
}

/// Finds what `path` means in `repository`.
pub(super) async fn find(
    store: &Store,
    repository: &Repository,
    path: &str,
) -> Result<Option<Node>, ApiError> {
    let failed = |error| ApiError::from_repository(error, ErrorCode::NameUnknown);
    let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(hex) = last.strip_prefix(BLOB_PREFIX) {
        let Some(tagged) = tagged(store, repository, parent).await? else {
            return Ok(None);
        };
        let digest = Digest::parse(&format!("{}:{hex}", Algorithm::Sha256.as_str())).ok();
        let blobs = blobs(store, &tagged).await;
        let found = blobs
            .into_iter()
            .find(|(blob, _)| Some(blob) == digest.as_ref());
        return Ok(found.map(|(digest, size)| Node::Blob(tagged, digest, size)));
    }
    if is_manifest(last) {
        let found = tagged(store, repository, parent).await?;
        let found = found.filter(|tagged| manifest_file(&tagged.row.media_type) == last);
        return Ok(found.map(Node::Manifest));
    }
    if let Some(tagged) = tagged(store, repository, path).await? {
        let mut children = vec![manifest_file(&tagged.row.media_type).to_owned()];
        let blobs = blobs(store, &tagged).await;
        children.extend(
            blobs
                .iter()
                .map(|(digest, _)| format!("{BLOB_PREFIX}{}", digest.hex())),
        );
        return Ok(Some(Node::Tag(tagged, children)));
    }
    let names = repository.names_below(path).await.map_err(failed)?;
    if names.is_empty() && !path.is_empty() {
        return Ok(None);
    }
    let mut children = Vec::new();
    for name in &names {
        let below = name.as_str().strip_prefix(path).unwrap_or_default();
        let below = below.strip_prefix('/').unwrap_or(below);
        match below.split('/').next() {
            None | Some("") => children.extend(known_tags(store, repository, name).await?),
            Some(child) => children.push(child.to_owned()),
        }
    }
    children.sort_unstable();
    children.dedup();
    Ok(Some(Node::Folder(children)))
}

/// Every tag at or below a path.
pub(super) async fn tags_below(
    store: &Store,
    repository: &Repository,
    path: &str,
) -> Result<Vec<Tagged>, ApiError> {
    let path = ["/manifest.json", "/list.manifest.json"]
        .iter()
        .find_map(|file| path.strip_suffix(file))
        .unwrap_or(path);
    if let Some(tagged) = tagged(store, repository, path).await? {
        return Ok(vec![tagged]);
    }
    let names = repository.names_below(path).await;
    let names = names.map_err(|error| ApiError::from_repository(error, ErrorCode::NameUnknown))?;
    let mut found = Vec::new();
    for name in names {
        for tag in known_tags(store, repository, &name).await? {
            found.extend(tagged_as(store, repository, &name, &tag).await?);
        }
    }
    Ok(found)
}

async fn known_tags(
    store: &Store,
    repository: &Repository,
    name: &Name,
) -> Result<Vec<String>, ApiError> {
    let known = store.index().known_tags(repository.key(), name).await;
    known.map_err(|error| ApiError::failed(&error))
}

async fn tagged(
    store: &Store,
    repository: &Repository,
    path: &str,
) -> Result<Option<Tagged>, ApiError> {
    let Some((name, tag)) = path.rsplit_once('/') else {
        return Ok(None);
    };
    let Ok(name) = Name::parse(name) else {
        return Ok(None);
    };
    tagged_as(store, repository, &name, tag).await
}

async fn tagged_as(
    store: &Store,
    repository: &Repository,
    name: &Name,
    tag: &str,
) -> Result<Option<Tagged>, ApiError> {
    let Ok(tag) = Tag::parse(tag) else {
        return Ok(None);
    };
    let row = store.index().tag(repository.key(), name, &tag).await;
    let row = row.map_err(|error| ApiError::failed(&error))?;
    Ok(row.filter(|row| row.gone.is_none()).map(|row| Tagged {
        name: name.clone(),
        tag,
        row,
    }))
}

/// What the manifest of a tag points to and is no manifest, with lengths.
async fn blobs(store: &Store, tagged: &Tagged) -> Vec<(Digest, u64)> {
    let Ok(Some(blob)) = store.open_blob(&tagged.row.served).await else {
        return Vec::new();
    };
    let Ok(bytes) = blob.read_whole(MANIFEST_MAX).await else {
        return Vec::new();
    };
    let declared = MediaType::parse(&tagged.row.media_type);
    let Ok(manifest) = Manifest::parse(&bytes, declared.as_ref()) else {
        return Vec::new();
    };
    let mut blobs: Vec<(Digest, u64)> = manifest
        .edges()
        .filter(|(kind, _)| matches!(kind.as_str(), "config" | "layer"))
        .map(|(_, descriptor)| (descriptor.digest().clone(), descriptor.size()))
        .filter(|(digest, _)| digest.algorithm() == Algorithm::Sha256)
        .collect();
    blobs.sort();
    blobs.dedup();
    blobs
}
