//! Loops between mirrors, by `CDN-Loop` (RFC 8586): every request upstream carries who it has come through.

use std::sync::Arc;

use http::HeaderMap;

/// The header of RFC 8586.
pub(super) const CDN_LOOP: &str = "cdn-loop";
/// More mirrors in a row than this are taken for a loop that hides its names.
pub(super) const HOPS_MAX: usize = 8;

/// Whom a request has come through before us.
#[derive(Debug, Clone, Default)]
pub struct Hops(Option<Arc<str>>);

impl Hops {
    /// A request of our own.
    pub const fn none() -> Self {
        Self(None)
    }

    /// From a client's request.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let chain: Vec<&str> = headers
            .get_all(CDN_LOOP)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        Self((!chain.is_empty()).then(|| chain.join(", ").into()))
    }

    /// Whether `instance` has seen this request before, or too many mirrors have.
    pub fn is_loop(&self, instance: &str) -> bool {
        let Some(chain) = &self.0 else { return false };
        let mut hops = chain
            .split(',')
            .map(|hop| hop.split(';').next().unwrap_or_default().trim());
        hops.clone().count() >= HOPS_MAX || hops.any(|hop| hop.eq_ignore_ascii_case(instance))
    }

    /// The header for the request that goes on.
    pub(super) fn extended(&self, instance: &str) -> String {
        self.0.as_ref().map_or_else(
            || instance.to_owned(),
            |chain| format!("{chain}, {instance}"),
        )
    }
}
