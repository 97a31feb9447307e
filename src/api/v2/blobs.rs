//! `GET` and `HEAD /v2/<name>/blobs/<digest>`, with ranges (RFC 9110, 14).

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Call, respond};
use crate::body::Body;
use crate::cache::{HOLD_BACK, OpenBlob, Promise};
use crate::oci::media_type::OCTET_STREAM;
use crate::oci::range::{ByteRange, ContentRange, RangeHeader, RangeSpec, Resolved};
use crate::oci::{Digest, ErrorCode, Name, Reference};
use crate::overlay;
use crate::repository::records::{Asked, Records};
use crate::repository::{Key, Repository};

pub(super) async fn blob(
    call: &Call<'_>,
    (repository, may_push, records): (&Repository, bool, &Records),
    name: &Name,
    digest: &Digest,
    record: &mut Record,
) -> Result<Response<Body>, ApiError> {
    let who = call.identity.shown();
    let client = record.client();
    let reference = Reference::Digest(digest.clone());
    let asked = Asked {
        repository: repository.key(),
        image: name,
        reference: &reference,
        is_blob: true,
        who: &who,
        client: &client,
    };
    let failed = |error| {
        records.missed(&asked, &error);
        ApiError::from_repository(error, ErrorCode::BlobUnknown)
    };
    if *call.method == Method::HEAD {
        let found = repository.stat_blob(&call.hops, name, digest).await;
        let found = found.map_err(|error| {
            // Clients ask so before they push, and give up at anything but yes and no (ADR 8).
            let is_question_of_a_push = may_push
                && matches!(repository, Repository::Virtual(_))
                && repository.writable(name).is_some();
            if !is_question_of_a_push {
                return failed(error);
            }
            // Nobody lacks what is about to be pushed.
            if error.is_outage() {
                ApiError::from_overlay(overlay::Error::BlobUnknown)
            } else {
                ApiError::from_repository(error, ErrorCode::BlobUnknown)
            }
        })?;
        let (size, status) = record.note_found(found);
        let mut response = Response::new(Body::empty());
        respond::cache(response.headers_mut(), status, record);
        describe(response.headers_mut(), digest);
        if respond::not_modified(call.headers, digest) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else if let Some(size) = size {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        }
        return Ok(response);
    }
    // A client that has it already is told so without a download.
    if respond::not_modified(call.headers, digest) {
        let found = repository
            .stat_blob(&call.hops, name, digest)
            .await
            .map_err(failed)?;
        let (_size, status) = record.note_found(found);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        respond::cache(response.headers_mut(), status, record);
        describe(response.headers_mut(), digest);
        return Ok(response);
    }
    let found = repository
        .open_blob(&call.hops, name, digest)
        .await
        .map_err(failed)?;
    let open = record.note_found(found);
    let member = record.member().map_or(asked.repository, Key::as_str);
    records.served(&asked, (&call.there, member), digest, None);
    let range = call
        .headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok())
        .filter(|_| respond::range_counts(call.headers, digest))
        .and_then(RangeHeader::parse);
    match (range, open.size()) {
        (Some(asked), Some(size)) => match asked.resolve(size) {
            Resolved::Whole => Ok(whole(&open, digest, record)),
            Resolved::Unsatisfiable => Err(ApiError::unsatisfiable(size, open.status())),
            Resolved::Ranges(ranges) => Ok(parts(&open, digest, &asked, &ranges, size, record)),
        },
        _ => Ok(whole(&open, digest, record)),
    }
}

fn whole(open: &OpenBlob, digest: &Digest, record: &mut Record) -> Response<Body> {
    let mut response = Response::new(Body::stream(
        open.read(0, open.size(), Promise::ToEnd),
        open.size(),
    ));
    let headers = response.headers_mut();
    respond::cache(headers, open.status(), record);
    describe(headers, digest);
    if let Some(size) = open.size() {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    }
    response
}

/// 206: one part as it is, several as `multipart/byteranges`.
fn parts(
    open: &OpenBlob,
    digest: &Digest,
    asked: &RangeHeader,
    ranges: &[ByteRange],
    size: u64,
    record: &mut Record,
) -> Response<Body> {
    // An open-ended range promises everything up to the end, as a 200 does; what is bounded promises nothing of the whole (DECISIONS 6).
    let open_ended = asked
        .specs()
        .iter()
        .any(|spec| matches!(spec, RangeSpec::From(_)));
    let covered: u64 = ranges.iter().map(|range| range.len()).sum();
    let to_end = open_ended || covered >= size;
    let promise = if to_end {
        Promise::ToEnd
    } else {
        Promise::Slice
    };
    let unverified = promise == Promise::Slice && !open.is_verified() && size > HOLD_BACK;
    let status = if unverified {
        open.status().unverified()
    } else {
        open.status()
    };
    let mut response = match ranges {
        [range] => {
            let mut response = Response::new(Body::stream(
                open.read(range.start(), Some(range.end() + 1), promise),
                Some(range.len()),
            ));
            describe(response.headers_mut(), digest);
            if let Some(content) = ContentRange::new(*range, Some(size)) {
                respond::set(
                    response.headers_mut(),
                    header::CONTENT_RANGE,
                    &content.to_string(),
                );
            }
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(range.len()));
            response
        }
        several => multipart(open, digest, several, size, promise),
    };
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    respond::cache(response.headers_mut(), status, record);
    response
}

fn multipart(
    open: &OpenBlob,
    digest: &Digest,
    ranges: &[ByteRange],
    size: u64,
    promise: Promise,
) -> Response<Body> {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let mut length = 0;
    let mut pieces = Vec::new();
    for (number, range) in ranges.iter().enumerate() {
        let content = ContentRange::new(*range, Some(size))
            .map(|content| content.to_string())
            .unwrap_or_default();
        let line = if number == 0 { "" } else { "\r\n" };
        let head = Bytes::from(format!(
            "{line}--{boundary}\r\nContent-Type: {OCTET_STREAM}\r\nContent-Range: {content}\r\n\r\n"
        ));
        length += head.len() as u64 + range.len();
        let body = open.read(range.start(), Some(range.end() + 1), promise);
        pieces.push(stream::iter([Ok(head)]).chain(body).boxed());
    }
    let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    length += end.len() as u64;
    pieces.push(stream::iter([Ok(end)]).boxed());
    let mut response = Response::new(Body::stream(stream::iter(pieces).flatten(), Some(length)));
    describe(response.headers_mut(), digest);
    respond::set(
        response.headers_mut(),
        header::CONTENT_TYPE,
        &format!("multipart/byteranges; boundary={boundary}"),
    );
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn describe(headers: &mut HeaderMap, digest: &Digest) {
    respond::digest(headers, digest);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCTET_STREAM));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, respond::IMMUTABLE);
}
