//! The pull quota as upstream tells it: `RateLimit-Limit`, `RateLimit-Remaining` (PROTOCOL C6).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;

/// What is left of a pull quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Pulls in a window.
    pub limit: u64,
    /// Pulls left.
    pub remaining: u64,
    /// Length of the window.
    pub window: Option<Duration>,
    /// Whose quota it is: an address or a user id.
    pub source: Option<String>,
}

/// The last that was heard.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Option<Quota>>);

impl Kept {
    pub(super) fn get(&self) -> Option<Quota> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads an answer's headers; gives what they say, where they say it.
    pub(super) fn note(&self, headers: &HeaderMap) -> Option<Quota> {
        let quota = parse(headers)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(quota.clone());
        Some(quota)
    }
}

fn parse(headers: &HeaderMap) -> Option<Quota> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |value: &str| {
        value
            .split(';')
            .next()
            .and_then(|number| number.trim().parse::<u64>().ok())
    };
    let limit = text("ratelimit-limit")?;
    let window = limit
        .split(';')
        .filter_map(|part| part.trim().strip_prefix("w="))
        .find_map(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    let source = text("docker-ratelimit-source").map(|source| source.chars().take(64).collect());
    Some(Quota {
        limit: number(limit)?,
        remaining: number(text("ratelimit-remaining")?)?,
        window,
        source,
    })
}
