//! Writing down what was noted.

use std::collections::BTreeMap;

use tracing::warn;

use super::notes::Notes;
use super::{Inner, MISSING_MAX, PULLS_MAX};
use crate::clock;
use crate::oci::manifest::{MANIFEST_MAX, Manifest};
use crate::oci::{Descriptor, Digest};
use crate::store::IndexError;
use crate::store::index::{Kept, PullRow};

impl Inner {
    /// Writes; what fails is tried again.
    pub(super) async fn write_or_warn(&self, tidies: bool) {
        if let Err(error) = self.write(tidies).await {
            warn!(%error, "what was pulled and what was missing could not be written down; it is tried again");
        }
    }

    /// Writes down what was noted so far; `tidies`: lets go of what is too old in any case.
    pub(super) async fn write(&self, tidies: bool) -> Result<(), IndexError> {
        let _order = self.writing.lock().await;
        let mut notes = std::mem::take(&mut self.memory().notes);
        if notes.is_empty() && !tidies {
            return Ok(());
        }
        let lost = std::mem::take(&mut notes.lost);
        if lost > 0 {
            warn!(
                lost,
                "more was pulled or missing in a few seconds than is written down; the rest is not in the record"
            );
        }
        let written = self.write_notes(&notes, tidies).await;
        if written.is_err() {
            self.memory().notes.take_back(notes);
        }
        written
    }

    async fn write_notes(&self, notes: &Notes, tidies: bool) -> Result<(), IndexError> {
        let index = self.store.index();
        let since = clock::now().before(self.config.keep);
        let has_missing = !notes.missing.is_empty() || !notes.served.is_empty();
        if has_missing || tidies {
            let most = MISSING_MAX;
            let missed = notes.missing.values().cloned().collect();
            let served = notes.served.iter().cloned().collect();
            let gone = index.change_missing(served, missed, Kept { since, most });
            if gone.await? > 0 || !notes.served.is_empty() {
                self.learn().await?;
            }
        }
        if !notes.pulls.is_empty() || tidies {
            let rows = self.rows(notes).await;
            let most = PULLS_MAX;
            index.add_pulls(rows, Kept { since, most }).await?;
        }
        Ok(())
    }

    /// Pulls as rows: of those by digest, with the index that they were chosen from.
    async fn rows(&self, notes: &Notes) -> Vec<PullRow> {
        let mut indexes: BTreeMap<&Digest, Option<Manifest>> = BTreeMap::new();
        let mut rows = Vec::new();
        for (key, pulls) in &notes.pulls {
            let mut chosen: Option<(Digest, Option<String>)> = None;
            for index in &key.indexes {
                if !indexes.contains_key(index) {
                    indexes.insert(index, self.index(index).await);
                }
                let manifest = indexes.get(index).and_then(Option::as_ref);
                let child = manifest.and_then(|manifest| child(manifest, &key.digest));
                if let Some(child) = child {
                    let platform = child.platform().map(ToString::to_string);
                    chosen = Some((index.clone(), platform));
                    break;
                }
            }
            let (parent, platform) = chosen.unzip();
            rows.push(PullRow {
                repo: key.repo.clone(),
                name: key.name.clone(),
                reference: key.reference.clone(),
                digest: key.digest.clone(),
                media_type: pulls.media_type.clone(),
                parent,
                platform: platform.flatten(),
                who: key.who.clone(),
                first: pulls.first,
                last: pulls.last,
                count: pulls.count,
            });
        }
        rows
    }

    /// An index that was served a moment ago. What cannot be read costs the platforms, and nothing else.
    async fn index(&self, digest: &Digest) -> Option<Manifest> {
        let blob = self.store.open_blob(digest).await.ok()??;
        let bytes = blob.read_whole(MANIFEST_MAX).await.ok()?;
        Manifest::parse(&bytes, None).ok()
    }
}

fn child<'a>(index: &'a Manifest, digest: &Digest) -> Option<&'a Descriptor> {
    let mut children = index.children().iter();
    children.find(|child| child.digest() == digest)
}
