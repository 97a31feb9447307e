//! What is waiting to be written down, bounded. Pure.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::clock::Wall;
use crate::oci::Digest;
use crate::store::index::{MissingKey, MissingRow, Served};

/// Different things of each kind that wait at most.
pub(super) const WAITING_MAX: usize = 8192;

/// Which pulls are counted together until they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PullKey {
    pub(super) repo: String,
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) digest: Digest,
    pub(super) who: String,
    /// What it may have been chosen from, the likeliest first.
    pub(super) indexes: Vec<Digest>,
}

/// What is known of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pulls {
    pub(super) media_type: String,
    pub(super) first: Wall,
    pub(super) last: Wall,
    pub(super) count: u64,
}

/// What is waiting.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) pulls: HashMap<PullKey, Pulls>,
    pub(super) missing: HashMap<MissingKey, MissingRow>,
    pub(super) served: HashSet<Served>,
    /// What there was no room for.
    pub(super) lost: u64,
}

impl Notes {
    /// Adds pulls.
    pub(super) fn pull(&mut self, key: PullKey, more: Pulls) {
        if let Some(known) = self.pulls.get_mut(&key) {
            known.first = known.first.min(more.first);
            known.last = known.last.max(more.last);
            known.count = known.count.saturating_add(more.count);
            known.media_type = more.media_type;
        } else if self.pulls.len() < WAITING_MAX {
            self.pulls.insert(key, more);
        } else {
            self.lost += 1;
        }
    }

    /// Adds something that was missed.
    pub(super) fn miss(&mut self, more: MissingRow) {
        if let Some(known) = self.missing.get_mut(&more.key) {
            known.first = known.first.min(more.first);
            known.count = known.count.saturating_add(more.count);
            if more.last >= known.last {
                known.last = more.last;
                known.why = more.why;
                known.who = more.who;
                known.under = more.under.or(known.under.take());
            }
        } else if self.missing.len() < WAITING_MAX {
            self.missing.insert(more.key.clone(), more);
        } else {
            self.lost += 1;
        }
    }

    /// Something is there after all, also what waits to be written down as missing.
    pub(super) fn serve(&mut self, served: Served) {
        for repo in &served.repos {
            self.missing.remove(&MissingKey {
                repo: repo.clone(),
                name: served.name.clone(),
                reference: served.reference.clone(),
                is_blob: served.is_blob,
            });
        }
        // What finds no room stays written down until it is served the next time.
        if self.served.len() < WAITING_MAX {
            self.served.insert(served);
        }
    }

    /// Takes back what could not be written. What was noted since is newer: it was missed after it was served.
    pub(super) fn take_back(&mut self, earlier: Self) {
        for (key, pulls) in earlier.pulls {
            self.pull(key, pulls);
        }
        let is_served = |key: &MissingKey, served: &HashSet<Served>| {
            served.iter().any(|one| {
                one.repos.contains(&key.repo)
                    && one.name == key.name
                    && one.reference == key.reference
                    && one.is_blob == key.is_blob
            })
        };
        for (key, row) in earlier.missing {
            if !is_served(&key, &self.served) {
                self.miss(row);
            }
        }
        for served in earlier.served {
            if self.served.len() < WAITING_MAX {
                self.served.insert(served);
            }
        }
        self.lost += earlier.lost;
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.pulls.is_empty() && self.missing.is_empty() && self.served.is_empty()
    }

    /// Whether it is time to write, lest there be no room.
    pub(super) fn is_half_full(&self) -> bool {
        let half = WAITING_MAX / 2;
        self.pulls.len() >= half || self.missing.len() >= half || self.served.len() >= half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(reference: &str) -> PullKey {
        PullKey {
            repo: "hub".to_owned(),
            name: "a/b".to_owned(),
            reference: reference.to_owned(),
            digest: Digest::of(b"1"),
            who: "ada".to_owned(),
            indexes: Vec::new(),
        }
    }

    fn pulls(at: i64) -> Pulls {
        Pulls {
            media_type: "m".to_owned(),
            first: Wall::from_ms(at),
            last: Wall::from_ms(at),
            count: 1,
        }
    }

    fn missing(reference: &str, at: i64, why: &str) -> MissingRow {
        MissingRow {
            key: MissingKey {
                repo: "hub".to_owned(),
                name: "a/b".to_owned(),
                reference: reference.to_owned(),
                is_blob: false,
            },
            under: None,
            why: why.to_owned(),
            who: "ada".to_owned(),
            first: Wall::from_ms(at),
            last: Wall::from_ms(at),
            count: 1,
        }
    }

    fn served(reference: &str) -> Served {
        Served {
            repos: vec!["all".to_owned(), "hub".to_owned()],
            name: "a/b".to_owned(),
            reference: reference.to_owned(),
            is_blob: false,
        }
    }

    #[test]
    fn the_same_is_counted_together() {
        let mut notes = Notes::default();
        for at in [5, 3, 9] {
            notes.pull(key("1"), pulls(at));
            notes.miss(missing(
                "1",
                at,
                if at == 9 { "offline" } else { "unreachable" },
            ));
        }
        let told = &notes.pulls[&key("1")];
        assert_eq!(
            (told.first, told.last, told.count),
            (Wall::from_ms(3), Wall::from_ms(9), 3)
        );
        let told = &notes.missing[&missing("1", 0, "").key];
        assert_eq!(
            (told.first, told.last, told.count),
            (Wall::from_ms(3), Wall::from_ms(9), 3)
        );
        assert_eq!(told.why, "offline");
    }

    #[test]
    fn what_waits_has_a_bound_and_what_is_lost_is_counted() {
        let mut notes = Notes::default();
        for number in 0..WAITING_MAX + 2 {
            notes.pull(key(&number.to_string()), pulls(1));
            notes.miss(missing(&number.to_string(), 1, "offline"));
            notes.serve(served(&format!("x{number}")));
            assert_eq!(notes.is_half_full(), number + 1 >= WAITING_MAX / 2);
        }
        assert_eq!(notes.pulls.len(), WAITING_MAX);
        assert_eq!(notes.missing.len(), WAITING_MAX);
        assert_eq!(notes.served.len(), WAITING_MAX);
        assert_eq!(notes.lost, 4);
        // What is known already is counted on.
        notes.pull(key("0"), pulls(2));
        assert_eq!(notes.pulls[&key("0")].count, 2);
    }

    #[test]
    fn what_is_served_is_missing_no_more_and_what_failed_to_be_written_waits_on() {
        let mut failed = Notes::default();
        failed.pull(key("1"), pulls(1));
        failed.miss(missing("gone", 1, "offline"));
        failed.miss(missing("stays", 1, "offline"));
        failed.serve(served("old"));
        let mut notes = Notes::default();
        notes.pull(key("1"), pulls(2));
        notes.serve(served("gone"));
        notes.take_back(failed);
        assert_eq!(notes.pulls[&key("1")].count, 2);
        assert!(!notes.missing.contains_key(&missing("gone", 0, "").key));
        assert!(notes.missing.contains_key(&missing("stays", 0, "").key));
        assert!(notes.served.contains(&served("old")));
        notes.serve(served("stays"));
        assert!(notes.missing.is_empty() && !notes.is_empty());
    }
}
