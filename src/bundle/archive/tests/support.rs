//! Images and bundles made up for tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Cursor};

use crate::bundle::archive::contents::{Blob, Contents, Image, Omitted};
use crate::bundle::archive::writer::{self, Format, WriteError};
use crate::bundle::archive::{Compression, ImageRef, SigningKey};
use crate::oci::media_type::OCI_MANIFEST;
use crate::oci::{Digest, MediaType};

/// What bundles are made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Stock {
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(super) images: Vec<Image>,
}

impl Stock {
    pub(super) fn put(&mut self, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// An image with these layers.
    pub(super) fn image(&mut self, reference: &str, layers: &[&[u8]]) -> Digest {
        let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
        let config =
            format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"name\":\"{reference}\"}}");
        let made: Vec<_> = layers
            .iter()
            .map(|bytes| descriptor("application/vnd.oci.image.layer.v1.tar", bytes))
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": made,
        })
        .to_string();
        let size = manifest.len().try_into().unwrap();
        let digest = self.put(manifest);
        let mut needs: Vec<_> = layers.iter().map(|layer| self.put(*layer)).collect();
        needs.push(self.put(config));
        needs.push(digest.clone());
        self.images.push(Image {
            reference: ImageRef::parse(reference).unwrap(),
            digest: digest.clone(),
            media_type: MediaType::parse(OCI_MANIFEST).unwrap(),
            size,
            needs,
        });
        digest
    }

    pub(super) fn size(&self, digest: &Digest) -> u64 {
        self.blobs[digest].len().try_into().unwrap()
    }

    /// Contents that leave `omitted` out.
    pub(super) fn contents_without(&self, omitted: &[&Digest]) -> Contents {
        let (left_out, carried): (Vec<_>, Vec<_>) = self
            .blobs
            .keys()
            .partition(|digest| omitted.contains(digest));
        let blob = |digest: &Digest| Blob {
            digest: digest.clone(),
            size: self.size(digest),
            media_type: self
                .images
                .iter()
                .find(|image| image.digest == *digest)
                .map(|image| image.media_type.to_string()),
        };
        let without = |digest: &Digest| Omitted {
            digest: digest.clone(),
            size: self.size(digest),
        };
        Contents::new(
            self.images.clone(),
            carried.into_iter().map(blob).collect(),
            left_out.into_iter().map(without).collect(),
            Vec::new(),
        )
        .unwrap()
    }

    pub(super) fn contents(&self) -> Contents {
        self.contents_without(&[])
    }

    pub(super) fn write(
        &self,
        contents: &Contents,
        format: &Format<'_>,
    ) -> Result<Vec<u8>, WriteError> {
        writer::write(contents, format, Vec::new(), |digest| {
            let bytes = self.blobs.get(digest).cloned();
            bytes
                .map(Cursor::new)
                .ok_or_else(|| io::Error::other("gone"))
        })
    }

    /// The whole of it as a bundle.
    pub(super) fn bundle(&self) -> Vec<u8> {
        self.write(&self.contents(), &Format::default()).unwrap()
    }

    pub(super) fn bundle_with(
        &self,
        key: Option<&SigningKey>,
        compression: Compression,
    ) -> Vec<u8> {
        self.write(&self.contents(), &Format { key, compression })
            .unwrap()
    }
}

/// Two images that share a layer.
pub(super) fn stock() -> Stock {
    let mut stock = Stock::default();
    let shared = vec![7_u8; 70_000];
    stock.image("docker.io/library/nginx:1.27", &[&shared, b"nginx"]);
    stock.image("registry.example:5000/team/app:v1", &[&shared, b"app", b""]);
    stock
}

/// A tar archive made by hand, with whatever is wrong with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    /// A header with its checksum right, changed by `odd` before.
    pub(super) fn header(
        mut self,
        name: &str,
        kind: u8,
        size: u64,
        odd: impl FnOnce(&mut [u8]),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_entry_type(tar::EntryType::new(kind));
        odd(header.as_mut_bytes());
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self
    }

    pub(super) fn body(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.header(name, b'0', bytes.len() as u64, |_| {})
            .body(bytes)
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.header(name, b'2', 0, |header| {
            header[157..157 + target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub(super) fn directory(self, name: &str) -> Self {
        self.header(name, b'5', 0, |_| {})
    }

    /// An extended header with these records.
    pub(super) fn extended(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let digits = (1..5_usize)
                .find(|digits| (rest + digits).to_string().len() == *digits)
                .unwrap();
            writeln!(text, "{} {key}={value}", rest + digits).unwrap();
        }
        self.header("PaxHeaders/x", b'x', text.len() as u64, |_| {})
            .body(text.as_bytes())
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(super) fn blob(self, bytes: &[u8]) -> Self {
        self.file(&format!("blobs/sha256/{}", Digest::of(bytes).hex()), bytes)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}
