//! What was judged a moment ago, so that not every request has it judged again. In memory only; what lasts is in the index.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::time::Instant;

use super::admit::{Refusal, Rule};

use crate::recent::recent;

/// How many of each one remote remembers at most.
pub(super) const JUDGED_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What was admitted for good, and what was refused for now.
#[derive(Debug)]
pub(super) struct Judged {
    admitted: Mutex<LruCache<Box<str>, ()>>,
    refused: Mutex<LruCache<Box<str>, (Refusal, Instant)>>,
    ttl: Duration,
}

impl Judged {
    /// `ttl`: for how long a refusal is not thought over.
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            admitted: Mutex::new(recent(JUDGED_MAX)),
            refused: Mutex::new(recent(JUDGED_MAX)),
            ttl,
        }
    }

    pub(super) fn is_admitted(&self, key: &str) -> bool {
        lock(&self.admitted).get(key).is_some()
    }

    pub(super) fn admit(&self, key: &str) {
        lock(&self.admitted).put(key.into(), ());
        lock(&self.refused).pop(key);
    }

    /// Why `key` was refused a moment ago.
    pub(super) fn refusal(&self, key: &str) -> Option<Refusal> {
        let mut refused = lock(&self.refused);
        let (refusal, at) = refused.get(key)?;
        let age = at.elapsed();
        if age >= self.ttl {
            return None;
        }
        let rule = match refusal.rule {
            // What is left of it has become less.
            Rule::MinAge { wanted, left } => Rule::MinAge {
                wanted,
                left: left.checked_sub(age).filter(|left| !left.is_zero())?,
            },
            rule @ (Rule::Deny
            | Rule::Allow
            | Rule::MaxSize { .. }
            | Rule::Unsigned
            | Rule::WrongSignature) => rule,
        };
        Some(Refusal {
            rule,
            ..refusal.clone()
        })
    }

    /// Forgets a refusal.
    pub(super) fn relent(&self, key: &str) {
        lock(&self.refused).pop(key);
    }

    /// Remembers a refusal. False where the same rule has been noted for `key` before.
    pub(super) fn refuse(&self, key: &str, refusal: &Refusal) -> bool {
        let before = lock(&self.refused).put(key.into(), (refusal.clone(), Instant::now()));
        let same = |(known, _): (Refusal, Instant)| known.rule.as_str() == refusal.rule.as_str();
        !before.is_some_and(same)
    }

    /// Forgets the refusals whose keys begin so: what they were founded on is no more.
    pub(super) fn reconsider(&self, begin: &str) {
        let mut refused = lock(&self.refused);
        let keys = refused.iter().map(|(key, _)| key);
        let keys: Vec<Box<str>> = keys.filter(|key| key.starts_with(begin)).cloned().collect();
        for key in keys {
            refused.pop(&key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps stay valid whatever happens between lock and unlock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_its_ttl_and_no_longer_than_it_holds() {
        let judged = Judged::new(Duration::from_secs(60));
        let refusal = |rule| Refusal { digest: None, rule };
        let young = |left| Rule::MinAge {
            wanted: Duration::from_secs(100),
            left: Duration::from_secs(left),
        };
        assert!(judged.refuse("old", &refusal(Rule::Unsigned)));
        assert!(!judged.refuse("old", &refusal(Rule::Unsigned)));
        assert!(!judged.refuse("old", &refusal(Rule::WrongSignature)));
        assert!(judged.refuse("young", &refusal(young(30))));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(judged.refusal("young").unwrap().rule, young(20));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(judged.refusal("young"), None);
        assert_eq!(judged.refusal("old").unwrap().rule, Rule::WrongSignature);
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(judged.refusal("old"), None);
        judged.refuse("digest a@1", &refusal(Rule::Unsigned));
        judged.refuse("digest b@1", &refusal(Rule::Unsigned));
        judged.reconsider("digest a@");
        assert_eq!(judged.refusal("digest a@1"), None);
        assert!(judged.refusal("digest b@1").is_some());
        judged.admit("old");
        assert!(judged.is_admitted("old") && !judged.is_admitted("young"));
    }
}
