//! Tags of a remote that mean what they were told to mean, whatever upstream says of them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::error::Error;
use super::manifests::Want;
use super::pull_through::PullThrough;
use crate::clock::{self, Wall};
use crate::oci::{Digest, Name, Tag};
use crate::store::Change;
use crate::upstream::Hops;

/// The pins of one remote: few, and asked for by every pull of a tag, so they are kept in memory.
#[derive(Debug, Default)]
pub(super) struct Pins(RwLock<HashMap<String, (Digest, Wall)>>);

fn key(name: &Name, tag: &Tag) -> String {
    format!("{name}:{tag}")
}

impl Pins {
    /// What a tag is pinned to, and since when.
    pub(super) fn get(&self, name: &Name, tag: &Tag) -> Option<(Digest, Wall)> {
        let pins = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if pins.is_empty() {
            return None;
        }
        pins.get(&key(name, tag)).cloned()
    }

    fn set(&self, key: String, pin: Option<(Digest, Wall)>) {
        let mut pins = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match pin {
            Some(pin) => pins.insert(key, pin),
            None => pins.remove(&key),
        };
    }
}

impl PullThrough {
    /// Takes up the pins that stand in the index; once, before the first request.
    pub async fn load_pins(&self) -> Result<(), Error> {
        let index = self.inner.shared.store.index();
        for (name, tag, digest, at) in index.pins(&self.inner.key).await? {
            self.inner.pins.set(key(&name, &tag), Some((digest, at)));
        }
        Ok(())
    }

    /// What a tag is pinned to.
    pub fn pinned(&self, name: &Name, tag: &Tag) -> Option<Digest> {
        self.inner.pins.get(name, tag).map(|(digest, _)| digest)
    }

    /// Pins a tag to a manifest, which is fetched if it is not here.
    pub async fn pin(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        digest: &Digest,
        event: serde_json::Value,
    ) -> Result<(), Error> {
        // Whoever may pin decides; the rules are for what nobody looked at.
        self.open_manifest(hops, name, digest, Want::Body).await?;
        self.admit_pinned(name, digest).await;
        self.write_pin(name, tag, Some(digest), event).await
    }

    /// Lets a tag mean what upstream says again. False where it was not pinned.
    pub async fn unpin(
        &self,
        name: &Name,
        tag: &Tag,
        event: serde_json::Value,
    ) -> Result<bool, Error> {
        if self.pinned(name, tag).is_none() {
            return Ok(false);
        }
        self.write_pin(name, tag, None, event).await.map(|()| true)
    }

    async fn write_pin(
        &self,
        name: &Name,
        tag: &Tag,
        digest: Option<&Digest>,
        event: serde_json::Value,
    ) -> Result<(), Error> {
        let (repo, now) = (&self.inner.key, clock::now());
        let changes = vec![
            (Change::pin_tag(repo, name, tag, digest, now), None),
            (Change::event(repo, name, event, now), None),
        ];
        self.inner.shared.store.commit_changes(changes).await?;
        let pin = digest.map(|digest| (digest.clone(), now));
        self.inner.pins.set(key(name, tag), pin);
        Ok(())
    }
}
