//! Where an upload goes on, and how far it has come, out of the headers of an answer. Pure.

use http::HeaderMap;
use http::header::{HeaderName, LOCATION, RANGE};
use url::Url;

use crate::upstream::endpoint::{Origin, parse};
use crate::upstream::error::{Error, Kind};

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Where the upload goes on; `None` where the answer does not say.
///
/// A registry behind a proxy that ends TLS often calls itself by `http://`: on the upstream's own host that means the upstream as configured.
/// To any other host TLS is not given up.
pub(super) fn location(
    own: &Origin,
    asked: &Url,
    headers: &HeaderMap,
) -> Result<Option<Url>, Error> {
    let refused = |why: &str| Error::new(Kind::BadAnswer, format!("{own} sends the upload {why}"));
    let mut locations = headers.get_all(LOCATION).iter();
    let Some(location) = locations.next() else {
        return Ok(None);
    };
    if locations.next().is_some() {
        return Err(refused("to two places at once"));
    }
    let target = location
        .to_str()
        .ok()
        .and_then(|text| parse(text, Some(asked)).ok());
    let mut target = target.ok_or_else(|| refused("to something that is no URL"))?;
    let origin = Origin::of(&target).ok_or_else(|| refused("to no host"))?;
    if own.is_https() && !origin.is_https() {
        let is_own_host = origin.host() == own.host();
        let is_own_port = origin.port() == own.port() || origin.port() == 80;
        let port = (own.port() != 443).then_some(own.port());
        let is_mended = is_own_host
            && is_own_port
            && target.set_scheme("https").is_ok()
            && target.set_port(port).is_ok();
        if !is_mended {
            return Err(refused(&format!("from TLS to cleartext at {origin}")));
        }
    }
    Ok(Some(target))
}

/// How many bytes the registry has: `Range: 0-N` is N + 1. `0-0` is what registries say of nothing, and of one byte, which nobody sends.
pub(super) fn taken(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (start, end) = text.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if start != "0" || !is_number(end) {
        return None;
    }
    match end.parse().ok()? {
        0 => Some(0),
        end => u64::checked_add(end, 1),
    }
}

/// How many bytes a chunk must have at least, where the registry says so.
pub(super) fn chunk_min(headers: &HeaderMap) -> Option<usize> {
    headers.get(CHUNK_MIN_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(own: &str, location_header: &str) -> Result<Option<String>, String> {
        let own = Origin::of(&parse(own, None).unwrap()).unwrap();
        let asked = parse(&format!("{own}/v2/a/blobs/uploads/"), None)
            .or_else(|_| parse(&format!("https://{own}/v2/a/blobs/uploads/"), None))
            .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location_header.parse().unwrap());
        let found = location(&own, &asked, &headers);
        found
            .map(|url| url.map(|url| url.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn locations() {
        let own = "https://r.example";
        for (text, expected) in [
            (
                "/v2/a/blobs/uploads/1?_state=x",
                "https://r.example/v2/a/blobs/uploads/1?_state=x",
            ),
            ("1", "https://r.example/v2/a/blobs/uploads/1"),
            ("https://r.example/u", "https://r.example/u"),
            ("http://r.example/u", "https://r.example/u"),
            ("http://r.example:443/u", "https://r.example/u"),
            ("https://s.example/u", "https://s.example/u"),
        ] {
            assert_eq!(at(own, text).unwrap().as_deref(), Some(expected), "{text}");
        }
        assert_eq!(
            at("https://r.example:5000", "http://r.example:5000/u")
                .unwrap()
                .as_deref(),
            Some("https://r.example:5000/u")
        );
        for text in [
            "http://s.example/u",
            "http://r.example:8080/u",
            "ftp://r.example/",
            "https://me@r.example/",
            "https://",
            "a b",
        ] {
            assert!(at(own, text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges() {
        for (text, expected) in [
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("0-0", Some(0)),
            ("1-9", None),
            ("0--1", None),
            ("0-+1", None),
            ("9", None),
            ("", None),
            ("0-18446744073709551615", None),
            ("0-99999999999999999999", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            assert_eq!(taken(&headers), expected, "{text}");
        }
    }
}
