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

use self::closure::Closure;
use self::target::{Meant, Refused, Target, link, target};
use super::archive::contents::{Blob, Image, Omitted};
use super::archive::{Contents, ContentsError, ImageRef};
use super::progress::{Event, Progress};
use super::waiting::{self, Waiting};
use crate::cache::KeepError;
use crate::oci::{Digest, MediaType};
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
    /// From which remembered import it is.
    remembered: Option<usize>,
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
    order: Order,
    waiting: Vec<Waiting>,
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
        let remembered = waiting::load(store.root())
            .await
            .map_err(ImportError::Waiting)?;
        let (mut images, mut homeless) = (Vec::new(), 0);
        let mut seen = HashSet::new();
        let new = bundles
            .iter()
            .map(|contents| (contents, order.to.as_deref(), order.keep_tags, None));
        let old = remembered.iter().enumerate().map(|(number, one)| {
            (
                &one.contents,
                one.to.as_deref(),
                one.keep_tags,
                Some(number),
            )
        });
        for (contents, to, keep_tags, remembered) in new.chain(old) {
            for image in contents.images() {
                let reference = image.reference();
                match target(there, to, reference) {
                    // The same twice is imported once.
                    Ok(target)
                        if seen.insert((
                            target.key().to_owned(),
                            reference.clone(),
                            image.digest().clone(),
                        )) =>
                    {
                        let needs = image.needs();
                        images.push(One {
                            reference: reference.clone(),
                            digest: image.digest().clone(),
                            needs: needs.map(|(digest, size)| (digest.clone(), size)).collect(),
                            target,
                            keep_tags,
                            remembered,
                        });
                    }
                    Ok(_again) => {}
                    // A repository that has gone since does not stand in the way of others.
                    Err(_) if remembered.is_some() => {}
                    Err(why) => {
                        homeless += 1;
                        progress.tell(trouble(reference, &why)).await;
                    }
                }
            }
        }
        if homeless > 0 {
            return Err(ImportError::Nowhere(homeless));
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
            order,
            waiting: remembered,
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

    /// Whether all that comes has room: in local repositories on the disk, in caches among what may be kept.
    async fn check_room(&self) -> Result<(), ImportError> {
        let mut pushed = 0_u64;
        for (digest, (size, is_local)) in &self.wanted {
            if *is_local && self.carried.contains(digest) {
                pushed = pushed.saturating_add(*size);
            }
        }
        let free = self.store.room_to_push().await?;
        if pushed > free {
            return Err(ImportError::NoRoom(format!(
                "{pushed} bytes would come into local repositories, and {free} are free above storage.min_free; nothing was imported"
            )));
        }
        let mut kept: HashMap<&Digest, u64> = HashMap::new();
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
        let images: Vec<Value> = self
            .images
            .iter()
            .map(|one| self.report(one, None))
            .collect();
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
        let (mut images, mut done) = (Vec::new(), HashSet::new());
        let mut waits = Vec::new();
        for (number, one) in self.images.iter().enumerate() {
            if !self.missing(one).is_empty() {
                waits.push(number);
                images.push(self.report(one, Some(Ok("waiting"))));
                continue;
            }
            let committed = self.one(one, who).await;
            match committed {
                Ok(outcome) => {
                    done.insert(number);
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
        self.remember(&waits).await?;
        Ok(json!({ "images": images }))
    }

    /// Writes down what waits of these bundles, and forgets what came to its end of earlier ones.
    async fn remember(&self, waits: &[usize]) -> Result<(), ImportError> {
        let still = |number: Option<usize>| {
            let mut images = waits.iter().filter_map(|place| self.images.get(*place));
            images.any(|one| one.remembered == number)
        };
        for (number, earlier) in self.waiting.iter().enumerate() {
            if !still(Some(number)) {
                waiting::forget(earlier)
                    .await
                    .map_err(ImportError::Waiting)?;
            }
        }
        if !still(None) {
            return Ok(());
        }
        let ours = waits.iter().filter_map(|place| self.images.get(*place));
        let ours: Vec<&One> = ours.filter(|one| one.remembered.is_none()).collect();
        let sizes: BTreeMap<&Digest, u64> = ours
            .iter()
            .flat_map(|one| one.needs.iter().map(|(digest, size)| (digest, *size)))
            .collect();
        // Two bundles may carry the same name with different meanings; only the last one waits.
        let mut by_name: BTreeMap<&ImageRef, &One> = BTreeMap::new();
        for one in ours {
            by_name.insert(&one.reference, one);
        }
        let media_type = MediaType::parse(crate::oci::media_type::OCI_MANIFEST);
        let images = by_name.values().filter_map(|one| {
            Some(Image {
                reference: one.reference.clone(),
                digest: one.digest.clone(),
                media_type: media_type.clone()?,
                size: sizes.get(&one.digest).copied()?,
                needs: one.needs.iter().map(|(digest, _)| digest.clone()).collect(),
            })
        });
        let images: Vec<Image> = images.collect();
        let needed: HashSet<&Digest> = images.iter().flat_map(|image| &image.needs).collect();
        let omitted = sizes.iter().filter(|(digest, _)| needed.contains(*digest));
        let omitted = omitted.map(|(digest, size)| Omitted {
            digest: (*digest).clone(),
            size: *size,
        });
        let omitted = omitted.collect();
        let contents = Contents::new(images, Vec::<Blob>::new(), omitted, Vec::new())?;
        let written = waiting::remember(
            self.store.root(),
            &contents,
            self.order.to.as_deref(),
            self.order.keep_tags,
        );
        written.await.map_err(ImportError::Waiting)
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
        };
        link(&self.store, &one.target, &meant, closure, event).await
    }
}

fn trouble(image: &ImageRef, why: &Refused) -> Event {
    Event::Trouble {
        image: image.to_string(),
        source: String::new(),
        error: why.to_string(),
    }
}
