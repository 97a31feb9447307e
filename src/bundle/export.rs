//! What goes into a bundle: found, walked, brought into the store, and held there until it has been carried out.
//!
//! The snapshot is consistent because it is made of digests: what tags mean is looked up once, and from then on nothing that the bundle carries
//! may be evicted or collected, whatever is pushed, pulled or deleted meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::str::FromStr as _;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::archive::contents::{Blob, Image, Omitted};
use super::archive::{Contents, ContentsError, ImageRef};
use super::asked::Asked;
use super::found::{Search, Sought};
use super::list::ListError;
use super::progress::Event;
use crate::oci::{Digest, Platform, Reference};
use crate::repository::{Error, Gathered, bring};
use crate::store::{Hold, NoRoomToKeep, Store, StoreError};

/// How many blobs are fetched at a time.
const AT_ONCE: usize = 6;

/// What is to be carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Which images.
    pub asked: Asked,
    /// The digests that the other side has, which are left out.
    pub have: Vec<String>,
}

/// What is carried out; all of it stays in the store while this is there.
#[derive(Debug)]
pub struct Export {
    /// The table of contents.
    pub contents: Contents,
    /// Keeps it.
    _holds: Vec<Hold>,
}

/// Why nothing is carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// Nothing is asked for.
    #[error("no image is asked for: name some, or give a list with -f that has some")]
    Nothing,
    /// Some images cannot be had; each was told.
    #[error("{0} of the images cannot be had, so nothing was written")]
    Troubles(usize),
    /// The other side's inventory has something that is no digest.
    #[error("the inventory lists `{0}`, which is no digest")]
    Inventory(String),
    /// The same tag is wanted twice, with two meanings.
    #[error("{0} is wanted as {1} and as {2}; one bundle can carry one of them")]
    Twice(ImageRef, Digest, Digest),
    /// Two manifests tell different sizes of the same content.
    #[error("the manifests do not agree on how many bytes {0} has")]
    Sizes(Digest),
    /// The table cannot be written.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// Something could not be fetched.
    #[error("{0} cannot be fetched: {1}")]
    Fetch(Digest, Error),
    /// It does not fit the cache.
    #[error("the images do not fit the cache, which holds all of them until they are written: {0}")]
    NoRoom(NoRoomToKeep),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(StoreError),
    /// Something is not in the store although it was fetched.
    #[error(
        "{0} is not in the store although it was fetched; is storage.max_size too small for these images?"
    )]
    Gone(Digest),
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoRoomToKeep(why) => Self::NoRoom(why),
            StoreError::Full
            | StoreError::Mismatch { .. }
            | StoreError::Io(_)
            | StoreError::Pending(_)
            | StoreError::Index(_) => Self::Store(error),
        }
    }
}

/// A piece of something that goes along.
#[derive(Debug)]
struct Piece {
    size: u64,
    media_type: Option<String>,
    /// Of which image it is, as a place in the list.
    of: usize,
}

impl Export {
    /// Gets everything together.
    pub async fn prepare(
        search: &Search<'_>,
        store: &Store,
        order: &Order,
    ) -> Result<Self, ExportError> {
        if order.asked.is_empty() {
            return Err(ExportError::Nothing);
        }
        let have = order
            .have
            .iter()
            .map(|text| {
                Digest::from_str(text).map_err(|_other| ExportError::Inventory(text.clone()))
            })
            .collect::<Result<HashSet<_>, _>>()?;
        let (sought, troubles) = search.find(&order.asked).await?;
        if sought.is_empty() && troubles.is_empty() {
            return Err(ExportError::Nothing);
        }
        let (found, more) = search.gather(sought).await;
        for trouble in troubles.iter().chain(&more) {
            search.progress.tell(trouble.event()).await;
        }
        let troubles = troubles.len() + more.len();
        if troubles > 0 {
            return Err(ExportError::Troubles(troubles));
        }
        let mut pieces = BTreeMap::new();
        let mut images = BTreeMap::new();
        for (number, one) in found.iter().enumerate() {
            take(store, number, one, &mut pieces, &mut images).await?;
        }
        let carried: Vec<&Digest> = pieces.keys().filter(|one| !have.contains(*one)).collect();
        let holds: Vec<Hold> = carried.iter().map(|digest| store.hold(digest)).collect();
        // All of it must be here at the same time. Better said before the first blob is fetched.
        let together: Vec<(Digest, u64)> = carried
            .iter()
            .filter_map(|digest| Some(((*digest).clone(), pieces.get(*digest)?.size)))
            .collect();
        store.check_kept_room(&together).await?;
        fetch(search, store, &found, (&pieces, &carried)).await?;
        let blobs = carried.iter().filter_map(|digest| {
            let piece = pieces.get(*digest)?;
            Some(Blob {
                digest: (*digest).clone(),
                size: piece.size,
                media_type: piece.media_type.clone(),
            })
        });
        let omitted = pieces.iter().filter(|(digest, _)| have.contains(*digest));
        let omitted = omitted.map(|(digest, piece)| Omitted {
            digest: digest.clone(),
            size: piece.size,
        });
        let contents = Contents::new(
            images.into_values().collect(),
            blobs.collect(),
            omitted.collect(),
            platforms(&found),
        )?;
        Ok(Self {
            contents,
            _holds: holds,
        })
    }
}

/// Takes an image and what it is made of into the tables; what is kept under tags made of its digests becomes images of their own.
async fn take(
    store: &Store,
    number: usize,
    (sought, gathered): &(Sought, Gathered),
    pieces: &mut BTreeMap<Digest, Piece>,
    images: &mut BTreeMap<ImageRef, Image>,
) -> Result<(), ExportError> {
    let mut left_out = HashSet::new();
    let mut put = |digest: &Digest, size: u64, media_type: &str| {
        let known = pieces.entry(digest.clone()).or_insert_with(|| Piece {
            size,
            media_type: (!media_type.is_empty()).then(|| media_type.to_owned()),
            of: number,
        });
        if known.size == size {
            Ok(())
        } else {
            Err(ExportError::Sizes(digest.clone()))
        }
    };
    for blob in &gathered.blobs {
        if blob.is_foreign && store.open_blob(&blob.digest).await?.is_none() {
            // It is had from elsewhere.
            left_out.insert(&blob.digest);
            continue;
        }
        put(&blob.digest, blob.size, &blob.media_type)?;
    }
    for one in &gathered.manifests {
        put(&one.digest, one.bytes.len() as u64, one.media_type.as_str())?;
    }
    let all = gathered.pieces().map(|(digest, _)| digest);
    let all = all.filter(|digest| !left_out.contains(digest));
    let mut named = vec![(
        sought.image.clone(),
        gathered.digest.clone(),
        all.cloned().collect::<Vec<Digest>>(),
    )];
    for (tag, digest) in &gathered.tags {
        let mut closure = gathered.closure(digest);
        closure.retain(|digest| !left_out.contains(digest));
        let image = sought.image.with(Reference::Tag(tag.clone()));
        named.push((image, digest.clone(), closure));
    }
    for (reference, digest, needs) in named {
        let Some(top) = gathered.manifest(&digest) else {
            continue;
        };
        let image = Image {
            reference: reference.clone(),
            digest: digest.clone(),
            media_type: top.media_type.clone(),
            size: top.bytes.len() as u64,
            needs,
        };
        match images.get_mut(&reference) {
            None => {
                images.insert(reference, image);
            }
            Some(there) if there.digest == digest => {
                let known: HashSet<Digest> = there.needs.iter().cloned().collect();
                let new = image.needs.into_iter();
                there.needs.extend(new.filter(|one| !known.contains(one)));
            }
            Some(there) => {
                return Err(ExportError::Twice(reference, there.digest.clone(), digest));
            }
        }
    }
    Ok(())
}

/// Fetches what is not in the store.
async fn fetch(
    search: &Search<'_>,
    store: &Store,
    found: &[(Sought, Gathered)],
    (pieces, carried): (&BTreeMap<Digest, Piece>, &[&Digest]),
) -> Result<(), ExportError> {
    // A manifest that is asked for often may be in memory alone; as a blob nobody has it.
    for (_, gathered) in found {
        for one in &gathered.manifests {
            if carried.binary_search(&&one.digest).is_ok() {
                store.put(&one.digest, one.bytes.clone()).await?;
            }
        }
    }
    let mut absent = Vec::new();
    for digest in carried {
        if store.open_blob(digest).await?.is_none()
            && let Some(piece) = pieces.get(*digest)
        {
            absent.push((*digest, piece));
        }
    }
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let plan = Event::Plan {
        images: count(found.len()),
        blobs: count(absent.len()),
        bytes: absent.iter().map(|(_, piece)| piece.size).sum(),
    };
    search.progress.tell(plan).await;
    let each = absent.into_iter().filter_map(|(digest, piece)| {
        let (_, gathered) = found.get(piece.of)?;
        Some(one(search, store, gathered, (digest, piece.size)))
    });
    let each: Vec<_> = each.collect();
    stream::iter(each)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn one(
    search: &Search<'_>,
    store: &Store,
    gathered: &Gathered,
    (digest, size): (&Digest, u64),
) -> Result<(), ExportError> {
    let (shown, mut done) = (digest.to_string(), 0);
    let came = |bytes| {
        done += bytes;
        search.progress.blob(&shown, done, size);
    };
    let place = (search.hops, &gathered.name);
    let brought = bring(&gathered.repository, place, digest, came).await;
    brought.map_err(|error| ExportError::Fetch(digest.clone(), error))?;
    match store.open_blob(digest).await? {
        Some(_) => Ok(()),
        None => Err(ExportError::Gone(digest.clone())),
    }
}

/// The platforms that were taken, where some were left; none where all were.
fn platforms(found: &[(Sought, Gathered)]) -> Vec<String> {
    let leaves = |gathered: &Gathered| {
        let there: HashSet<&Digest> = gathered.manifests.iter().map(|one| &one.digest).collect();
        let mut all = gathered.manifests.iter();
        all.any(|one| {
            let mut children = one.manifest.children().iter();
            children.any(|child| !there.contains(child.digest()))
        })
    };
    let partial = found.iter().filter(|(_, gathered)| leaves(gathered));
    let taken: BTreeSet<String> = partial
        .flat_map(|(_, gathered)| &gathered.platforms)
        .filter(|(platform, _)| !platform.os().is_empty() && platform.os() != "unknown")
        .map(|(platform, _)| plain(platform))
        .collect();
    taken.into_iter().collect()
}

/// A platform without the version of its system.
fn plain(platform: &Platform) -> String {
    let variant = platform.variant();
    let variant = variant.map_or_else(String::new, |variant| format!("/{variant}"));
    format!("{}/{}{variant}", platform.os(), platform.architecture())
}
