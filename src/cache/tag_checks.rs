//! Asking upstream what a tag means, once for all who ask at the same time, and writing the answer down.

use std::time::Duration;

use tracing::info;

use super::admit::Asked;
use super::config::DeletedUpstream;
use super::error::Error;
use super::learn::{learn, recall};
use super::manifests::{OpenManifest, Stored, Told, Want};
use super::pull_through::{Inner, PullThrough};
use super::status::CacheStatus;
use super::tags::age_key;
use crate::clock;
use crate::oci::{MediaType, Name, Reference, Tag};
use crate::store::index::TagRow;
use crate::upstream::Hops;

/// What was known of a tag before it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Never,
    /// What it meant then.
    Before,
}

/// What asking upstream about a tag came to.
#[derive(Debug, Clone)]
pub(super) enum Checked {
    /// It means this digest; the manifest itself has been fetched.
    Fetched(Stored),
    /// It means this digest, says its head.
    Means(Told),
    /// It does not exist.
    Gone,
    /// Nobody could say.
    Failed(Error),
}

impl PullThrough {
    /// Asks upstream what a tag means and writes the answer down. Once for all who ask at the same time.
    pub(super) async fn check(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        want: Want,
        seen: Seen,
    ) -> Result<(Checked, bool), Error> {
        let flight = format!("{want:?} {}", age_key(name, tag));
        let (this, hops, name, tag) = (self.clone(), hops.clone(), name.clone(), tag.clone());
        let landed = self
            .inner
            .tag_checks
            .run(flight, || async move {
                // Who looked while another's flight was landing, and came too late to join it, finds here what that one brought.
                match this.learnt_meanwhile(&name, &tag, seen).await {
                    Some(told) => Checked::Means(told),
                    None => this.ask(&hops, &name, &tag, want).await,
                }
            })
            .await
            .ok_or(Error::GivenUp)?;
        Ok((landed.value, landed.joined))
    }

    async fn learnt_meanwhile(&self, name: &Name, tag: &Tag, seen: Seen) -> Option<Told> {
        let Inner { key, shared, .. } = &*self.inner;
        if seen == Seen::Before {
            return None;
        }
        let row = shared.store.index().tag(key, name, tag).await.ok()??;
        let media_type = MediaType::parse(&row.media_type)?;
        // What upstream said, and what type and size are of; it may be served later.
        row.gone.is_none().then_some(Told {
            digest: row.observed,
            media_type,
            size: row.size,
        })
    }

    async fn ask(&self, hops: &Hops, name: &Name, tag: &Tag, want: Want) -> Checked {
        let reference = Reference::Tag(tag.clone());
        if want == Want::Head {
            match self
                .inner
                .upstream
                .head_manifest(hops, name, &reference)
                .await
            {
                Ok(head) => {
                    if let (Some(digest), Some(media_type), Some(size)) = (
                        head.digest,
                        head.media_type
                            .filter(|media_type| media_type.kind().is_some()),
                        head.size,
                    ) {
                        let told = Told {
                            digest,
                            media_type,
                            size,
                        };
                        return self
                            .noted(hops, name, tag, &told, false)
                            .await
                            .map_or_else(Checked::Failed, |()| Checked::Means(told));
                    }
                    // A HEAD that does not tell enough: the body does.
                }
                // Some registries answer HEAD wrongly; only a GET confirms that a tag is gone (and a 404 costs no pull).
                Err(error)
                    if matches!(
                        error.kind(),
                        crate::upstream::Kind::NotFound | crate::upstream::Kind::BadAnswer
                    ) => {}
                Err(error) => return Checked::Failed(Error::from_upstream(error)),
            }
        }
        match self.fetch_manifest(hops, name, &reference).await {
            Ok((manifest, _)) => {
                let told = OpenManifest::stored(manifest.clone(), CacheStatus::hit()).told;
                self.noted(hops, name, tag, &told, true)
                    .await
                    .map_or_else(Checked::Failed, |()| Checked::Fetched(manifest))
            }
            Err(Error::NotFound) => self.gone(name, tag).await,
            Err(error) => Checked::Failed(error),
        }
    }

    /// Writes down what upstream says a tag means. An error where the rules do not admit that; then the tag is served as before.
    pub(super) async fn noted(
        &self,
        hops: &Hops,
        name: &Name,
        tag: &Tag,
        told: &Told,
        fetched: bool,
    ) -> Result<(), Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            ages,
            ..
        } = &*self.inner;
        if self.is_retired() {
            return Err(Error::GivenUp);
        }
        let index = shared.store.index();
        let now = clock::now();
        let before = recall("tag", config.offline, index.tag(key, name, tag)).await?;
        if let Some(row) = before.as_ref().filter(|row| row.observed != told.digest) {
            info!(repository = key, %name, %tag, from = %row.observed, to = %told.digest, "a tag moved upstream");
        }
        let asked = Asked::by(tag);
        if let Err(error) = self.judge_again(hops, name, asked, &told.digest).await {
            if let Error::Refused(refusal) = &error {
                self.note_refused(name, tag, before, told, refusal).await;
            }
            return Err(error);
        }
        // What is served moves when its manifest is here: a HEAD alone, or several, must not leave a tag without an answer while it
        // cannot be fetched.
        let served = match before.as_ref() {
            Some(row)
                if !fetched
                    && row.served != told.digest
                    && self.load(&told.digest).await?.is_none() =>
            {
                row.served.clone()
            }
            _ => told.digest.clone(),
        };
        let moved = before
            .filter(|row| row.served == served)
            .map_or(now, |row| row.moved);
        let row = TagRow {
            observed: told.digest.clone(),
            served,
            media_type: told.media_type.as_str().to_owned(),
            size: told.size,
            etag: None,
            checked: now,
            moved,
            gone: None,
        };
        // Another image may have brought the manifest; that this one has it too is upstream's word.
        if let Some(manifest) = self.load(&told.digest).await? {
            self.record(name, &manifest).await?;
        }
        let memory = age_key(name, tag);
        // A row that could not be written must not be taken for a fresh one.
        if learn("tag", index.put_tag(key, name, tag, row, "upstream")).await {
            ages.note(&memory, Duration::ZERO);
        }
        absences.forget(&memory);
        Ok(())
    }

    async fn gone(&self, name: &Name, tag: &Tag) -> Checked {
        let Inner {
            key,
            config,
            shared,
            absences,
            ..
        } = &*self.inner;
        let index = shared.store.index();
        absences.note(&age_key(name, tag));
        match config.deleted_upstream {
            DeletedUpstream::Keep => {
                learn("tag", index.tag_gone(key, name, tag, clock::now())).await
            }
            DeletedUpstream::Forget => learn("tag", index.forget_tag(key, name, tag)).await,
        };
        Checked::Gone
    }
}
