//! Where a redirect leads, and whether it is followed (RELIABILITY R1–R4, R7, R8, R10–R12).
//!
//! Pure. Which address the target has is judged at connect.

use std::collections::HashSet;

use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::endpoint::{Origin, parse};
use super::error::{Error, Kind};

/// The most redirects that one request follows.
pub(super) const REDIRECTS_MAX: usize = 5;

/// Whether the status is one that is followed. 300, 304, 305 and 306 are not: to an unconditional request they are no answer.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The way that one request has taken.
#[derive(Debug)]
pub(super) struct Trail {
    own: Origin,
    at: Url,
    origin: Origin,
    seen: HashSet<Url>,
    has_left: bool,
}

impl Trail {
    /// Starts at a URL of the upstream itself.
    pub(super) fn new(own: Origin, start: Url) -> Self {
        Self {
            origin: own.clone(),
            own,
            seen: HashSet::from([start.clone()]),
            at: start,
            has_left: false,
        }
    }

    /// Starts at a URL that somebody else has named: nothing on this trail may carry our credentials, wherever it leads.
    pub(super) fn elsewhere(own: Origin, start: Url, origin: Origin) -> Self {
        Self {
            has_left: true,
            origin,
            ..Self::new(own, start)
        }
    }

    /// Where the next request goes.
    pub(super) const fn url(&self) -> &Url {
        &self.at
    }

    /// The same, without path and query.
    pub(super) const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the next request goes to the upstream itself.
    pub(super) fn is_own(&self) -> bool {
        self.origin == self.own
    }

    /// Whether the next request may carry our credentials: never once the trail has led elsewhere, not even back home.
    pub(super) const fn may_authorise(&self) -> bool {
        !self.has_left
    }

    /// Goes on to what `headers` point to.
    pub(super) fn follow(&mut self, headers: &HeaderMap) -> Result<(), Error> {
        let host = self.origin.clone();
        let refused = |why: &str| Error::new(Kind::BadAnswer, format!("{host} redirects {why}"));
        if self.seen.len() > REDIRECTS_MAX {
            return Err(refused("too often"));
        }
        let mut locations = headers.get_all(LOCATION).iter();
        let (Some(location), None) = (locations.next(), locations.next()) else {
            return Err(refused("to nowhere, or to two places at once"));
        };
        let target = location
            .to_str()
            .ok()
            .and_then(|text| parse(text, Some(&self.at)).ok())
            .ok_or_else(|| refused("to something that is no URL to follow"))?;
        let origin = Origin::of(&target).ok_or_else(|| refused("to no host"))?;
        if self.origin.is_https() && !origin.is_https() {
            return Err(refused(&format!("from TLS to cleartext at {origin}")));
        }
        if !self.seen.insert(target.clone()) {
            return Err(refused("in a circle"));
        }
        self.has_left |= origin != self.own;
        self.at = target;
        self.origin = origin;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
