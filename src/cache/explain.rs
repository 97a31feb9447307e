//! What a pull would do now, without doing it: the decisions that a pull goes by, as data. Nobody is asked.

use std::time::Duration;

use super::admit::{Asked, Refusal};
use super::error::Error;
use super::freshness::{self, Decision};
use super::learn::recall;
use super::pull_through::{Inner, PullThrough};
use super::tags::age_key;
use crate::clock::Wall;
use crate::oci::{Digest, Name, Reference, Tag};
use crate::store::index::TagRow;
use crate::upstream::BreakerState;

/// What a pull of a manifest would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Serve what is here, without asking.
    Serve,
    /// Serve what is here although upstream may have another by now.
    ServeStale,
    /// Ask upstream by HEAD whether it is still this; then serve it, or fetch the other, which is a pull.
    Confirm,
    /// Fetch it, which is a pull.
    Fetch,
    /// Answer that it is not there, as upstream said a moment ago.
    Absent,
    /// Answer that it is not there, because nobody may be asked.
    Unreachable,
    /// Refuse it by a rule.
    Refuse,
    /// Answer that upstream fails, which it did a moment ago; nothing is here to serve instead.
    Failing,
    /// Answer that the pull would use what is kept of upstream's quota.
    QuotaKept,
}

/// What is known of a tag or digest, and what a pull would do.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is the answer to a question of its own"
)]
pub struct Explained {
    /// What a pull would do.
    pub then: Then,
    /// What clients are given, as far as that is known.
    pub served: Option<Digest>,
    /// What upstream last said, where that is another.
    pub held_back: Option<Digest>,
    /// Whether its manifest is here.
    pub is_here: bool,
    /// When upstream last confirmed the tag.
    pub checked: Option<Wall>,
    /// For how long it still counts as fresh.
    pub fresh_for: Option<Duration>,
    /// Since when upstream says that it is gone.
    pub gone: Option<Wall>,
    /// Whether somebody has pinned it.
    pub is_pinned: bool,
    /// Why the rules of this remote refuse it, or what they hold back.
    pub refusal: Option<String>,
    /// Whether the rules have let this digest through; `false`: a pull asks them first.
    pub is_judged: bool,
    /// Whether upstream is asked at all.
    pub breaker: BreakerState,
    /// Whether this remote is told to ask nobody.
    pub is_offline: bool,
    /// The credential that the next pull would use; none where every quota is spent.
    pub credential: Option<String>,
}

impl Then {
    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::ServeStale => "serve-stale",
            Self::Confirm => "confirm",
            Self::Fetch => "fetch",
            Self::Absent => "absent",
            Self::Unreachable => "unreachable",
            Self::Refuse => "refuse",
            Self::Failing => "failing",
            Self::QuotaKept => "quota-kept",
        }
    }

    /// Whether a pull would come to an answer here, as far as can be told without asking.
    pub const fn may_have_it(self) -> bool {
        match self {
            Self::Serve | Self::ServeStale | Self::Confirm | Self::Fetch => true,
            Self::Absent | Self::Unreachable | Self::Refuse | Self::Failing | Self::QuotaKept => {
                false
            }
        }
    }

    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Serve => "what is here is served without asking upstream",
            Self::ServeStale => "what is here is served, flagged as stale, without asking upstream",
            Self::Confirm => {
                "upstream is asked by HEAD whether it still is this; what is here is served if so, or if upstream fails, else the other is fetched"
            }
            Self::Fetch => "it is fetched from upstream",
            Self::Absent => "404: upstream said a moment ago that it is not there",
            Self::Unreachable => "404: it is not here, and this repository is offline",
            Self::Refuse => "403: a rule of this repository refuses it",
            Self::Failing => {
                "503: it is not here, and upstream failed so often of late that it is left alone"
            }
            Self::QuotaKept => "429: a pull would use what is kept of upstream's quota",
        }
    }
}

impl PullThrough {
    /// What a pull of this would do now. Asks nobody, and changes nothing.
    pub async fn explain(&self, name: &Name, reference: &Reference) -> Result<Explained, Error> {
        let Inner {
            config, upstream, ..
        } = &*self.inner;
        let mut explained = Explained {
            then: Then::Fetch,
            served: None,
            held_back: None,
            is_here: false,
            checked: None,
            fresh_for: None,
            gone: None,
            is_pinned: false,
            refusal: None,
            is_judged: true,
            breaker: upstream.breaker(),
            is_offline: config.offline,
            credential: upstream.next_credential(),
        };
        let refused = match reference {
            Reference::Tag(tag) => self.explain_tag(name, tag, &mut explained).await?,
            Reference::Digest(digest) => {
                explained.served = Some(digest.clone());
                explained.is_here = self.is_here(name, digest).await?;
                explained.then = match (explained.is_here, config.offline) {
                    (true, _) => Then::Serve,
                    (false, true) => Then::Unreachable,
                    (false, false) => Then::Fetch,
                };
                self.refusal_of(name, Asked::Digest, digest)
            }
        };
        // A pin overrides what was refused, but no pattern of names.
        let by_name = config
            .admit
            .refuses_name(name)
            .map(|rule| Refusal { digest: None, rule });
        if let Some(refusal) = by_name {
            explained.then = Then::Refuse;
            explained.refusal = Some(refusal.to_string());
        } else if let Some(refusal) = refused {
            // What is held back does not keep the one before it from being served.
            let is_held_back = refusal.digest.is_some() && refusal.digest == explained.held_back;
            if !is_held_back {
                explained.then = Then::Refuse;
            }
            explained.refusal = Some(refusal.to_string());
        } else if !explained.is_pinned && !config.admit.is_empty() {
            let asked = match reference {
                Reference::Tag(tag) => Asked::by(tag),
                Reference::Digest(_) => Asked::Digest,
            };
            explained.is_judged = match &explained.served {
                Some(digest) => self.lets_through(name, asked, digest).await?,
                None => false,
            };
        }
        if explained.then == Then::Fetch {
            if matches!(explained.breaker, BreakerState::Open(_)) {
                explained.then = Then::Failing;
            } else if explained.credential.is_none() {
                explained.then = Then::QuotaKept;
            }
        }
        Ok(explained)
    }

    /// Fills in what is known of a tag; gives back what was refused.
    async fn explain_tag(
        &self,
        name: &Name,
        tag: &Tag,
        explained: &mut Explained,
    ) -> Result<Option<Refusal>, Error> {
        let Inner {
            key,
            config,
            shared,
            absences,
            judged,
            pins,
            ..
        } = &*self.inner;
        let row = shared.store.index().tag(key, name, tag);
        let row: Option<TagRow> = recall("tag", config.offline, row).await?;
        if let Some(row) = &row {
            explained.checked = Some(row.checked);
            explained.gone = row.gone;
            explained.served = Some(row.served.clone());
            explained.held_back = (row.served != row.observed).then(|| row.observed.clone());
            explained.is_here = self.is_here(name, &row.served).await?;
        }
        if let Some((digest, _)) = pins.get(name, tag) {
            explained.is_pinned = true;
            explained.is_here = self.is_here(name, &digest).await?;
            explained.served = Some(digest);
            explained.then = match (explained.is_here, config.offline) {
                (true, _) => Then::Serve,
                (false, true) => Then::Unreachable,
                (false, false) => Then::Fetch,
            };
            return Ok(None);
        }
        let known = row.as_ref().map(|row| self.known(name, tag, row));
        let is_here = explained.is_here;
        explained.then = match freshness::decide(known, config) {
            Decision::Fresh { left } => {
                explained.fresh_for = Some(left);
                if is_here { Then::Serve } else { Then::Fetch }
            }
            Decision::Offline if !is_here => Then::Unreachable,
            Decision::Gone if !is_here => Then::Absent,
            Decision::Offline | Decision::Gone => Then::ServeStale,
            Decision::Absent => Then::Absent,
            Decision::Unreachable => Then::Unreachable,
            Decision::Revalidate if !is_here => Then::Fetch,
            Decision::Revalidate => Then::Confirm,
            Decision::Fetch if absences.holds(&age_key(name, tag)) => Then::Absent,
            Decision::Fetch => Then::Fetch,
        };
        Ok(match &row {
            None => judged.refusal(&age_key(name, tag)),
            Some(row) => self
                .refusal_of(name, Asked::by(tag), &row.served)
                .or_else(|| self.refusal_of(name, Asked::by(tag), &row.observed)),
        })
    }

    async fn is_here(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        if !self.knows(name, digest).await {
            return Ok(false);
        }
        let Inner { config, shared, .. } = &*self.inner;
        let blob = recall("manifest", config.offline, shared.store.open_blob(digest));
        Ok(blob.await?.is_some())
    }
}
