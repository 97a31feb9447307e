//! Blob bodies: as they come, with an idle time-out and a minimum rate, never a total time-out.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::error::{Error, Kind};
use super::hops::Hops;
use super::send::{Ask, Permits};
use super::{Timeouts, Upstream};
use crate::oci::range::ContentRange;
use crate::oci::{Digest, Name, path};
use crate::telemetry::RepositoryLabels;

/// Which bytes of a blob are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// All.
    Whole,
    /// From an offset to the end.
    From(u64),
    /// From an offset to another, both included.
    FromTo(u64, u64),
}

/// A blob's bytes on their way from upstream. Holds its place among the upstream's connections until dropped.
#[derive(Debug)]
pub struct BlobStream {
    body: Incoming,
    offset: u64,
    total: Option<u64>,
    timeouts: Timeouts,
    window: (Instant, u64),
    bytes: prometheus_client::metrics::counter::Counter,
    _permits: Permits,
}

impl Upstream {
    /// Asks for a blob. An upstream that knows no ranges answers with the whole; then [`BlobStream::offset`] is 0.
    pub async fn get_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        span: Span,
    ) -> Result<BlobStream, Error> {
        let range = match span {
            Span::Whole => None,
            Span::From(start) => Some(format!("bytes={start}-")),
            Span::FromTo(start, end) => Some(format!("bytes={start}-{end}")),
        };
        let url = self.inner.endpoint.url(&path::blob(name, digest), &[]);
        let ask = Ask {
            kind: "blob",
            method: Method::GET,
            url,
            name,
            accept: None,
            range,
            hops,
        };
        let (response, permits) = self.send(&ask).await?;
        let (offset, total) = placed(&response, span)?;
        let labels = RepositoryLabels {
            repository: self.inner.config.key.clone(),
        };
        Ok(BlobStream {
            body: response.into_body(),
            offset,
            total,
            timeouts: self.inner.config.timeouts,
            window: (Instant::now(), 0),
            bytes: self
                .inner
                .metrics
                .upstream_bytes
                .get_or_create(&labels)
                .clone(),
            _permits: permits,
        })
    }
}

/// Where an answer's bytes lie in the blob, and how long that is.
fn placed(response: &http::Response<Incoming>, span: Span) -> Result<(u64, Option<u64>), Error> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok((0, response.body().size_hint().exact()));
    }
    let refuse = || {
        Error::new(
            Kind::BadAnswer,
            "upstream sends another part than was asked for",
        )
        .with_status(206)
    };
    let mut ranges = response.headers().get_all(header::CONTENT_RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Err(refuse());
    };
    let range = range
        .to_str()
        .ok()
        .and_then(ContentRange::parse)
        .ok_or_else(refuse)?;
    let (start, end) = match span {
        Span::Whole => return Err(refuse()),
        Span::From(start) => (start, None),
        Span::FromTo(start, end) => (start, Some(end)),
    };
    let to_end = range.total().is_none_or(|total| range.end() + 1 == total);
    let length = response.body().size_hint().exact();
    let fits = range.start() == start
        && end.map_or(to_end, |end| {
            range.end() == end || (range.end() < end && to_end)
        })
        && length.is_none_or(|length| Some(length) == (range.end() + 1).checked_sub(range.start()));
    if fits {
        Ok((range.start(), range.total()))
    } else {
        Err(refuse())
    }
}

impl BlobStream {
    /// Where the first byte lies in the blob.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The length of the whole blob, where upstream told it.
    pub const fn total(&self) -> Option<u64> {
        self.total
    }

    /// The next bytes; `None` only at an end that the framing calls one.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = tokio::time::timeout(self.timeouts.idle, self.body.frame()).await;
            let frame = frame.map_err(|_elapsed| {
                Error::new(Kind::Timeout, "upstream stalls in the middle of a blob")
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                tracing::debug!(error = super::send::chain(&error), "upstream broke off");
                Error::new(
                    Kind::Unavailable,
                    "upstream broke off in the middle of a blob",
                )
            })?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            self.bytes.inc_by(bytes.len() as u64);
            self.keep_pace(bytes.len() as u64)?;
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// An upstream that drips is as good as stalled.
    fn keep_pace(&mut self, bytes: u64) -> Result<(), Error> {
        let (since, seen) = &mut self.window;
        *seen += bytes;
        let elapsed = since.elapsed();
        if elapsed < self.timeouts.idle {
            return Ok(());
        }
        let least = self.timeouts.min_rate.saturating_mul(elapsed.as_secs());
        let slow = *seen < least;
        self.window = (Instant::now(), 0);
        if slow {
            Err(Error::new(Kind::Timeout, "upstream sends too slowly"))
        } else {
            Ok(())
        }
    }
}
