//! Collection: what no tag and no other root leads to goes, after a time in which nobody came back for it.
//!
//! Two phases. What is without use is noted with the moment it was first seen so; what was seen so at every look for the whole grace is
//! looked at once more under the image's lock, where no push is under way, and only then let go. Age is measured by the monotonic clock.
//!
//! Roots: what a tag means; manifests that were pushed by digest alone and that nothing holds; manifests that a tag has moved away from,
//! for whoever deploys by digest and for a roll-back. An index holds its children, a manifest its blobs, a subject its referrers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::lock::keep;
use super::{Error, Local};
use crate::clock;
use crate::oci::{Digest, Name};
use crate::store::Change;
use crate::store::index::{Holdings, LocalLink};

/// How many are let go of in one write.
const SWEEP: usize = 256;

/// Something that was, or would be, collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The image.
    pub name: Name,
    /// What.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Why.
    pub reason: Reason,
}

/// Why something is without use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No tag leads to this manifest any more.
    Untagged,
    /// No manifest points to this blob.
    Unreferenced,
}

impl Collected {
    /// As JSON, with the key of its repository.
    pub fn to_json(&self, repository: &str) -> Value {
        json!({
            "repository": repository,
            "image": self.name.as_str(),
            "digest": self.digest.to_string(),
            "size": self.size,
            "reason": self.reason.as_str(),
        })
    }
}

impl Reason {
    /// The word for logs and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untagged => "untagged",
            Self::Unreferenced => "unreferenced",
        }
    }
}

/// What the roots of an image lead to. Pure.
pub(super) fn live(holdings: &Holdings) -> HashSet<&Digest> {
    let mut held: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
    for (from, to) in &holdings.edges {
        held.entry(from).or_default().push(to);
    }
    let tagged = holdings.tags.iter().map(|(_, digest, _)| digest);
    let roots = holdings.links.iter().filter(|link| link.is_root);
    let mut queue: VecDeque<&Digest> = tagged.chain(roots.map(|link| &link.digest)).collect();
    let mut live = HashSet::new();
    while let Some(digest) = queue.pop_front() {
        if live.insert(digest) {
            queue.extend(held.get(digest).into_iter().flatten().copied());
        }
    }
    live
}

/// What of an image is without use, blobs after the manifests that pointed to them. Pure.
fn unused(holdings: &Holdings) -> Vec<&LocalLink> {
    let live = live(holdings);
    let mut unused: Vec<_> = holdings
        .links
        .iter()
        .filter(|link| !live.contains(&link.digest))
        .collect();
    unused.sort_by_key(|link| !link.is_manifest);
    unused
}

/// Since when things of one repository have been without use, from one round to the next.
#[derive(Debug, Default)]
pub struct Seen(HashMap<(Name, Digest), Instant>);

impl Local {
    /// One round of collection: what has been without use for `grace` goes.
    pub async fn collect(&self, seen: &mut Seen, grace: Duration) -> Result<Vec<Collected>, Error> {
        let now = Instant::now();
        let mut still = HashMap::new();
        let mut collected = Vec::new();
        for name in self.every_name().await? {
            let holdings = self.store().index().holdings(&self.key, &name).await?;
            let mut due = HashSet::new();
            for link in unused(&holdings) {
                let key = (name.clone(), link.digest.clone());
                let since = seen.0.get(&key).copied().unwrap_or(now);
                if now.saturating_duration_since(since) >= grace
                    && !self.is_fresh(&name, &link.digest, grace)
                {
                    due.insert(link.digest.clone());
                }
                still.insert(key, since);
            }
            if !due.is_empty() {
                let is_due = |link: &LocalLink| {
                    due.contains(&link.digest) && !self.is_fresh(&name, &link.digest, grace)
                };
                collected.extend(self.sweep(&name, is_due).await?);
            }
        }
        for gone in &collected {
            still.remove(&(gone.name.clone(), gone.digest.clone()));
        }
        seen.0 = still;
        Ok(collected)
    }

    /// Collects in one look what is without use, was pushed at least `grace` ago by the wall clock and asked for by nobody since (`gc`).
    pub async fn collect_now(
        &self,
        grace: Duration,
        dry_run: bool,
    ) -> Result<Vec<Collected>, Error> {
        let now = clock::now();
        let mut collected = Vec::new();
        for name in self.every_name().await? {
            let is_due = |link: &LocalLink| {
                now.since(link.added) >= grace && !self.is_fresh(&name, &link.digest, grace)
            };
            if dry_run {
                let holdings = self.store().index().holdings(&self.key, &name).await?;
                let due = unused(&holdings).into_iter().filter(|link| is_due(link));
                collected.extend(due.map(|link| describe(&name, link)));
            } else {
                collected.extend(self.sweep(&name, is_due).await?);
            }
        }
        Ok(collected)
    }

    fn is_fresh(&self, name: &Name, digest: &Digest, grace: Duration) -> bool {
        self.shared
            .inner
            .touched
            .within(&self.key, name, digest, grace)
    }

    /// Every image that has anything here.
    pub async fn every_name(&self) -> Result<Vec<Name>, Error> {
        let names = self.store().index().local_names(&self.key).await?;
        Ok(names
            .iter()
            .filter_map(|name| Name::parse(name).ok())
            .collect())
    }

    /// Lets go of what is due and still without use. Under the lock no manifest comes that would need it.
    async fn sweep(
        &self,
        name: &Name,
        is_due: impl Fn(&LocalLink) -> bool,
    ) -> Result<Vec<Collected>, Error> {
        let image = self.image(name).await?;
        let holdings = self.store().index().holdings(&self.key, name).await?;
        let due: Vec<_> = unused(&holdings)
            .into_iter()
            .filter(|link| is_due(link))
            .collect();
        let drop_of = |link: &&LocalLink| {
            let now = clock::now();
            let change = if link.is_manifest {
                Change::drop_manifest(&self.key, name, &link.digest, now)
            } else {
                Change::drop_blob(&self.key, name, &link.digest, now)
            };
            (change, None)
        };
        // Pushes to this image wait meanwhile: many go in one write.
        for some in due.chunks(SWEEP) {
            let changes = some.iter().map(drop_of).collect();
            self.store()
                .commit_keeping(changes, vec![keep(&image)])
                .await?;
        }
        Ok(due.into_iter().map(|link| describe(name, link)).collect())
    }
}

fn describe(name: &Name, link: &LocalLink) -> Collected {
    Collected {
        name: name.clone(),
        digest: link.digest.clone(),
        size: link.size,
        reason: if link.is_manifest {
            Reason::Untagged
        } else {
            Reason::Unreferenced
        },
    }
}
