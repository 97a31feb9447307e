//! When a tag may be served without asking, and what to do when asking failed. Pure: ages are arguments.
//!
//! Ages are measured on the monotonic clock while the process runs and clamped into `[0, ttl]` when they come from the index, so a step
//! of the wall clock neither makes an old tag young for years nor all of them old at once.

use std::time::Duration;

use super::config::{Config, DeletedUpstream};

/// What is known of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Time since upstream last confirmed it.
    pub age: Duration,
    /// Time since upstream last said that it is gone, where that is the last that was heard.
    pub gone: Option<Duration>,
}

/// What to do with a request for a tag, before any upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Serve what is known; it is fresh for this much longer.
    Fresh {
        /// What is left of the TTL.
        left: Duration,
    },
    /// Serve what is known: the mirror is told to be offline.
    Offline,
    /// Serve what is known although upstream has dropped it a moment ago.
    Gone,
    /// Upstream dropped it a moment ago, and the rule is to forget.
    Absent,
    /// Ask upstream whether it still is what is known.
    Revalidate,
    /// Nothing is known: fetch.
    Fetch,
    /// Nothing is known, and nobody may be asked.
    Unreachable,
}

/// Decides for a tag.
pub(super) fn decide(known: Option<Known>, config: &Config) -> Decision {
    match known {
        None if config.offline => Decision::Unreachable,
        None => Decision::Fetch,
        Some(_) if config.offline => Decision::Offline,
        Some(Known { age, gone: None }) if age < config.tag_ttl => Decision::Fresh {
            left: config.tag_ttl.saturating_sub(age),
        },
        Some(Known {
            age,
            gone: Some(since),
        }) if since < config.negative_ttl => match config.deleted_upstream {
            DeletedUpstream::Keep if age <= config.stale_if_error => Decision::Gone,
            DeletedUpstream::Keep | DeletedUpstream::Forget => Decision::Absent,
        },
        Some(_) => Decision::Revalidate,
    }
}

/// Whether a known tag may still be served after upstream failed.
pub(super) fn may_serve_stale(known: Known, config: &Config) -> bool {
    known.age <= config.stale_if_error
}

/// Whether a known tag is still served after upstream said that it is gone.
pub(super) fn may_serve_gone(known: Known, config: &Config) -> bool {
    config.deleted_upstream == DeletedUpstream::Keep && known.age <= config.stale_if_error
}

/// The age of something that was written down `since` ago by the wall clock: never more than just expired, so that a clock that jumped
/// ahead costs one question upstream and not the right to serve stale.
pub(super) fn loaded_age(since: Duration, written_in_future: bool, config: &Config) -> Duration {
    if written_in_future {
        config.tag_ttl
    } else {
        since.min(config.tag_ttl)
    }
}

#[cfg(test)]
mod tests;
