//! Pushing blobs: `/v2/<name>/blobs/uploads/…` (distribution-spec, "Pushing Blobs"; Docker Registry HTTP API V2, "Initiate Blob Upload").

use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::super::error::ApiError;
use super::super::{Api, Call, respond};
use super::parse_digest;
use crate::auth::Right;
use crate::body::{Body, Chunks};
use crate::oci::range::{ByteRange, ContentRange};
use crate::oci::{Algorithm, Digest, ErrorCode, Name};
use crate::overlay::{Error, Local, Offer};
use crate::repository::Chosen;

/// What clients that send chunks are asked to send at least at a time.
const CHUNK_MIN: HeaderValue = HeaderValue::from_static("1048576");

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// `POST …/blobs/uploads/`: a session, a whole blob, or a mount.
pub(super) async fn start(
    api: &Api,
    call: &Call<'_>,
    chosen: &Chosen<'_>,
    (local, name): (&Local, &Name),
    body: Chunks,
) -> Result<Response<Body>, ApiError> {
    if *call.method != Method::POST {
        return Err(ApiError::method("POST"));
    }
    if let Some(mounted) = call.query("mount") {
        let digest = parse_digest(mounted)?;
        if mount(api, call, chosen, (local, name), &digest).await? {
            return Ok(created(call, &digest));
        }
    }
    let algorithm = match call.query("digest-algorithm") {
        None | Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(_) => {
            let sentence = "digest-algorithm is sha256 or sha512";
            return Err(ApiError::invalid(ErrorCode::DigestInvalid, sentence));
        }
    };
    let Some(digest) = call.query("digest") else {
        let id = local
            .open_upload(name, call.identity.subject(), algorithm)
            .await
            .map_err(ApiError::from_overlay)?;
        let mut response = held(call, StatusCode::ACCEPTED, &id, 0);
        response.headers_mut().insert(CHUNK_MIN_LENGTH, CHUNK_MIN);
        return Ok(response);
    };
    let digest = parse_digest(digest)?;
    let failed = ApiError::from_overlay;
    let id = local
        .open_upload(name, call.identity.subject(), digest.algorithm())
        .await
        .map_err(failed)?;
    let offer = Offer {
        range: None,
        length: length(call)?,
    };
    let finished = local
        .finish((name, call.identity.subject(), &id), &digest, &offer, body)
        .await;
    if let Err(error) = finished {
        // There is no session that the client knows of. One that cannot be cancelled has ended.
        let _ended = local.cancel(name, call.identity.subject(), &id).await;
        return Err(failed(error));
    }
    Ok(created(call, &digest))
}

/// Whether the blob is this image's now. What cannot be mounted, for whatever reason, becomes a session.
async fn mount(
    api: &Api,
    call: &Call<'_>,
    chosen: &Chosen<'_>,
    (local, name): (&Local, &Name),
    digest: &Digest,
) -> Result<bool, ApiError> {
    let mut sources = Vec::new();
    match call.query("from") {
        Some(from) => {
            if let Ok(target) = call.resolve(chosen, from)
                && let Ok(repository) = call.repository(&target.key)
                && api.may(call, target.key.as_str(), target.name.as_str(), Right::Pull)
                && let Some(source) = repository.writable(&target.name)
            {
                sources.push((source.clone(), target.name));
            }
        }
        None => {
            for (key, image) in local
                .holders(digest)
                .await
                .map_err(ApiError::from_overlay)?
            {
                if let (Some(source), Ok(image)) = (call.there.local(&key), Name::parse(&image))
                    && api.may(call, &key, image.as_str(), Right::Pull)
                {
                    sources.push((source.clone(), image));
                }
            }
        }
    }
    for (source, from) in &sources {
        let mounted = local.mount(name, digest, (source, from)).await;
        if mounted.map_err(ApiError::from_overlay)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `PATCH`, `PUT`, `GET`, `DELETE …/blobs/uploads/<id>`.
pub(super) async fn go_on(
    call: &Call<'_>,
    (local, name): (&Local, &Name),
    id: &str,
    body: Chunks,
) -> Result<Response<Body>, ApiError> {
    let session = (name, call.identity.subject(), id);
    let failed = |error| refused(call, id, error);
    match call.method.as_str() {
        "PATCH" => {
            let held_now = local
                .append(session, &offer(call)?, body)
                .await
                .map_err(failed)?;
            Ok(held(call, StatusCode::ACCEPTED, id, held_now))
        }
        "PUT" => {
            let mut digests = call.query.iter().filter(|(key, _)| key == "digest");
            let (Some((_, digest)), None) = (digests.next(), digests.next()) else {
                let sentence = "the digest of the whole blob is needed, once: ?digest=sha256:…";
                return Err(ApiError::invalid(ErrorCode::DigestInvalid, sentence));
            };
            let digest = parse_digest(digest)?;
            local
                .finish(session, &digest, &offer(call)?, body)
                .await
                .map_err(failed)?;
            Ok(created(call, &digest))
        }
        "GET" | "HEAD" => {
            let held_now = local
                .upload_held(name, call.identity.subject(), id)
                .map_err(failed)?;
            Ok(held(call, StatusCode::NO_CONTENT, id, held_now))
        }
        "DELETE" => {
            local
                .cancel(name, call.identity.subject(), id)
                .await
                .map_err(failed)?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        _ => Err(ApiError::method("GET, PATCH, PUT, DELETE")),
    }
}

/// What the client says of its body.
fn offer(call: &Call<'_>) -> Result<Offer, ApiError> {
    let range = match call.headers.get(header::CONTENT_RANGE) {
        None => None,
        Some(value) => {
            let range = value.to_str().ok().and_then(content_range);
            let sentence = "Content-Range is <first byte>-<last byte>";
            Some(range.ok_or_else(|| ApiError::invalid(ErrorCode::RangeInvalid, sentence))?)
        }
    };
    Ok(Offer {
        range,
        length: length(call)?,
    })
}

/// `0-9`, as the specification has it, or `bytes 0-9/10`, as HTTP has it.
fn content_range(text: &str) -> Option<ByteRange> {
    if let Some(range) = ContentRange::parse(text) {
        return Some(range.range());
    }
    let (start, end) = text.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    ByteRange::new(number(start)?, number(end)?)
}

fn length(call: &Call<'_>) -> Result<Option<u64>, ApiError> {
    let Some(value) = call.headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || ApiError::invalid(ErrorCode::SizeInvalid, "Content-Length is no length");
    length.map(Some).ok_or_else(wrong)
}

/// How far an upload is.
fn held(call: &Call<'_>, status: StatusCode, id: &str, held: u64) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    progress(response.headers_mut(), call, id, held);
    if status == StatusCode::ACCEPTED {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    }
    response
}

/// A path that leads to the repository that the client chose: where `ns` chose it, with that.
pub(super) fn namespaced(call: &Call<'_>, path: String) -> String {
    let Some(namespace) = call.query("ns") else {
        return path;
    };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    format!("{path}?{}", query.append_pair("ns", namespace).finish())
}

fn progress(headers: &mut http::HeaderMap, call: &Call<'_>, id: &str, held: u64) {
    let uploads = call
        .path
        .rfind("/blobs/uploads")
        .and_then(|end| call.path.get(..end))
        .unwrap_or_default();
    let location = namespaced(call, format!("{uploads}/blobs/uploads/{id}"));
    respond::set(headers, header::LOCATION, &location);
    respond::set(headers, UPLOAD_UUID, id);
    // Nothing held reads the same as one byte held; clients know only this form.
    respond::set(
        headers,
        header::RANGE,
        &format!("0-{}", held.saturating_sub(1)),
    );
}

/// An upload that did not take what it was offered says where it stands.
fn refused(call: &Call<'_>, id: &str, error: Error) -> ApiError {
    if let Error::OutOfOrder { held } | Error::UploadBusy { held } = error {
        let answer = ApiError::from_overlay(error);
        answer.with_headers(|headers| progress(headers, call, id, held))
    } else {
        ApiError::from_overlay(error)
    }
}

/// The blob is there.
fn created(call: &Call<'_>, digest: &Digest) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let image = call
        .path
        .rfind("/blobs/uploads")
        .and_then(|end| call.path.get(..end))
        .unwrap_or_default();
    let headers = response.headers_mut();
    let location = namespaced(call, format!("{image}/blobs/{digest}"));
    respond::set(headers, header::LOCATION, &location);
    respond::digest(headers, digest);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    response
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges_as_clients_write_them() {
        let read = |text| content_range(text).map(|range| (range.start(), range.end()));
        assert_eq!(read("0-9"), Some((0, 9)));
        assert_eq!(read("10-10"), Some((10, 10)));
        assert_eq!(read("bytes 0-9/10"), Some((0, 9)));
        for bad in [
            "",
            "-",
            "5-4",
            "a-b",
            "0-",
            "-9",
            "+1-2",
            "0-9 ",
            "0-99999999999999999999",
            "bytes=0-9",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
