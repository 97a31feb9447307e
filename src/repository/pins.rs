//! Pinning images of remotes: all of an image is brought into the store and stays, and with `freeze` its tag means it whatever upstream says.
//!
//! A name means what a pull of it means; what a virtual repository is asked for is kept by the member that answers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::catalog::Snapshot;
use super::explain::{ExplainError, Meant, Question, meant};
use super::gather::{About, GatherError, Gathered, Gathering, Taken, bring};
use super::image::Repository;
use super::{Error, Key};
use crate::cache::{self, KeepError, KeptImage, KeptManifest, PullThrough};
use crate::clock::{self, Wall};
use crate::oci::referrers::Selection;
use crate::oci::{Digest, Name, Reference};
use crate::store::{Change, Store};
use crate::upstream::Hops;

/// Blobs of one image that are fetched at a time.
const AT_ONCE: usize = 4;

/// What is to be pinned.
#[derive(Debug)]
pub struct Pinning<'a> {
    /// Which image; as a pull would name it.
    pub image: Question,
    /// What is taken of an index.
    pub taken: Taken,
    /// Whether the tag means this from now on, whatever upstream says.
    pub freeze: bool,
    /// Who wants it, for the audit record.
    pub who: &'a str,
    /// Through which mirrors this came.
    pub hops: &'a Hops,
}

/// A pinned image or tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Key of the remote.
    pub repository: String,
    /// Name of the image there.
    pub image: String,
    /// The tag or digest.
    pub reference: String,
    /// What it is pinned to.
    pub digest: Digest,
    /// Bytes of all that is kept; none where the tag alone is frozen.
    pub bytes: Option<u64>,
    /// Pieces that are to be kept and not here.
    pub missing: u64,
    /// Since when.
    pub at: Wall,
    /// Whether the tag means this whatever upstream says.
    pub is_frozen: bool,
}

/// Why an image is not pinned, or not unpinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// It means nothing here.
    #[error(transparent)]
    Unclear(#[from] ExplainError),
    /// It cannot be had.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// It cannot be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// It was pushed here.
    #[error(
        "`{0}` is a local repository: what was pushed there is never evicted, so there is nothing to pin; `immutable_tags` keeps its tags from moving"
    )]
    Local(String),
    /// A digest cannot move.
    #[error("a digest means the same for ever; freeze a tag")]
    NoTag,
    /// It is not pinned.
    #[error("that image is not pinned")]
    NotPinned,
    /// The cache failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<cache::Error> for PinError {
    fn from(error: cache::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Pin {
    /// As `/admin/pins` tells it.
    pub fn to_json(&self) -> Value {
        json!({
            "repository": self.repository,
            "image": self.image,
            "reference": self.reference,
            "digest": self.digest.to_string(),
            "bytes": self.bytes,
            "missing": self.missing,
            "at": self.at.to_string(),
            "frozen": self.is_frozen,
        })
    }

    fn place(&self) -> (&str, &str, &str) {
        (&self.repository, &self.image, &self.reference)
    }
}

impl Pinning<'_> {
    /// Brings all of the image into the store, if there is room to keep it, and keeps it there.
    pub async fn run(&self, there: &Snapshot) -> Result<Pin, PinError> {
        let Meant {
            target,
            reference,
            repository,
            ..
        } = meant(there, &self.image)?;
        let name = &target.name;
        if self.freeze && matches!(reference, Reference::Digest(_)) {
            return Err(PinError::NoTag);
        }
        // Before anybody is asked about it.
        if let Repository::Local(local) = repository {
            return Err(PinError::Local(local.key().to_owned()));
        }
        let gathering = Gathering {
            hops: self.hops,
            from: (repository, name),
            taken: &self.taken,
            about: &About::Listed(Selection::None),
        };
        let gathered = gathering.run(&reference).await?;
        let remote = match &gathered.repository {
            Repository::Remote(remote) => remote,
            Repository::Local(local) => return Err(PinError::Local(local.key().to_owned())),
            // It answers by its members alone.
            Repository::Virtual(_) => return Err(cache::Error::NotFound.into()),
        };
        let pieces: Vec<(Digest, u64)> = gathered
            .pieces()
            .map(|(digest, size)| (digest.clone(), size))
            .collect();
        let _holds = remote.hold(pieces.iter().map(|(digest, _)| digest));
        remote.check_kept_room(&pieces).await?;
        let blobs = self.brought(&gathered).await?;
        let image = kept(&gathered, blobs);
        let digest = image.digest.clone();
        let event = |action| {
            let place = (name, &reference);
            event(action, self.who, remote.key(), place, Some(&digest))
        };
        // A tag that is frozen means something by itself.
        let moves_tag = match &reference {
            Reference::Tag(tag) => remote.pinned(name, tag).is_none(),
            Reference::Digest(_) => false,
        };
        let kept = remote.keep(name, &reference, &image, moves_tag, event("keep"));
        kept.await?;
        if let (true, Reference::Tag(tag)) = (self.freeze, &reference) {
            let pinned = remote.pin(self.hops, name, tag, &image.digest, event("pin"));
            pinned.await?;
        }
        let stays: HashSet<&Digest> = image.digests().collect();
        let sizes = pieces.iter().filter(|(digest, _)| stays.contains(digest));
        Ok(Pin {
            repository: remote.key().to_owned(),
            image: name.to_string(),
            reference: reference.to_string(),
            bytes: Some(sizes.map(|(_, size)| size).sum()),
            missing: 0,
            at: clock::now(),
            is_frozen: is_frozen(remote, name, &reference, &image.digest),
            digest: image.digest,
        })
    }

    /// Fetches the blobs that are not here. Answers those that can be had: foreign layers may be elsewhere alone.
    async fn brought(&self, gathered: &Gathered) -> Result<Vec<Digest>, PinError> {
        let from = (&gathered.repository, &gathered.name);
        // Owned, so that each is a future for itself.
        let blobs = gathered.blobs.iter().cloned();
        let each = blobs.map(|blob| async move {
            let (repository, name) = from;
            match bring(repository, (self.hops, name), &blob.digest, |_bytes| {}).await {
                Ok(_came) => Ok(Some(blob.digest)),
                Err(error) if blob.is_foreign && error.is_absence() => Ok(None),
                Err(error) => Err(GatherError::Piece(blob.digest, error)),
            }
        });
        let brought = futures_util::stream::iter(each).buffer_unordered(AT_ONCE);
        let brought: Vec<Option<Digest>> = brought.try_collect().await?;
        Ok(brought.into_iter().flatten().collect())
    }
}

fn kept(gathered: &Gathered, blobs: Vec<Digest>) -> KeptImage {
    let manifests = gathered.manifests.iter().map(|one| KeptManifest {
        digest: one.digest.clone(),
        media_type: one.media_type.clone(),
        bytes: one.bytes.clone(),
    });
    KeptImage {
        digest: gathered.digest.clone(),
        manifests: manifests.collect(),
        blobs,
    }
}

/// What is kept of an image, and by which references: itself, and what stands under tags made of a digest of it. Without the blobs that are
/// `elsewhere`.
pub fn stays(
    gathered: &Gathered,
    reference: &Reference,
    elsewhere: &BTreeSet<Digest>,
) -> Vec<(Reference, KeptImage)> {
    let blobs = gathered.blobs.iter().map(|blob| &blob.digest);
    let blobs: Vec<Digest> = blobs
        .filter(|digest| !elsewhere.contains(*digest))
        .cloned()
        .collect();
    let all = kept(gathered, blobs);
    let about = gathered.tags.iter().map(|(tag, digest)| {
        let closure: HashSet<Digest> = gathered.closure(digest).into_iter().collect();
        let mut image = all.clone();
        image.digest = digest.clone();
        image.manifests.retain(|one| closure.contains(&one.digest));
        image.blobs.retain(|one| closure.contains(one));
        (Reference::Tag(tag.clone()), image)
    });
    let about: Vec<_> = about.collect();
    [(reference.clone(), all)]
        .into_iter()
        .chain(about)
        .collect()
}

/// Keeps an image, all of which is here, on behalf of `who`. Its tag means it from now on, unless it is frozen, until upstream says otherwise.
pub async fn keep(
    remote: &PullThrough,
    (name, reference): (&Name, &Reference),
    image: &KeptImage,
    who: &str,
) -> Result<(), PinError> {
    let place = (name, reference);
    let event = event("keep", who, remote.key(), place, Some(&image.digest));
    let moves_tag = match reference {
        Reference::Tag(tag) => remote.pinned(name, tag).is_none(),
        Reference::Digest(_) => false,
    };
    Ok(remote
        .keep(name, reference, image, moves_tag, event)
        .await?)
}

fn event(
    action: &str,
    who: &str,
    key: &str,
    (name, reference): (&Name, &Reference),
    digest: Option<&Digest>,
) -> Value {
    json!({
        "action": action,
        "who": who,
        "repository": key,
        "image": name.as_str(),
        "reference": reference.to_string(),
        "digest": digest.map(ToString::to_string),
    })
}

fn is_frozen(remote: &PullThrough, name: &Name, reference: &Reference, digest: &Digest) -> bool {
    match reference {
        Reference::Tag(tag) => remote.pinned(name, tag).as_ref() == Some(digest),
        Reference::Digest(_) => false,
    }
}

/// Lets an image be evicted, and its tag mean what upstream says, wherever a pull of it may come from.
pub async fn unpin(
    there: &Snapshot,
    store: &Store,
    image: &Question,
    who: &str,
) -> Result<(), PinError> {
    if unpin_left(there, store, &image.image, who).await? {
        return Ok(());
    }
    let Meant {
        target,
        reference,
        repository,
        ..
    } = meant(there, image)?;
    let name = &target.name;
    let members: Vec<&Key> = match repository {
        Repository::Local(local) => return Err(PinError::Local(local.key().to_owned())),
        Repository::Remote(_) => vec![&target.key],
        Repository::Virtual(several) => several.members().collect(),
    };
    let mut done = false;
    for key in members {
        let Some(Repository::Remote(remote)) = there.get(key) else {
            continue;
        };
        let event = |action| event(action, who, remote.key(), (name, &reference), None);
        done |= remote.unkeep(name, &reference, event("unkeep")).await?;
        if let Reference::Tag(tag) = &reference {
            done |= remote.unpin(name, tag, event("unpin")).await?;
        }
    }
    if done {
        Ok(())
    } else {
        Err(PinError::NotPinned)
    }
}

/// Unpins an image of a remote that is not configured any more: no name means it, only what [`pins`] calls it.
async fn unpin_left(
    there: &Snapshot,
    store: &Store,
    image: &str,
    who: &str,
) -> Result<bool, PinError> {
    let Some((key, _)) = image.split_once('/') else {
        return Ok(false);
    };
    if there.definitions().by_key(key).is_some() {
        return Ok(false);
    }
    let kept = store.index().kept(Some(key)).await;
    for row in kept.map_err(cache::Error::from)? {
        let named = format!("{}/{}", row.repo, row.name);
        let is_it = image
            .strip_prefix(&named)
            .and_then(|rest| rest.strip_prefix([':', '@']));
        let (true, Ok(name), Ok(reference)) = (
            is_it == Some(&row.reference),
            Name::parse(&row.name),
            Reference::parse(&row.reference),
        ) else {
            continue;
        };
        let (now, event) = (
            clock::now(),
            event("unkeep", who, key, (&name, &reference), Some(&row.digest)),
        );
        let changes = vec![
            (Change::unkeep(key, &name, &reference, now), None),
            (Change::event(key, &name, event, now), None),
        ];
        let committed = store.commit_changes(changes).await;
        committed.map_err(cache::Error::from)?;
        return Ok(true);
    }
    Ok(false)
}

/// Everything that is pinned, in order: of remotes that are not configured any more too.
pub async fn pins(there: &Snapshot, store: &Store) -> Result<Vec<Pin>, PinError> {
    let mut frozen = BTreeMap::new();
    for (_, repository) in there.iter() {
        if let Repository::Remote(remote) = repository {
            for (name, tag, digest, at) in remote.frozen().await? {
                let place = (remote.key().to_owned(), name.to_string(), tag.to_string());
                frozen.insert(place, (digest, at));
            }
        }
    }
    let mut pins = Vec::new();
    let kept = store.index().kept(None).await;
    for row in kept.map_err(cache::Error::from)? {
        let place = (row.repo.clone(), row.name.clone(), row.reference.clone());
        let is_frozen = frozen
            .get(&place)
            .is_some_and(|(digest, _)| *digest == row.digest);
        if is_frozen {
            frozen.remove(&place);
        }
        pins.push(Pin {
            repository: row.repo,
            image: row.name,
            reference: row.reference,
            digest: row.digest,
            bytes: Some(row.bytes),
            missing: row.missing,
            at: row.at,
            is_frozen,
        });
    }
    // A tag alone: nothing of it is kept, or something else.
    let alone = frozen.into_iter();
    pins.extend(
        alone.map(|((repository, image, reference), (digest, at))| Pin {
            repository,
            image,
            reference,
            digest,
            bytes: None,
            missing: 0,
            at,
            is_frozen: true,
        }),
    );
    pins.sort_by(|one, other| one.place().cmp(&other.place()));
    Ok(pins)
}
