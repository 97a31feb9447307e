//! The two small files of an OCI image layout: `oci-layout` and `index.json` (image-spec `image-layout.md`).

use serde::{Deserialize, Serialize};

use super::contents::{Contents, IMAGES_MAX};
use super::image_ref::ImageRef;
use crate::oci::descriptor::SIZE_MAX;
use crate::oci::media_type::OCI_INDEX;
use crate::oci::{Digest, MediaType};

/// The most bytes of `index.json`. Only what is needed of it is kept, so that memory stays a small multiple of it.
pub(super) const INDEX_MAX: usize = 64 * 1024 * 1024;
/// The most bytes of `oci-layout`.
pub(super) const LAYOUT_MAX: usize = 4096;
/// `oci-layout` as it is written.
pub(super) const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// The version of the layout that is read.
const LAYOUT_VERSION: &str = "1.0.0";

/// Why one of the small files of an archive cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(super) String);

/// An image that `index.json` lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its manifest or index.
    pub digest: Digest,
    /// How long that is.
    pub size: u64,
    /// What that is.
    pub media_type: MediaType,
    /// Its full name: the first annotation that is one, read as Docker reads names.
    pub reference: Option<ImageRef>,
    /// What the annotations call it, where that is no full name (`latest`, as skopeo and docker write).
    pub said: Option<String>,
}

/// `index.json` of a bundle.
///
/// Both annotations hold the full name: containers/image looks for one, containerd for the other. An image of Docker's media types stands there as what it is,
/// though containers/image (skopeo, podman) passes over it in a layout: with another type, what is pushed would contradict itself.
pub(super) fn render(contents: &Contents) -> Result<Vec<u8>, Malformed> {
    let entries = contents.images().map(|image| {
        let reference = image.reference().to_string();
        Entry {
            media_type: image.media_type().to_string(),
            digest: image.digest().to_string(),
            size: image.size(),
            annotations: Some(Annotations {
                containerd: Some(reference.clone()),
                ref_name: Some(reference),
            }),
        }
    });
    let index = Index {
        schema_version: 2,
        media_type: Some(OCI_INDEX.to_owned()),
        manifests: entries.collect(),
    };
    let bytes = serde_json::to_vec(&index).map_err(|error| Malformed(error.to_string()))?;
    if bytes.len() > INDEX_MAX {
        return Err(Malformed(format!(
            "index.json would be longer than {INDEX_MAX} bytes: make several bundles of it"
        )));
    }
    Ok(bytes)
}

/// Reads `index.json`, anybody's.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Listed>, Malformed> {
    let index: Index = serde_json::from_slice(bytes)
        .map_err(|error| Malformed(format!("it is no image index: {error}")))?;
    let wrong_type = index.media_type.is_some_and(|text| text != OCI_INDEX);
    if index.schema_version != 2 || wrong_type {
        return Err(Malformed(
            "it is no OCI image index of schemaVersion 2".to_owned(),
        ));
    }
    if index.manifests.len() > IMAGES_MAX {
        return Err(Malformed(format!("it lists more than {IMAGES_MAX} images")));
    }
    index.manifests.into_iter().map(listed).collect()
}

/// Reads `oci-layout`.
pub(super) fn check_layout(bytes: &[u8]) -> Result<(), Malformed> {
    let layout: Layout = serde_json::from_slice(bytes)
        .map_err(|error| Malformed(format!("it says no version of the layout: {error}")))?;
    if layout.version == LAYOUT_VERSION {
        Ok(())
    } else {
        Err(Malformed(format!(
            "the layout has version '{}', known is {LAYOUT_VERSION}",
            layout.version.escape_debug()
        )))
    }
}

fn listed(entry: Entry) -> Result<Listed, Malformed> {
    let digest = Digest::parse(&entry.digest).map_err(|error| Malformed(error.to_string()))?;
    let media_type =
        MediaType::parse(&entry.media_type).filter(|media_type| media_type.kind().is_some());
    let Some(media_type) = media_type else {
        return Err(Malformed(format!(
            "it lists {digest} as something else than a manifest"
        )));
    };
    if entry.size > SIZE_MAX {
        return Err(Malformed(format!("it lists {digest} with an absurd size")));
    }
    let Annotations {
        containerd,
        ref_name,
    } = entry.annotations.unwrap_or_default();
    let names = [containerd, ref_name];
    let full = |text: &String| ImageRef::parse_familiar(text).ok();
    Ok(Listed {
        digest,
        size: entry.size,
        media_type,
        reference: names.iter().flatten().find_map(full),
        said: names.into_iter().flatten().next_back(),
    })
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Serialize, Deserialize)]
struct Index {
    #[serde(rename = "schemaVersion")]
    schema_version: u64,
    #[serde(rename = "mediaType", skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

#[derive(Default, Serialize, Deserialize)]
struct Annotations {
    #[serde(
        rename = "io.containerd.image.name",
        skip_serializing_if = "Option::is_none"
    )]
    containerd: Option<String>,
    #[serde(
        rename = "org.opencontainers.image.ref.name",
        skip_serializing_if = "Option::is_none"
    )]
    ref_name: Option<String>,
}
