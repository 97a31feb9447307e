//! The names that entries of an archive may have. They are compared, never opened: no path is made of one.

use crate::oci::{Algorithm, Digest};

pub(super) const LAYOUT: &str = "oci-layout";
pub(super) const INDEX: &str = "index.json";
pub(super) const CONTENTS: &str = "roadstead.json";
pub(super) const SIGNATURE: &str = "roadstead.json.sig";
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const REPOSITORIES: &str = "repositories";

/// What the name of an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryName {
    /// `oci-layout`
    Layout,
    /// `index.json`
    Index,
    /// `roadstead.json`
    Contents,
    /// `roadstead.json.sig`
    Signature,
    /// `manifest.json` of `docker save`
    Manifest,
    /// What `docker save` writes for programs before 2016, and nobody needs: `repositories`, `<id>/json`, `<id>/VERSION`.
    Legacy,
    /// `blobs/<algorithm>/<hex>`
    Blob(Digest),
    /// `<hex>.json`, or crane's `sha256:<hex>`: the config of an image, by its digest
    DockerConfig(Digest),
    /// `<hex>.tar`, or crane's `<hex>.tar.gz`: a layer, by its digest
    DockerLayer(Digest),
    /// `<id>/layer.tar`: a layer, by an identifier that is no digest of it
    NamedLayer,
}

/// The name of a blob in a layout.
pub(super) fn of_blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// A name without the `./` that `tar -C DIR .` writes, and without the `/` at the end of a directory: the form by which duplicates are
/// found.
pub(super) fn bare(name: &str) -> &str {
    let name = name.strip_prefix("./").unwrap_or(name);
    name.strip_suffix('/').unwrap_or(name)
}

/// What a file is by its bare name.
pub(super) fn of_file(name: &str) -> Option<EntryName> {
    Some(match name {
        LAYOUT => EntryName::Layout,
        INDEX => EntryName::Index,
        CONTENTS => EntryName::Contents,
        SIGNATURE => EntryName::Signature,
        MANIFEST => EntryName::Manifest,
        REPOSITORIES => EntryName::Legacy,
        other => return of_longer(other),
    })
}

fn of_longer(name: &str) -> Option<EntryName> {
    if let Some(rest) = name.strip_prefix("blobs/") {
        return blob(rest).map(EntryName::Blob);
    }
    if let Some((id, file)) = name.split_once('/') {
        sha256(id)?;
        return match file {
            "layer.tar" => Some(EntryName::NamedLayer),
            "json" | "VERSION" => Some(EntryName::Legacy),
            _ => None,
        };
    }
    if let Some(hex) = name.strip_prefix("sha256:") {
        return sha256(hex).map(EntryName::DockerConfig);
    }
    let (hex, extension) = name.split_once('.')?;
    let digest = sha256(hex)?;
    match extension {
        "json" => Some(EntryName::DockerConfig(digest)),
        "tar" | "tar.gz" => Some(EntryName::DockerLayer(digest)),
        _ => None,
    }
}

/// `<algorithm>/<hex>`
fn blob(text: &str) -> Option<Digest> {
    let (algorithm, hex) = text.split_once('/')?;
    let known = [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|known| known.as_str() == algorithm)?;
    Digest::parse(&format!("{}:{hex}", known.as_str())).ok()
}

fn sha256(hex: &str) -> Option<Digest> {
    Digest::parse(&format!("sha256:{hex}")).ok()
}

/// Whether a directory of this bare name stands above one of the files.
pub(super) fn is_directory(name: &str) -> bool {
    matches!(name, "" | "." | "blobs" | "blobs/sha256" | "blobs/sha512") || sha256(name).is_some()
}

/// The bare name of the layer that a link of `docker save` stands for. Layers that several images share are links to the first of
/// them: `../<id>/layer.tar` from Docker, `../<hex>.tar` from podman and skopeo.
pub(super) fn link_target(name: &str, target: &str) -> Option<String> {
    if of_file(name) != Some(EntryName::NamedLayer) {
        return None;
    }
    let target = target.strip_prefix("../")?;
    matches!(
        of_file(target),
        Some(EntryName::NamedLayer | EntryName::DockerLayer(_))
    )
    .then(|| target.to_owned())
}
