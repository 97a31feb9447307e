//! Lists: the tags of an image, the referrers of a manifest, the images of a repository.
//!
//! From upstream while fresh, else from what is known, which the answer then says. An empty list is only ever upstream's word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::error::Error;
use super::learn::{learn, recall};
use super::pull_through::{Inner, PullThrough};
use super::status::{CacheStatus, Outcome, Reason};
use crate::clock::{self, Wall};
use crate::oci::descriptor::Descriptor;
use crate::oci::{Digest, Name, Reference, referrers};
use crate::upstream::{Hops, Kind};

impl PullThrough {
    /// Every tag of an image, sorted.
    pub async fn tags(
        &self,
        hops: &Hops,
        name: &Name,
    ) -> Result<(Arc<Vec<String>>, CacheStatus), Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            ..
        } = &*self.inner;
        let index = shared.store.index();
        let cached = recall("tag list", config.offline, index.tag_list(key, name)).await?;
        let age = cached.as_ref().map(|(_, fetched)| self.list_age(*fetched));
        if let (Some((tags, _)), Some(age)) = (&cached, age)
            && age < config.tag_ttl
            && !config.offline
        {
            return Ok((Arc::new(tags.clone()), fresh(config.tag_ttl, age)));
        }
        let memory = format!("{name}/tags");
        let failure = if config.offline {
            Error::Offline
        } else if absences.holds(&memory) {
            return Err(Error::StillAbsent);
        } else {
            match self.fetch_tags(hops, name).await {
                Ok(answer) => return Ok(answer),
                Err(Error::NotFound) => {
                    absences.note(&memory);
                    return Err(Error::NotFound);
                }
                Err(error) => error,
            }
        };
        let mut tags = cached
            .filter(|_| age.is_some_and(|age| age <= config.stale_if_error))
            .map(|(tags, _)| tags)
            .unwrap_or_default();
        tags.extend(recall("tags", config.offline, index.known_tags(key, name)).await?);
        tags.sort_unstable();
        tags.dedup();
        if tags.is_empty() {
            Err(failure)
        } else {
            Ok((Arc::new(tags), old(&failure)))
        }
    }

    async fn fetch_tags(
        &self,
        hops: &Hops,
        name: &Name,
    ) -> Result<(Arc<Vec<String>>, CacheStatus), Error> {
        let (this, hops, asked) = (self.clone(), hops.clone(), name.clone());
        let landed = self.inner.lists.run(name.to_string(), || async move {
            let mut tags = this
                .inner
                .upstream
                .tags(&hops, &asked)
                .await
                .map_err(Error::from_upstream)?;
            tags.sort_unstable();
            tags.dedup();
            let index = this.inner.shared.store.index();
            learn(
                "tag list",
                index.put_tag_list(&this.inner.key, &asked, tags.clone(), clock::now()),
            )
            .await;
            Ok(Arc::new(tags))
        });
        let landed = landed.await.ok_or(Error::GivenUp)?;
        Ok((landed.value?, fetched(landed.joined)))
    }

    /// What refers to a manifest: signatures, SBOMs, attestations.
    pub async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        subject: &Digest,
    ) -> Result<(Vec<Descriptor>, CacheStatus), Error> {
        let Inner {
            key,
            config,
            shared,
            ..
        } = &*self.inner;
        let index = shared.store.index();
        let cached = recall(
            "referrers",
            config.offline,
            index.referrer_list(key, name, subject),
        )
        .await?;
        let age = cached.as_ref().map(|(_, fetched)| self.list_age(*fetched));
        if let (Some((list, _)), Some(age)) = (&cached, age)
            && age < config.tag_ttl
            && !config.offline
        {
            return Ok((
                referrers::parse_index(list).map_err(Error::Manifest)?,
                fresh(config.tag_ttl, age),
            ));
        }
        let failure = if config.offline {
            Error::Offline
        } else {
            match self.fetch_referrers(hops, name, subject).await {
                Ok((list, joined)) => {
                    return Ok((
                        referrers::parse_index(&list).map_err(Error::Manifest)?,
                        fetched(joined),
                    ));
                }
                Err(error) => error,
            }
        };
        // A list that upstream once gave, or else what has been pulled through here; never an empty list that nobody checked.
        if let Some((list, _)) =
            cached.filter(|_| age.is_some_and(|age| age <= config.stale_if_error))
        {
            return Ok((
                referrers::parse_index(&list).map_err(Error::Manifest)?,
                old(&failure),
            ));
        }
        let known = recall(
            "referrers",
            config.offline,
            index.known_referrers(key, name, subject),
        )
        .await?;
        if known.is_empty() {
            return Err(failure);
        }
        let describe = |(digest, row): (Digest, crate::store::index::ManifestRow)| {
            let descriptor = Descriptor::new(&row.media_type, digest, row.size).ok()?;
            Some(
                descriptor
                    .with_artifact_type(row.artifact_type)
                    .with_annotations(row.annotations),
            )
        };
        let list = known.into_iter().filter_map(describe).collect();
        Ok((list, old(&failure)))
    }

    pub(super) async fn fetch_referrers(
        &self,
        hops: &Hops,
        name: &Name,
        subject: &Digest,
    ) -> Result<(Bytes, bool), Error> {
        let (this, hops, asked, wanted) =
            (self.clone(), hops.clone(), name.clone(), subject.clone());
        let landed = self
            .inner
            .referrer_lists
            .run(format!("{name}@{subject}"), || async move {
                let Inner {
                    key,
                    upstream,
                    shared,
                    ..
                } = &*this.inner;
                let list = match upstream.referrers(&hops, &asked, &wanted).await {
                    Ok(list) => list,
                    // No API there: the list is a manifest under the fallback tag, if anyone ever wrote one.
                    Err(error) if matches!(error.kind(), Kind::NotFound | Kind::BadAnswer) => {
                        let tag = Reference::Tag(referrers::fallback_tag(&wanted));
                        match upstream.get_manifest(&hops, &asked, &tag).await {
                            Ok(body) => {
                                referrers::parse_index(&body.bytes).map_err(Error::Manifest)?
                            }
                            Err(error) if error.kind() == Kind::NotFound => Vec::new(),
                            Err(error) => return Err(Error::from_upstream(error)),
                        }
                    }
                    Err(error) => return Err(Error::from_upstream(error)),
                };
                let is_empty = list.is_empty();
                let list = Bytes::from(referrers::render_index(&list));
                // Whoever asks about digests that nobody knows must not fill the index.
                if is_empty {
                    return Ok(list);
                }
                let index = shared.store.index();
                learn(
                    "referrers",
                    index.put_referrer_list(key, &asked, &wanted, list.to_vec(), clock::now()),
                )
                .await;
                Ok(list)
            });
        let landed = landed.await.ok_or(Error::GivenUp)?;
        Ok((landed.value?, landed.joined))
    }

    /// The images that are known here, sorted.
    pub async fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self
            .inner
            .shared
            .store
            .index()
            .names(&self.inner.key)
            .await?)
    }

    fn list_age(&self, fetched: Wall) -> Duration {
        let now = clock::now();
        super::freshness::loaded_age(now.since(fetched), fetched > now, &self.inner.config)
    }
}

fn fresh(ttl: Duration, age: Duration) -> CacheStatus {
    CacheStatus::new(Outcome::Hit, Reason::Fresh).with_ttl_left(ttl.saturating_sub(age))
}

const fn fetched(joined: bool) -> CacheStatus {
    if joined {
        CacheStatus::new(Outcome::Joined, Reason::InFlight)
    } else {
        CacheStatus::new(Outcome::Miss, Reason::Unknown)
    }
}

fn old(failure: &Error) -> CacheStatus {
    let reason = if matches!(failure, Error::Offline) {
        Reason::Offline
    } else {
        Reason::UpstreamFailed
    };
    CacheStatus::new(Outcome::Stale, reason).with_fwd_status(failure.fwd_status())
}
