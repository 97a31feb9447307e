//! What upstream says about how often we may ask: `Retry-After` (RFC 9110, 10.2.3) and Docker Hub's quota headers; and what follows from
//! them for the next pull (`ledger`).
//!
//! Pure; `now` is an argument.

mod ledger;

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

pub(super) use ledger::{Cost, Entry, Ledger};

use super::answer::Quota;
use crate::clock::Wall;

/// The shortest wait that is believed.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// The longest wait that is believed (U32).
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How long to wait, where the headers say so: seconds or a date, within a second and an hour. What cannot be read is the shortest.
pub(super) fn retry_after(headers: &HeaderMap, now: Wall) -> Option<Duration> {
    let text = headers
        .get(RETRY_AFTER)?
        .to_str()
        .unwrap_or_default()
        .trim();
    let asked = if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        // More digits than fit are more than an hour.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text)
            .ok()
            .and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .map_or(WAIT_MIN, |ms| Wall::from_ms(ms).since(now))
    };
    Some(asked.clamp(WAIT_MIN, WAIT_MAX))
}

/// The quota that the headers tell of.
pub(super) fn quota(headers: &HeaderMap) -> Option<Quota> {
    let (limit, window) = counted(headers, "ratelimit-limit")?;
    let (remaining, _) = counted(headers, "ratelimit-remaining")?;
    let source = headers
        .get("docker-ratelimit-source")
        .and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty() && text.len() <= 64)
        .map(str::to_owned);
    Some(Quota {
        limit,
        remaining,
        window,
        source,
    })
}

/// `100;w=21600`
fn counted(headers: &HeaderMap, name: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = headers.get(name)?.to_str().ok()?.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts
        .find_map(|part| part.strip_prefix("w="))
        .and_then(|seconds| seconds.parse().ok())
        .map(Duration::from_secs);
    Some((count, window))
}

#[cfg(test)]
mod tests;
