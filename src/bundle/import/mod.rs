//! What bundles bring: who gets each image, what is missing for it, and the record that lets it be there.
//!
//! Blobs come into the store first, each verified, and nobody can read them: a link is what makes content readable. Then each image is looked
//! at as a whole and linked in one record, or not at all. What an image waits for is told with its sizes, and remembered, so that a later bundle
//! that brings it completes it: bundles have no order.

mod closure;
mod target;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use self::closure::Closure;
use self::target::{Meant, Refused, Target, link, target};
use super::archive::contents::Carried;
use super::archive::{Contents, ContentsError, ImageRef};
use super::progress::{Event, Progress};
use super::waiting::{self, Waiting};
use crate::cache::KeepError;
use crate::clock;
use crate::oci::Digest;
use crate::repository::Snapshot;
use crate::store::{Hold, Store, StoreError};

/// What is to be imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// The tables of contents of the bundles.
    pub contents: Vec<String>,
    /// Into which repository, whatever the images are called.
    pub to: Option<String>,
    /// Whether tags that are there already stay what they are.
    pub keep_tags: bool,
}

/// Why nothing is imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A table of contents is none.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// Some images belong nowhere; each was told.
    #[error("{0} of the images belong nowhere here, so nothing was imported")]
    Nowhere(usize),
    /// There is no room.
    #[error("{0}")]
    NoRoom(String),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// A cache failed.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// What waits cannot be read or written.
    #[error("what waits for other bundles cannot be written down: {0}")]
    Waiting(std::io::Error),
}

/// One image of the bundles.
#[derive(Debug)]
struct One {
    reference: ImageRef,
    digest: Digest,
    needs: Vec<(Digest, u64)>,
    target: Target,
    keep_tags: bool,
    /// Whether it may move a tag: of a local repository that nobody named it may not.
    moves: bool,
    /// What was written down of it, where an earlier import brought some of it.
    remembered: Option<Waiting>,
}

impl One {
    fn waiting(&self) -> Waiting {
        Waiting {
            repository: self.target.key().to_owned(),
            image: self.reference.clone(),
            digest: self.digest.clone(),
            needs: self.needs.clone(),
            keep_tags: self.keep_tags,
            moves: self.moves,
            at: self
                .remembered
                .as_ref()
                .map_or_else(clock::now, |one| one.at),
        }
    }
}

/// An import: its images, with everything of them that is here or comes held.
#[derive(Debug)]
pub struct Import {
    store: Store,
    images: Vec<One>,
    /// Everything that any of the images needs and the store does not have, and whether a local repository is to get it.
    wanted: BTreeMap<Digest, (u64, bool)>,
    /// What the bundles carry of it.
    carried: HashSet<Digest>,
    /// What nobody could pull, as it is told.
    hidden: Vec<Value>,
    /// Keeps all of it, here or on its way.
    holds: Vec<Hold>,
}

impl Import {
    /// Looks at what the bundles hold, and whether there is a place and room for it.
    pub async fn prepare(
        there: &Snapshot,
        store: &Store,
        order: Order,
        progress: &Progress,
    ) -> Result<Self, ImportError> {
        let parse = |text: &String| Contents::parse(text.as_bytes());
        let bundles = order
            .contents
            .iter()
            .map(parse)
            .collect::<Result<Vec<_>, _>>()?;
        let (mut images, mut homeless, mut hidden) = (Vec::new(), 0, Vec::new());
        let mut seen = HashSet::new();
        for contents in &bundles {
            for image in contents.images() {
                let reference = image.reference();
                let target = match target(there, order.to.as_deref(), reference).await {
                    Ok(target) => target,
                    // It stands in nobody's way, but it is told.
                    Err(why @ Refused::Hidden { .. }) => {
                        progress.tell(trouble(reference, &why)).await;
                        hidden.push(failed(image, &why));
                        continue;
                    }
                    Err(why) => {
                        homeless += 1;
                        progress.tell(trouble(reference, &why)).await;
                        continue;
                    }
                };
                // The same twice is imported once.
                let place = (target.key().to_owned(), reference.clone());
                if seen.insert((place, image.digest().clone())) {
                    let needs = image.needs();
                    images.push(One {
                        reference: reference.clone(),
                        digest: image.digest().clone(),
                        needs: needs.map(|(digest, size)| (digest.clone(), size)).collect(),
                        moves: order.to.is_some() || matches!(target, Target::Remote(_)),
                        target,
                        keep_tags: order.keep_tags,
                        remembered: None,
                    });
                }
            }
        }
        if homeless > 0 {
            return Err(ImportError::Nowhere(homeless));
        }
        // What waited before comes last: it counts from when it is whole.
        let remembered = waiting::load(store.root()).await;
        let remembered = remembered.map_err(ImportError::Waiting)?;
        for earlier in remembered {
            match target(there, Some(&earlier.repository), &earlier.image).await {
                Ok(target) => {
                    let place = (target.key().to_owned(), earlier.image.clone());
                    if seen.insert((place, earlier.digest.clone())) {
                        images.push(One {
                            reference: earlier.image.clone(),
                            digest: earlier.digest.clone(),
                            needs: earlier.needs.clone(),
                            target,
                            keep_tags: earlier.keep_tags,
                            moves: earlier.moves,
                            remembered: Some(earlier),
                        });
                    }
                }
                // It may come again, and nobody asked for this image now.
                Err(error) => {
                    warn!(image = %earlier.image, %error, "an image that waits for a bundle has no place now");
                }
            }
        }
        let carried: HashSet<Digest> = bundles
            .iter()
            .flat_map(Contents::blobs)
            .map(|blob| blob.digest.clone())
            .collect();
        let mut import = Self {
            store: store.clone(),
            images,
            wanted: BTreeMap::new(),
            carried,
            hidden,
            holds: Vec::new(),
        };
        import.look().await?;
        import.check_room().await?;
        Ok(import)
    }

    /// Holds everything, then sees what of it is here.
    async fn look(&mut self) -> Result<(), ImportError> {
        let mut all: BTreeMap<&Digest, (u64, bool)> = BTreeMap::new();
        for one in &self.images {
            let is_local = matches!(one.target, Target::Local(_));
            for (digest, size) in &one.needs {
                let entry = all.entry(digest).or_insert((*size, false));
                entry.1 |= is_local;
            }
        }
        let holds = all.keys().map(|digest| self.store.hold(digest)).collect();
        let mut wanted = BTreeMap::new();
        for (digest, what) in all {
            if self.store.open_blob(digest).await?.is_none() {
                wanted.insert(digest.clone(), what);
            }
        }
        (self.holds, self.wanted) = (holds, wanted);
        Ok(())
    }

    /// Whether all that comes has room: in local repositories on the disk, in caches among what may be kept. What will wait needs it too.
    async fn check_room(&self) -> Result<(), ImportError> {
        let (mut pushed, mut cached) = (0_u64, 0_u64);
        let mut kept: HashMap<&Digest, u64> = HashMap::new();
        for (digest, (size, is_local)) in &self.wanted {
            if self.carried.contains(digest) && *is_local {
                pushed = pushed.saturating_add(*size);
            } else if self.carried.contains(digest) {
                cached = cached.saturating_add(*size);
                kept.insert(digest, *size);
            }
        }
        let free = self.store.room_to_push().await?;
        if pushed > 0 && pushed.saturating_add(cached) > free {
            return Err(ImportError::NoRoom(format!(
                "{pushed} bytes would come into local repositories and {cached} into caches, and {free} are free above storage.min_free; nothing was imported"
            )));
        }
        for one in self.complete() {
            if matches!(one.target, Target::Remote(_)) {
                kept.extend(one.needs.iter().map(|(digest, size)| (digest, *size)));
            }
        }
        let kept: Vec<(Digest, u64)> = kept
            .into_iter()
            .map(|(digest, size)| (digest.clone(), size))
            .collect();
        if kept.is_empty() {
            return Ok(());
        }
        Ok(self.store.check_kept_room(&kept).await?)
    }

    /// The images that wait for nothing, once the bundles are in the store.
    fn complete(&self) -> impl Iterator<Item = &One> {
        self.images
            .iter()
            .filter(|one| self.missing(one).is_empty())
    }

    fn missing(&self, one: &One) -> Vec<(Digest, u64)> {
        let needs = one.needs.iter();
        needs
            .filter(|(digest, _)| {
                self.wanted.contains_key(digest) && !self.carried.contains(digest)
            })
            .cloned()
            .collect()
    }

    /// What there is to do: which blobs are to be sent, and for whom.
    pub fn to_json(&self) -> Value {
        let wanted: Vec<Value> = self
            .wanted
            .iter()
            .filter(|(digest, _)| self.carried.contains(*digest))
            .map(|(digest, (size, is_local))| json!({ "digest": digest.to_string(), "size": size, "local": is_local }))
            .collect();
        let images = self.images.iter().map(|one| self.report(one, None));
        let images: Vec<Value> = images.chain(self.hidden.iter().cloned()).collect();
        json!({ "wanted": wanted, "images": images })
    }

    fn report(&self, one: &One, outcome: Option<Result<&str, String>>) -> Value {
        let waits: Vec<Value> = self
            .missing(one)
            .iter()
            .map(|(digest, size)| json!({ "digest": digest.to_string(), "size": size }))
            .collect();
        let mut told = json!({
            "image": one.reference.to_string(),
            "digest": one.digest.to_string(),
            "repository": one.target.key(),
            "name": one.reference.name().to_string(),
            "bytes": one.needs.iter().map(|(_, size)| size).sum::<u64>(),
            "earlier": one.remembered.is_some(),
            "waitsFor": waits,
        });
        if let (Some(outcome), Some(told)) = (outcome, told.as_object_mut()) {
            let (outcome, error) = match outcome {
                Ok(outcome) => (outcome, None),
                Err(error) => ("failed", Some(error)),
            };
            told.insert("outcome".to_owned(), outcome.into());
            if let Some(error) = error {
                told.insert("error".to_owned(), error.into());
            }
        }
        told
    }

    /// Links every image that is complete, each in one record, and remembers the others.
    pub async fn commit(mut self, who: &str, progress: &Progress) -> Result<Value, ImportError> {
        // Only what really came counts.
        self.carried.clear();
        self.look().await?;
        let (mut images, mut waits, mut no_more) = (Vec::new(), Vec::new(), Vec::new());
        for one in &self.images {
            if !self.missing(one).is_empty() {
                waits.push(one.waiting());
                images.push(self.report(one, Some(Ok("waiting"))));
                continue;
            }
            match self.one(one, who).await {
                Ok(outcome) => {
                    no_more.push(one.waiting());
                    progress
                        .tell(Event::Image {
                            image: one.reference.to_string(),
                            digest: one.digest.to_string(),
                            bytes: one.needs.iter().map(|(_, size)| size).sum(),
                        })
                        .await;
                    images.push(self.report(one, Some(Ok(outcome))));
                }
                Err(why) => {
                    progress.tell(trouble(&one.reference, &why)).await;
                    images.push(self.report(one, Some(Err(why.to_string()))));
                }
            }
        }
        let updated = waiting::update(self.store.root(), waits, no_more).await;
        updated.map_err(ImportError::Waiting)?;
        images.append(&mut self.hidden);
        Ok(json!({ "images": images }))
    }

    async fn one(&self, one: &One, who: &str) -> Result<&'static str, Refused> {
        let closure = Closure::of(&self.store, &one.digest, &one.needs).await?;
        let event = json!({
            "action": "import",
            "who": who,
            "to": { "repository": one.target.key(), "image": one.reference.name().to_string() },
            "reference": one.reference.reference().to_string(),
            "digest": one.digest.to_string(),
        });
        let meant = Meant {
            image: &one.reference,
            digest: &one.digest,
            keep_tags: one.keep_tags,
            moves: one.moves,
            since: one.remembered.as_ref().map(|one| one.at),
        };
        link(&one.target, &meant, closure, event).await
    }
}

/// What is told of an image that is not taken.
fn failed(image: Carried<'_>, why: &Refused) -> Value {
    json!({
        "image": image.reference().to_string(),
        "digest": image.digest().to_string(),
        "repository": "-",
        "name": image.reference().name().to_string(),
        "bytes": image.needs().map(|(_, size)| size).sum::<u64>(),
        "earlier": false,
        "waitsFor": [],
        "outcome": "failed",
        "error": why.to_string(),
    })
}

fn trouble(image: &ImageRef, why: &Refused) -> Event {
    Event::Trouble {
        image: image.to_string(),
        source: String::new(),
        error: why.to_string(),
    }
}
