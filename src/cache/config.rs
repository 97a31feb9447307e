//! How long answers of one remote are good for.

use std::time::Duration;

use super::admit::Rules;

/// What becomes of a tag that upstream says is gone (a confirmed 404).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeletedUpstream {
    /// It is served stale, flagged, for as long as `stale_if_error` allows.
    Keep,
    /// It is answered 404 at once and forgotten.
    Forget,
}

/// The freshness rules of one remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A tag this fresh is served without asking.
    pub tag_ttl: Duration,
    /// How long a 404 is remembered.
    pub negative_ttl: Duration,
    /// How old a tag may be served when upstream fails.
    pub stale_if_error: Duration,
    /// What becomes of a tag that is gone upstream.
    pub deleted_upstream: DeletedUpstream,
    /// Never speak to the upstream.
    pub offline: bool,
    /// What new digests have to fulfil.
    pub admit: Rules,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tag_ttl: Duration::from_secs(5 * 60),
            negative_ttl: Duration::from_secs(30),
            stale_if_error: Duration::from_secs(30 * 24 * 3600),
            deleted_upstream: DeletedUpstream::Keep,
            offline: false,
            admit: Rules::default(),
        }
    }
}
