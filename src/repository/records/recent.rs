//! What each client was told a moment ago, so that what it asks for next is seen as part of the same pull. In memory alone: this is all that
//! is known of addresses, and only a hash of them. Pure but for its hash.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use crate::oci::{Digest, Name, Tag};
use crate::recent::recent;

/// Clients and images that are remembered at a time.
pub(super) const CLIENTS_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Tags, and indexes, that are remembered of one client and image.
pub(super) const TOLD_MAX: usize = 8;
/// How long what a client was told and what it asks for then are one pull.
pub(super) const TOGETHER: Duration = Duration::from_secs(10 * 60);

/// Whose memory it is: one client, one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client(u64);

/// What clients were told.
#[derive(Debug)]
pub(super) struct Recent {
    clients: LruCache<Client, Told>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Told {
    tags: Vec<(Tag, Digest, Instant)>,
    indexes: Vec<(Digest, Instant)>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            clients: recent(CLIENTS_MAX),
            hasher: RandomState::new(),
        }
    }

    /// A client by its address and name, with an image.
    pub(super) fn client(&self, address: &str, who: &str, name: &Name) -> Client {
        Client(self.hasher.hash_one((address, who, name.as_str())))
    }

    /// A client was told what a tag means, and not given it.
    pub(super) fn tell(&mut self, client: Client, tag: &Tag, digest: &Digest, now: Instant) {
        let told = self.clients.get_or_insert_mut(client, Told::default);
        told.tags.retain(|(known, _, _)| known != tag);
        push(&mut told.tags, (tag.clone(), digest.clone(), now));
    }

    /// The tag that a client was told means this, the latest of several. One is taken out: a client that asks for the digest once more means
    /// the digest.
    pub(super) fn take_tag(
        &mut self,
        client: Client,
        digest: &Digest,
        now: Instant,
    ) -> Option<Tag> {
        let told = self.clients.get_mut(&client)?;
        let means = |(_, known, at): &(Tag, Digest, Instant)| {
            known == digest && now.duration_since(*at) <= TOGETHER
        };
        let at = told.tags.iter().rposition(means)?;
        Some(told.tags.remove(at).0)
    }

    /// The same, and it stays.
    pub(super) fn tag(&self, client: Client, digest: &Digest, now: Instant) -> Option<Tag> {
        let told = self.clients.peek(&client)?;
        let means = |(_, known, at): &&(Tag, Digest, Instant)| {
            known == digest && now.duration_since(*at) <= TOGETHER
        };
        told.tags.iter().rfind(means).map(|(tag, _, _)| tag.clone())
    }

    /// A client was given an index.
    pub(super) fn give_index(&mut self, client: Client, digest: &Digest, now: Instant) {
        let told = self.clients.get_or_insert_mut(client, Told::default);
        told.indexes.retain(|(known, _)| known != digest);
        push(&mut told.indexes, (digest.clone(), now));
    }

    /// The indexes that a client was given, the latest first.
    pub(super) fn indexes(&mut self, client: Client, now: Instant) -> Vec<Digest> {
        let Some(told) = self.clients.get(&client) else {
            return Vec::new();
        };
        let together = |(_, at): &&(Digest, Instant)| now.duration_since(*at) <= TOGETHER;
        let indexes = told.indexes.iter().rev().filter(together);
        indexes.map(|(digest, _)| digest.clone()).collect()
    }
}

/// Adds one, and lets the oldest go.
fn push<T>(list: &mut Vec<T>, one: T) {
    if list.len() >= TOLD_MAX {
        list.remove(0);
    }
    list.push(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_pull_is_what_one_client_asks_for_together() {
        let mut recent = Recent::new();
        let name = |text: &str| Name::parse(text).unwrap();
        let tag = |text: &str| Tag::parse(text).unwrap();
        let now = Instant::now();
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let client = recent.client("10.0.0.1", "ada", &name("a/b"));
        for other in [
            recent.client("10.0.0.2", "ada", &name("a/b")),
            recent.client("10.0.0.1", "bob", &name("a/b")),
            recent.client("10.0.0.1", "ada", &name("a/c")),
        ] {
            assert_ne!(client, other);
        }
        recent.tell(client, &tag("1"), &one, now);
        recent.tell(client, &tag("latest"), &one, now);
        assert_eq!(recent.tag(client, &one, now), Some(tag("latest")));
        assert_eq!(recent.take_tag(client, &two, now), None);
        assert_eq!(recent.take_tag(client, &one, now), Some(tag("latest")));
        assert_eq!(recent.take_tag(client, &one, now), Some(tag("1")));
        assert_eq!(recent.take_tag(client, &one, now), None);
        recent.tell(client, &tag("1"), &one, now);
        recent.tell(client, &tag("1"), &two, now);
        assert_eq!(recent.take_tag(client, &one, now), None, "it has moved");
        let late = now + TOGETHER + Duration::from_secs(1);
        assert_eq!(recent.take_tag(client, &two, late), None);

        recent.give_index(client, &one, now);
        recent.give_index(client, &two, now);
        recent.give_index(client, &one, now);
        assert_eq!(recent.indexes(client, now), [one, two]);
        assert!(recent.indexes(client, late).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_has_a_bound() {
        let mut recent = Recent::new();
        let now = Instant::now();
        let digest = |number: usize| Digest::of(number.to_string().as_bytes());
        let client = |recent: &Recent, number: usize| {
            let name = Name::parse(&format!("a/{number}")).unwrap();
            recent.client("10.0.0.1", "ada", &name)
        };
        let one = client(&recent, 0);
        for number in 0..3 * TOLD_MAX {
            recent.give_index(one, &digest(number), now);
            let tag = Tag::parse(&number.to_string()).unwrap();
            recent.tell(one, &tag, &digest(number), now);
        }
        assert_eq!(recent.indexes(one, now).len(), TOLD_MAX);
        assert_eq!(recent.take_tag(one, &digest(0), now), None);
        for number in 1..=CLIENTS_MAX.get() {
            let next = client(&recent, number);
            recent.give_index(next, &digest(0), now);
        }
        assert_eq!(recent.clients.len(), CLIENTS_MAX.get());
        assert!(recent.indexes(one, now).is_empty(), "the first has gone");
    }
}
