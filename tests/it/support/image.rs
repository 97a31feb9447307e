//! Images made by seed: everything a registry stores, as (digest, media type, bytes), valid enough to be unpacked
//! and to have a container created from it.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// `sha256:…` of the bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:…` of the bytes.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from_digit(nibble.into(), 16).unwrap())
        .collect()
}

/// Bytes with their digest and media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub digest: String,
    pub media_type: String,
    pub bytes: Bytes,
}

impl Content {
    /// By SHA-256.
    pub fn new(media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: sha256(&bytes),
            media_type: media_type.to_owned(),
            bytes,
        }
    }

    /// `value` as compact JSON.
    pub fn json(media_type: &str, value: &Value) -> Self {
        Self::new(media_type, value.to_string())
    }

    /// How many bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// `{mediaType, digest, size}`.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// `size` bytes that no compression shrinks, the same for the same seed.
pub fn noise(seed: u64, size: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(size + 8);
    let mut state = seed;
    while bytes.len() < size {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// A blob of noise: no layer, just bytes of a chosen size.
pub fn blob(seed: u64, size: usize) -> Content {
    Content::new("application/octet-stream", noise(seed, size))
}

/// Whose media types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Oci,
    Docker,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer and the digest of what is in it once unpacked.
#[derive(Debug, Clone)]
pub struct Layer {
    tar: Bytes,
    packing: Packing,
}

/// A layer with these files.
pub fn layer(packing: Packing, files: &[(&str, &[u8])]) -> Layer {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, *bytes).unwrap();
    }
    Layer {
        tar: builder.into_inner().unwrap().into(),
        packing,
    }
}

/// The layer that changes nothing: an archive with no entries.
pub fn empty_layer(packing: Packing) -> Layer {
    layer(packing, &[])
}

/// A layer with one file of `size` bytes of noise.
pub fn noise_layer(packing: Packing, seed: u64, size: usize) -> Layer {
    layer(packing, &[("noise", &noise(seed, size))])
}

impl Layer {
    fn content(&self, flavour: Flavour) -> Content {
        let (suffix, bytes) = match self.packing {
            Packing::Plain => ("", self.tar.clone()),
            Packing::Gzip => ("+gzip", gzip(&self.tar)),
            Packing::Zstd => ("+zstd", zstd::encode_all(&*self.tar, 1).unwrap().into()),
        };
        match (flavour, self.packing) {
            (Flavour::Docker, Packing::Gzip) => Content::new(DOCKER_LAYER, bytes),
            (Flavour::Docker, Packing::Plain) => {
                Content::new("application/vnd.docker.image.rootfs.diff.tar", bytes)
            }
            _ => Content::new(&format!("{OCI_LAYER}{suffix}"), bytes),
        }
    }
}

/// Packed as Docker packs: fast, and without a time stamp.
pub fn gzip(bytes: &[u8]) -> Bytes {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().into()
}

/// A manifest or an index, with all it leads to.
#[derive(Debug, Clone)]
pub struct Image {
    /// What a tag points to.
    pub root: Content,
    /// All manifests, children before parents, the root last.
    pub manifests: Vec<Content>,
    /// Configurations and layers.
    pub blobs: Vec<Content>,
    /// What an index says of this image's platform.
    pub platform: Value,
}

impl Image {
    /// The digest of the root.
    pub fn digest(&self) -> &str {
        &self.root.digest
    }

    /// The manifest at `position` of an index; of an image, itself at 0.
    pub fn child(&self, position: usize) -> &Content {
        &self.manifests[position]
    }

    /// The blobs that are layers, in order.
    pub fn layers(&self) -> Vec<&Content> {
        self.blobs
            .iter()
            .filter(|blob| !blob.media_type.ends_with("json"))
            .collect()
    }
}

/// An image for linux/`architecture`.
pub fn image(flavour: Flavour, architecture: &str, layers: &[Layer]) -> Image {
    let contents: Vec<Content> = layers.iter().map(|layer| layer.content(flavour)).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(&layer.tar)).collect();
    let history: Vec<Value> = layers
        .iter()
        .map(|_| json!({"created": "2024-01-01T00:00:00Z", "created_by": "tests"}))
        .collect();
    let (manifest_type, config_type) = match flavour {
        Flavour::Oci => (OCI_MANIFEST, OCI_CONFIG),
        Flavour::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
    };
    let config = Content::json(
        config_type,
        &json!({
            "created": "2024-01-01T00:00:00Z", "architecture": architecture, "os": "linux",
            "config": {"Cmd": ["/hello"], "Env": ["PATH=/"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        }),
    );
    let root = Content::json(
        manifest_type,
        &json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor(),
            "layers": contents.iter().map(Content::descriptor).collect::<Vec<_>>(),
        }),
    );
    let mut blobs = vec![config];
    for content in contents {
        if !blobs.contains(&content) {
            blobs.push(content);
        }
    }
    let platform = json!({"architecture": architecture, "os": "linux"});
    Image {
        root: root.clone(),
        manifests: vec![root],
        blobs,
        platform,
    }
}

/// An index or manifest list over images.
pub fn index(flavour: Flavour, images: &[Image]) -> Image {
    let media_type = match flavour {
        Flavour::Oci => OCI_INDEX,
        Flavour::Docker => DOCKER_LIST,
    };
    let children: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut descriptor = image.root.descriptor();
            descriptor["platform"] = image.platform.clone();
            descriptor
        })
        .collect();
    let root = Content::json(
        media_type,
        &json!({"schemaVersion": 2, "mediaType": media_type, "manifests": children}),
    );
    let mut manifests: Vec<Content> = images
        .iter()
        .flat_map(|image| image.manifests.clone())
        .collect();
    manifests.push(root.clone());
    let mut blobs: Vec<Content> = Vec::new();
    for blob in images.iter().flat_map(|image| &image.blobs) {
        if !blobs.contains(blob) {
            blobs.push(blob.clone());
        }
    }
    Image {
        root,
        manifests,
        blobs,
        platform: json!({"architecture": "unknown", "os": "unknown"}),
    }
}

/// A small image that differs by seed: one gzip layer with a few files.
pub fn small(flavour: Flavour, seed: u64) -> Image {
    let text = format!("#!/bin/true\nseed {seed}\n");
    image(
        flavour,
        "amd64",
        &[layer(
            Packing::Gzip,
            &[("hello", text.as_bytes()), ("etc/seed", &noise(seed, 2000))],
        )],
    )
}

/// amd64 and arm64 under one index; each with a layer of `size` bytes, a small one and the empty one. OCI images
/// have a zstd layer as well.
pub fn multi_platform(flavour: Flavour, seed: u64, size: usize) -> Image {
    let platform = |architecture: &str, seed: u64| {
        let mut layers = vec![
            noise_layer(Packing::Gzip, seed, size),
            layer(
                Packing::Gzip,
                &[
                    ("hello", b"#!/bin/true\n"),
                    ("etc/arch", architecture.as_bytes()),
                ],
            ),
            empty_layer(Packing::Gzip),
        ];
        if flavour == Flavour::Oci {
            layers.push(layer(
                Packing::Zstd,
                &[("etc/zstd", &noise(seed + 1, 5000))],
            ));
        }
        image(flavour, architecture, &layers)
    };
    index(
        flavour,
        &[platform("amd64", seed), platform("arm64", seed + 1000)],
    )
}

/// An artifact that refers to `subject`: a manifest with the empty configuration and one payload.
pub fn artifact(subject: Option<&Content>, artifact_type: &str, payload: &[u8]) -> Image {
    let empty = Content::new(OCI_EMPTY, "{}");
    let payload = Content::new("application/octet-stream", payload.to_vec());
    let mut value = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
        "config": empty.descriptor(), "layers": [payload.descriptor()],
        "annotations": {"org.opencontainers.image.created": "2024-01-01T00:00:00Z"},
    });
    if let Some(subject) = subject {
        value["subject"] = subject.descriptor();
    }
    let root = Content::json(OCI_MANIFEST, &value);
    Image {
        root: root.clone(),
        manifests: vec![root],
        blobs: vec![empty, payload],
        platform: Value::Null,
    }
}

/// An image whose configuration has labels.
pub fn labelled(seed: u64, labels: &Value) -> Image {
    let plain = small(Flavour::Oci, seed);
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": labels}, "seed": seed,
        "rootfs": {"type": "layers", "diff_ids": []}});
    let config = Content::json("application/vnd.oci.image.config.v1+json", &config);
    let layer = (*plain.layers()[0]).clone();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(), "layers": [layer.descriptor()]});
    let root = Content::json(OCI_MANIFEST, &manifest);
    Image {
        manifests: vec![root.clone()],
        root,
        blobs: vec![config, layer],
        ..plain
    }
}

/// The hash of a digest.
pub fn plain_hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}
