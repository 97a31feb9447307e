//! The bytes of a blob on their way from upstream, and which answers may begin them (RELIABILITY U10–U14).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::answer::Span;
use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::exchange::Answer;
use super::flow::Flow;
use super::limits::Permit;
use super::meter::Meter;
use super::pace::Pace;
use crate::oci::range::ContentRange;

impl Span {
    /// The value of `Range`.
    pub(super) fn header(self) -> Option<HeaderValue> {
        match self {
            Self::Whole | Self::From(0) => None,
            Self::From(start) => HeaderValue::from_str(&format!("bytes={start}-")).ok(),
            Self::FromTo(start, end) => HeaderValue::from_str(&format!("bytes={start}-{end}")).ok(),
        }
    }
}

/// The bytes of a blob on their way from upstream. Holds its place among the upstream's requests until it is dropped.
#[derive(Debug)]
pub struct BlobStream {
    flow: Flow,
    host: Origin,
    part: Part,
    left: Option<u64>,
    meter: Meter,
    pace: Arc<Pace>,
    /// When more may be read.
    due: Option<Instant>,
    _permit: Permit,
}

/// Which part of a blob an answer brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    offset: u64,
    length: Option<u64>,
    total: Option<u64>,
}

impl BlobStream {
    pub(super) fn new(
        answer: Answer,
        span: Span,
        meter: Meter,
        pace: Arc<Pace>,
    ) -> Result<Self, Error> {
        let part = part(answer.head.status, &answer.head.headers, span)
            .map_err(|what| bad(&answer.host, what))?;
        Ok(Self {
            flow: answer.flow,
            host: answer.host,
            part,
            left: part.length,
            meter,
            pace,
            due: None,
            _permit: answer.permit,
        })
    }

    /// Where in the blob the stream begins; 0 where a range was asked for and the whole came.
    pub const fn offset(&self) -> u64 {
        self.part.offset
    }

    /// The length of the whole blob, where the answer told it.
    pub const fn total(&self) -> Option<u64> {
        self.part.total
    }

    /// The next bytes; `None` only at an end that the framing vouches for and that is where it was announced.
    ///
    /// Fails with [`Kind::Timeout`] after a silence, or when the bytes drip. The time that the caller takes for itself does not count, nor
    /// what the configured bandwidth makes it wait. May be dropped and called again: what came is not lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(due) = self.due {
            self.pace.pause(due).await;
            self.due = None;
        }
        let Some(bytes) = self.flow.next().await? else {
            if self.left.is_some_and(|left| left > 0) {
                let sentence = format!(
                    "{} ended the transfer before its announced length",
                    self.host
                );
                return Err(Error::new(Kind::Unavailable, sentence));
            }
            return Ok(None);
        };
        self.meter.came(bytes.len());
        self.due = self.pace.book(bytes.len());
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| bad(&self.host, "sends more bytes than it announced"))?;
        }
        Ok(Some(bytes))
    }
}

fn bad(host: &Origin, what: &str) -> Error {
    Error::new(Kind::BadAnswer, format!("{host} {what}"))
}

/// The part that an answer brings, if it is one that was asked for.
pub(super) fn part(
    status: StatusCode,
    headers: &HeaderMap,
    span: Span,
) -> Result<Part, &'static str> {
    let length = length(headers);
    if status != StatusCode::PARTIAL_CONTENT {
        return Ok(Part {
            offset: 0,
            length,
            total: length,
        });
    }
    let is_multipart = headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .to_ascii_lowercase()
            .starts_with(b"multipart/")
    });
    if is_multipart {
        return Err("answered with several parts where one was asked for");
    }
    let mut ranges = headers.get_all(CONTENT_RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Err("answered with a part and does not say which");
    };
    let range = range
        .to_str()
        .ok()
        .and_then(ContentRange::parse)
        .ok_or("answered with a part and does not say which")?;
    let (start, end, total) = (range.start(), range.end(), range.total());
    let last = total.and_then(|total| total.checked_sub(1));
    let fits = match span {
        Span::Whole => false,
        // An open end must be the blob's end, where that is known.
        Span::From(from) => start == from && last.is_none_or(|last| end == last),
        Span::FromTo(from, to) => {
            start == from && end == last.map_or(end.min(to), |last| last.min(to))
        }
    };
    let bytes = (end - start)
        .checked_add(1)
        .ok_or("answered with an endless part")?;
    if !fits || length.is_some_and(|length| length != bytes) {
        return Err("answered with another part than was asked for");
    }
    Ok(Part {
        offset: start,
        length: Some(bytes),
        total,
    })
}

/// `Content-Length`, where it is a number.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
