//! `docker save`: `manifest.json`, and the image manifests that it has none of.
//!
//! Such an archive names its layers by files and gives no digests of them, so the digests are those that were found while the layers went by, and the
//! manifest of an image is made here: of Docker's schema 2, the layers as they are. The layers' uncompressed digests stand in the config, whose own digest
//! is in its name, and are compared.

use std::collections::HashMap;

use serde::Deserialize;

use super::contents::{IMAGES_MAX, NEEDS_MAX};
use super::image_ref::ImageRef;
use super::index::Malformed;
use super::names;
use crate::oci::manifest::LAYERS_MAX;
use crate::oci::media_type::DOCKER_MANIFEST;
use crate::oci::{Descriptor, Digest};

/// The most bytes of `manifest.json`.
pub(super) const MANIFEST_JSON_MAX: u64 = 16 * 1024 * 1024;
/// The most names of one image.
const NAMES_MAX: usize = 1000;
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A file that went by, and what it turned out to be.
#[derive(Debug, Clone)]
pub(super) struct Passed {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) packed: Packed,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Packed {
    /// By the first bytes.
    pub(super) fn of(first: &[u8]) -> Self {
        if first.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else {
            Self::Plain
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gzip",
            Self::Zstd => ".zstd",
        }
    }
}

/// What was seen of an archive of `docker save`.
#[derive(Debug, Default)]
pub(super) struct Saved {
    manifest: Option<Vec<Told>>,
    files: HashMap<String, Passed>,
    links: HashMap<String, String>,
    /// The uncompressed digests of the layers, by config.
    diff_ids: HashMap<Digest, Vec<Digest>>,
}

/// An image that was made of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) manifest: Vec<u8>,
    pub(super) names: Vec<ImageRef>,
    /// Config and layers.
    pub(super) blobs: Vec<Digest>,
}

#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    names: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

impl Saved {
    /// Whether there was a `manifest.json`.
    pub(super) const fn has_manifest(&self) -> bool {
        self.manifest.is_some()
    }

    /// Whether there was anything that only `docker save` writes.
    pub(super) fn is_used(&self) -> bool {
        self.has_manifest() || !self.links.is_empty()
    }

    /// Takes `manifest.json` in.
    pub(super) fn told(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let told: Vec<Told> = serde_json::from_slice(bytes).map_err(|error| {
            Malformed(format!("it is no manifest.json of docker save: {error}"))
        })?;
        let layers = |one: &Told| one.layers.as_ref().map_or(0, Vec::len);
        let tags = |one: &Told| one.names.as_ref().map_or(0, Vec::len);
        if told.len() > IMAGES_MAX
            || told
                .iter()
                .any(|one| layers(one) > LAYERS_MAX || tags(one) > NAMES_MAX)
            || told.iter().map(layers).sum::<usize>() > NEEDS_MAX
        {
            return Err(Malformed(format!(
                "it lists more than {IMAGES_MAX} images, {LAYERS_MAX} layers of one, {NEEDS_MAX} layers of all or {NAMES_MAX} names of one"
            )));
        }
        self.manifest = Some(told);
        Ok(())
    }

    /// Notes a layer or a config that went by under this name.
    pub(super) fn passed(&mut self, name: &str, passed: Passed) {
        self.files.insert(name.to_owned(), passed);
    }

    /// Notes that a layer is another one.
    pub(super) fn linked(&mut self, name: &str, target: String) {
        self.links.insert(name.to_owned(), target);
    }

    /// Looks into a file that may be a config.
    pub(super) fn look(&mut self, digest: &Digest, bytes: &[u8]) {
        let Ok(config) = serde_json::from_slice::<Config>(bytes) else {
            return;
        };
        let ids = config.rootfs.diff_ids.unwrap_or_default();
        let ids: Result<Vec<_>, _> = ids.iter().map(|id| Digest::parse(id)).collect();
        if let Ok(ids) = ids {
            self.diff_ids.insert(digest.clone(), ids);
        }
    }

    /// The images, now that everything has gone by.
    pub(super) fn images(&self) -> Result<Vec<Made>, Malformed> {
        let told = self.manifest.iter().flatten();
        told.map(|told| self.image(told)).collect()
    }

    fn image(&self, told: &Told) -> Result<Made, Malformed> {
        let config = self.file(&told.config)?;
        let layers = told.layers.iter().flatten().map(|name| self.file(name));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let ids = self.diff_ids.get(&config.digest).ok_or_else(|| {
            Malformed(format!(
                "config {} names no layers: it is none",
                config.digest
            ))
        })?;
        let agrees =
            |(layer, id): (&&Passed, &Digest)| layer.packed != Packed::Plain || layer.digest == *id;
        if ids.len() != layers.len() || !layers.iter().zip(ids).all(agrees) {
            return Err(Malformed(format!(
                "the layers are not those that config {} names",
                config.digest
            )));
        }
        let descriptor = |kind: String, passed: &Passed| {
            let made = Descriptor::new(kind, passed.digest.clone(), passed.size);
            made.map(|made| made.to_value())
                .map_err(|error| Malformed(error.to_string()))
        };
        let layer_type = |layer: &Passed| format!("{LAYER_TYPE}{}", layer.packed.suffix());
        let described = layers
            .iter()
            .map(|layer| descriptor(layer_type(layer), layer));
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": descriptor(CONFIG_TYPE.to_owned(), config)?,
            "layers": described.collect::<Result<Vec<_>, _>>()?,
        });
        let name = |text: &String| {
            ImageRef::parse_familiar(text)
                .map_err(|error| Malformed(format!("'{}': {error}", text.escape_debug())))
        };
        let names = told.names.iter().flatten().map(name);
        let blobs = [config].into_iter().chain(layers);
        Ok(Made {
            manifest: manifest.to_string().into_bytes(),
            names: names.collect::<Result<_, _>>()?,
            blobs: blobs.map(|passed| passed.digest.clone()).collect(),
        })
    }

    /// What went by under this name, or under the one that it is a link to.
    fn file(&self, name: &str) -> Result<&Passed, Malformed> {
        let name = names::bare(name);
        let target = self.links.get(name).map_or(name, String::as_str);
        self.files.get(target).ok_or_else(|| {
            Malformed(format!(
                "manifest.json names '{}', which is not in the archive",
                name.escape_debug()
            ))
        })
    }
}
