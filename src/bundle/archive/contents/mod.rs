//! What a bundle holds: `roadstead.json`, its table of contents, which is what gets signed.
//!
//! There is one way to write the same contents, and [`Contents::parse`] takes no other: what it read is written again and compared. So two readers
//! cannot see two tables in the same bytes, and the same contents are the same bundle.
//!
//! Manifests stand first among the blobs, so that whoever reads the stream knows what an image is made of before its layers come.

mod shape;

use std::collections::HashMap;

use self::shape::{Shape, Versioned};
use super::image_ref::ImageRef;
use crate::oci::descriptor::SIZE_MAX;
use crate::oci::{Digest, MediaType, Reference};

/// The version that is written and read.
pub const VERSION: u64 = 1;
/// The most bytes of `roadstead.json`.
pub const CONTENTS_MAX: usize = 64 * 1024 * 1024;
/// The most images.
pub const IMAGES_MAX: usize = 100_000;
/// The most blobs, carried and left out together. As many with a media type each still fit into [`CONTENTS_MAX`].
pub const BLOBS_MAX: usize = 250_000;
/// The most that all images together may need, a shared blob counted once for each of them.
pub const NEEDS_MAX: usize = 1_000_000;
/// The most platforms, and the most bytes of one.
pub const PLATFORMS_MAX: usize = 64;
const PLATFORM_LEN_MAX: usize = 128;

/// An image that goes into a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// By which name it is found.
    pub reference: ImageRef,
    /// Its manifest or index.
    pub digest: Digest,
    /// What that is.
    pub media_type: MediaType,
    /// How long that is.
    pub size: u64,
    /// Everything that the image is made of and that was chosen, its manifest included.
    pub needs: Vec<Digest>,
}

/// Bytes that the bundle carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
    /// What they are, where that is known.
    pub media_type: Option<String>,
}

/// Bytes that are needed and left out on purpose, because the other side has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omitted {
    /// Their digest.
    pub digest: Digest,
    /// How many they are.
    pub size: u64,
}

/// A table of contents that has been checked: whatever an image needs is carried or declared as left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    platforms: Vec<String>,
    images: Vec<Entry>,
    blobs: Vec<Blob>,
    omitted: Vec<Omitted>,
}

/// An image, with what it needs by place: first the blobs, behind them what is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    reference: ImageRef,
    digest: Digest,
    media_type: MediaType,
    size: u64,
    needs: Vec<u32>,
}

/// Why these are no contents of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// The bytes are longer than [`CONTENTS_MAX`].
    #[error("it is longer than {CONTENTS_MAX} bytes")]
    TooLong,
    /// More of something than its limit.
    #[error("it has more than {most} {what}; make several bundles of it")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// Written by a newer program.
    #[error("it has version {0}, this program reads version {VERSION}: update Roadstead here")]
    Version(u64),
    /// No JSON of this shape.
    #[error("it is no table of contents: {0}")]
    Malformed(String),
    /// The same contents are written in another way.
    #[error(
        "it is not written as Roadstead writes it (order, white space, a field twice): it was edited"
    )]
    NotCanonical,
    /// Something contradicts something else.
    #[error("{0}")]
    Contradiction(String),
}

impl Contents {
    /// Puts contents together, in whatever order they come.
    pub fn new(
        images: Vec<Image>,
        mut blobs: Vec<Blob>,
        mut omitted: Vec<Omitted>,
        mut platforms: Vec<String>,
    ) -> Result<Self, ContentsError> {
        check_counts(&images, blobs.len() + omitted.len(), platforms.len())?;
        platforms.sort();
        platforms.dedup();
        if let Some(odd) = platforms.iter().find(|text| !is_platform(text)) {
            return Err(contradiction(format!(
                "'{}' is no platform: it looks like linux/amd64 or linux/arm/v7",
                odd.escape_debug()
            )));
        }
        blobs.sort_by_cached_key(|blob| (!is_manifest(blob), blob.digest.clone()));
        omitted.sort_by(|one, other| one.digest.cmp(&other.digest));
        let places = places(&blobs, &omitted)?;
        let mut used = vec![false; places.len()];
        let mut made = images
            .into_iter()
            .map(|image| entry(image, &places, &mut used))
            .collect::<Result<Vec<_>, _>>()?;
        made.sort_by(|one, other| one.reference.cmp(&other.reference));
        let twice = made.windows(2).find_map(|pair| match pair {
            [one, other] if one.reference == other.reference => Some(&one.reference),
            _ => None,
        });
        if let Some(reference) = twice {
            return Err(contradiction(format!("{reference} stands twice")));
        }
        let contents = Self {
            platforms,
            images: made,
            blobs,
            omitted,
        };
        if let Some(place) = used.iter().position(|used| !used) {
            let digest = contents.at(place).map(|(digest, _)| digest.to_string());
            return Err(contradiction(format!(
                "no image needs {}",
                digest.unwrap_or_default()
            )));
        }
        Ok(contents)
    }

    /// Reads `roadstead.json`.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentsError> {
        if bytes.len() > CONTENTS_MAX {
            return Err(ContentsError::TooLong);
        }
        let malformed = |error: serde_json::Error| ContentsError::Malformed(error.to_string());
        let Versioned { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version != VERSION {
            return Err(ContentsError::Version(version));
        }
        let shape: Shape<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
        let contents = shape.check()?;
        if contents.to_json()? != bytes {
            return Err(ContentsError::NotCanonical);
        }
        Ok(contents)
    }

    /// `roadstead.json`, to the byte the same for the same contents.
    pub fn to_json(&self) -> Result<Vec<u8>, ContentsError> {
        let mut bytes = serde_json::to_vec(&Shape::of(self))
            .map_err(|error| ContentsError::Malformed(error.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() > CONTENTS_MAX {
            return Err(ContentsError::TooLong);
        }
        Ok(bytes)
    }

    /// The platforms that were chosen; none means all.
    pub fn platforms(&self) -> &[String] {
        &self.platforms
    }

    /// What the bundle carries, in the order of the archive.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// What it leaves out.
    pub fn omitted(&self) -> &[Omitted] {
        &self.omitted
    }

    /// How many bytes all blobs have.
    pub fn bytes(&self) -> u64 {
        self.blobs
            .iter()
            .fold(0, |sum, blob| sum.saturating_add(blob.size))
    }

    /// The images, by name.
    pub fn images(&self) -> impl ExactSizeIterator<Item = Carried<'_>> {
        self.images.iter().map(|entry| Carried {
            contents: self,
            entry,
        })
    }

    /// What stands at a place: the blobs, behind them what is left out.
    fn at(&self, place: usize) -> Option<(&Digest, u64)> {
        let blob = self.blobs.get(place).map(|blob| (&blob.digest, blob.size));
        blob.or_else(|| {
            let omitted = self.omitted.get(place.checked_sub(self.blobs.len())?)?;
            Some((&omitted.digest, omitted.size))
        })
    }
}

/// An image of a bundle.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    contents: &'a Contents,
    entry: &'a Entry,
}

impl<'a> Carried<'a> {
    /// Its full name.
    pub const fn reference(&self) -> &'a ImageRef {
        &self.entry.reference
    }

    /// Its manifest or index.
    pub const fn digest(&self) -> &'a Digest {
        &self.entry.digest
    }

    /// What that is.
    pub const fn media_type(&self) -> &'a MediaType {
        &self.entry.media_type
    }

    /// How long that is.
    pub const fn size(&self) -> u64 {
        self.entry.size
    }

    /// What it is made of, with sizes: what is carried first, then what is left out.
    pub fn needs(&self) -> impl Iterator<Item = (&'a Digest, u64)> + use<'a> {
        let contents = self.contents;
        let places = self.entry.needs.iter();
        places.filter_map(move |place| contents.at(usize::try_from(*place).ok()?))
    }
}

fn contradiction(sentence: impl Into<String>) -> ContentsError {
    ContentsError::Contradiction(sentence.into())
}

fn check_counts(images: &[Image], blobs: usize, platforms: usize) -> Result<(), ContentsError> {
    let needs = images.iter().map(|image| image.needs.len()).sum();
    for (count, most, what) in [
        (images.len(), IMAGES_MAX, "images"),
        (blobs, BLOBS_MAX, "blobs"),
        (
            needs,
            NEEDS_MAX,
            "blobs of images, counted for each image that needs them",
        ),
        (platforms, PLATFORMS_MAX, "platforms"),
    ] {
        if count > most {
            return Err(ContentsError::TooMany { what, most });
        }
    }
    Ok(())
}

fn is_manifest(blob: &Blob) -> bool {
    blob.media_type
        .as_deref()
        .and_then(MediaType::parse)
        .is_some_and(|media_type| media_type.kind().is_some())
}

/// `os/architecture`, with a variant or without.
fn is_platform(text: &str) -> bool {
    let fits = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    text.len() <= PLATFORM_LEN_MAX
        && (2..=3).contains(&text.split('/').count())
        && text.split('/').all(fits)
}

/// Where each digest stands, and how many bytes it has.
type Places = HashMap<Digest, (u32, u64)>;

fn places(blobs: &[Blob], omitted: &[Omitted]) -> Result<Places, ContentsError> {
    let blobs = blobs.iter().map(|blob| (&blob.digest, blob.size));
    let omitted = omitted.iter().map(|one| (&one.digest, one.size));
    let mut places = HashMap::new();
    let mut sum = 0_u64;
    for (place, (digest, size)) in (0_u32..).zip(blobs.chain(omitted)) {
        sum = sum.saturating_add(size);
        if sum > SIZE_MAX {
            return Err(contradiction("the sizes add up to more than 2^53 bytes"));
        }
        if places.insert(digest.clone(), (place, size)).is_some() {
            return Err(contradiction(format!("{digest} stands twice")));
        }
    }
    Ok(places)
}

/// The image with its needs by place, which are marked as used.
fn entry(image: Image, places: &Places, used: &mut [bool]) -> Result<Entry, ContentsError> {
    let Image {
        reference,
        digest,
        media_type,
        size,
        needs,
    } = image;
    if media_type.kind().is_none() {
        return Err(contradiction(format!(
            "{reference} is said to be '{media_type}', which is no manifest"
        )));
    }
    if matches!(reference.reference(), Reference::Digest(named) if *named != digest) {
        return Err(contradiction(format!(
            "{reference} is said to be {digest}, which its name denies"
        )));
    }
    let unknown = |digest: &Digest| {
        contradiction(format!(
            "{reference} needs {digest}, which is neither carried nor declared as left out"
        ))
    };
    match places.get(&digest) {
        None => return Err(unknown(&digest)),
        Some((_, there)) if *there != size => {
            return Err(contradiction(format!("{digest} has two sizes")));
        }
        Some(_) => {}
    }
    let mut by_place = Vec::with_capacity(needs.len() + 1);
    for digest in needs.iter().chain([&digest]) {
        let (place, _) = places.get(digest).ok_or_else(|| unknown(digest))?;
        by_place.push(*place);
        if let Some(used) = usize::try_from(*place)
            .ok()
            .and_then(|place| used.get_mut(place))
        {
            *used = true;
        }
    }
    by_place.sort_unstable();
    by_place.dedup();
    Ok(Entry {
        reference,
        digest,
        media_type,
        size,
        needs: by_place,
    })
}
