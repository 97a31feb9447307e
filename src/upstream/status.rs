//! What a status means for the question that was asked (PROTOCOL G, RELIABILITY R12, U31, U32). Pure.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::limits::Class;
use super::quota::retry_after;
use crate::clock::Wall;

/// Lets a 200 pass (and a 206 where a range was asked for); everything else is an error.
pub(super) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    asked: Asked<'_>,
    now: Wall,
) -> Result<(), Error> {
    let Asked {
        class,
        host,
        is_elsewhere,
        is_ranged,
    } = asked;
    let code = status.as_u16();
    let error = |kind, what: &str| Error::new(kind, format!("{host} {what}")).with_status(code);
    let error = match code {
        200 => return whole_and_plain(headers, host).map_err(|error| error.with_status(code)),
        206 if is_ranged => {
            return whole_and_plain(headers, host).map_err(|error| error.with_status(code));
        }
        // A signed link that has run out, or a content network that lags: the registry has just said that it exists.
        400 | 401 | 403 | 404 | 410 if is_elsewhere && class == Class::Blob => {
            error(Kind::Unavailable, "refuses the link that the registry gave")
        }
        404 | 410 => error(Kind::NotFound, "does not have it"),
        401 | 402 | 403 | 451 => error(Kind::Denied, "does not let us read it"),
        429 => error(Kind::RateLimited, "asks us to slow down")
            .with_retry_after(retry_after(headers, now)),
        508 => error(Kind::Loop, "found the request going in circles"),
        408 | 504 => error(Kind::Timeout, &format!("answered {code}"))
            .with_retry_after(retry_after(headers, now)),
        500..=599 => error(Kind::Unavailable, &format!("answered {code}"))
            .with_retry_after(retry_after(headers, now)),
        _ => error(
            Kind::BadAnswer,
            &format!("answered {code}, which is no answer to this"),
        ),
    };
    // That a content network fails says nothing about the registry in front of it.
    Err(if is_elsewhere {
        error.elsewhere()
    } else {
        error
    })
}

/// What was asked, of whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What for.
    pub(super) class: Class,
    /// Who answered.
    pub(super) host: &'a Origin,
    /// Whether that is the target of a redirect.
    pub(super) is_elsewhere: bool,
    /// Whether a part was asked for.
    pub(super) is_ranged: bool,
}

/// Whether a good status comes with a body that may be one (U9, U15, U27).
fn whole_and_plain(headers: &HeaderMap, host: &Origin) -> Result<(), Error> {
    let bad = |what: &str| {
        Err(Error::new(
            Kind::BadAnswer,
            format!("{host} answered with {what}"),
        ))
    };
    let is_plain = headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        value.to_str().is_ok_and(|text| {
            text.trim().is_empty() || text.trim().eq_ignore_ascii_case("identity")
        })
    });
    if !is_plain {
        return bad("an encoded body, where the bytes themselves were asked for");
    }
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        return bad("two contradicting framings");
    }
    let is_page = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next())
        .is_some_and(|text| text.trim().eq_ignore_ascii_case("text/html"));
    if is_page {
        // A captive portal, a login page, an error page that calls itself fine.
        return bad("a web page").map_err(Error::of_outage);
    }
    Ok(())
}
