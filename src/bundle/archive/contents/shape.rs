//! `roadstead.json` as it is written, field by field.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Blob, Contents, ContentsError, Entry, Image, NEEDS_MAX, Omitted, VERSION};
use crate::bundle::archive::image_ref::ImageRef;
use crate::oci::{Digest, MediaType};

#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u64,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shape<'a> {
    version: u64,
    platforms: Vec<String>,
    #[serde(borrow)]
    images: Vec<ImageShape<'a>>,
    #[serde(borrow)]
    blobs: Vec<BlobShape<'a>>,
    #[serde(borrow)]
    omitted: Vec<BlobShape<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImageShape<'a> {
    #[serde(borrow)]
    reference: Cow<'a, str>,
    digest: Cow<'a, str>,
    #[serde(rename = "mediaType")]
    media_type: Cow<'a, str>,
    size: u64,
    /// Places among the blobs, then among what is left out: digests in their place would be most of the file.
    needs: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlobShape<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
    size: u64,
    #[serde(rename = "mediaType", default, skip_serializing_if = "Option::is_none")]
    media_type: Option<Cow<'a, str>>,
}

impl<'a> Shape<'a> {
    pub(super) fn of(contents: &'a Contents) -> Self {
        let image = |entry: &'a Entry| ImageShape {
            reference: entry.reference.to_string().into(),
            digest: entry.digest.to_string().into(),
            media_type: entry.media_type.as_str().into(),
            size: entry.size,
            needs: entry.needs.clone(),
        };
        let blob = |blob: &'a Blob| BlobShape {
            digest: blob.digest.to_string().into(),
            size: blob.size,
            media_type: blob.media_type.as_deref().map(Into::into),
        };
        let omitted = |one: &'a Omitted| BlobShape {
            digest: one.digest.to_string().into(),
            size: one.size,
            media_type: None,
        };
        Self {
            version: VERSION,
            platforms: contents.platforms.clone(),
            images: contents.images.iter().map(image).collect(),
            blobs: contents.blobs.iter().map(blob).collect(),
            omitted: contents.omitted.iter().map(omitted).collect(),
        }
    }

    /// The contents, all of it judged as if somebody put them together.
    pub(super) fn check(self) -> Result<Contents, ContentsError> {
        let places: Vec<Digest> = self
            .blobs
            .iter()
            .chain(&self.omitted)
            .map(|shape| digest(&shape.digest))
            .collect::<Result<_, _>>()?;
        let image = |shape: ImageShape<'_>| {
            let at = |place: &u32| {
                let place = usize::try_from(*place).ok();
                let digest = place.and_then(|place| places.get(place)).cloned();
                digest.ok_or_else(|| {
                    ContentsError::Malformed(format!(
                        "{} needs a place that there is not",
                        shape.reference.escape_debug()
                    ))
                })
            };
            Ok(Image {
                reference: ImageRef::parse(&shape.reference)
                    .map_err(|error| ContentsError::Malformed(error.to_string()))?,
                digest: digest(&shape.digest)?,
                media_type: MediaType::parse(&shape.media_type).ok_or_else(|| {
                    ContentsError::Malformed("an image has no media type".to_owned())
                })?,
                size: shape.size,
                needs: shape.needs.iter().map(at).collect::<Result<_, _>>()?,
            })
        };
        let blob = |shape: &BlobShape<'_>| {
            Ok(Blob {
                digest: digest(&shape.digest)?,
                size: shape.size,
                media_type: shape.media_type.as_deref().map(str::to_owned),
            })
        };
        let omitted = |shape: &BlobShape<'_>| {
            Ok(Omitted {
                digest: digest(&shape.digest)?,
                size: shape.size,
            })
        };
        let blobs = self.blobs.iter().map(blob).collect::<Result<_, _>>()?;
        let left_out = self.omitted.iter().map(omitted).collect::<Result<_, _>>()?;
        // Digests of all needs would be a hundred times the file, so they are counted before they are made.
        let needs: usize = self.images.iter().map(|image| image.needs.len()).sum();
        if needs > NEEDS_MAX {
            return Err(ContentsError::TooMany {
                what: "blobs of images, counted for each image that needs them",
                most: NEEDS_MAX,
            });
        }
        let images = self.images.into_iter().map(image);
        Contents::new(
            images.collect::<Result<_, _>>()?,
            blobs,
            left_out,
            self.platforms,
        )
    }
}

fn digest(text: &str) -> Result<Digest, ContentsError> {
    Digest::parse(text).map_err(|error| ContentsError::Malformed(error.to_string()))
}
