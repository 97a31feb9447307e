//! Which requests are let in at all. Pure: bytes or heads in, a verdict out.
//!
//! hyper refuses most ambiguous framing, but is lenient where another reader of the same bytes may not be: it lets
//! `Transfer-Encoding` win over `Content-Length`, takes bare LF, several `Host`s, whitespace in chunk sizes, and any target in absolute
//! form. So every HTTP/1 head is read here first, strictly (RFC 9112), and hyper only ever sees heads with one meaning.
//! [`request`] holds what is asked of every version. Cases: RELIABILITY 5.1 (H1–H24, H36) and 5.2 (F8, F9).

use http::header::{EXPECT, HOST};
use http::{Method, Version, request::Parts};

use super::refusal::Refusal;

/// Caps on a head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    /// Bytes of the request line.
    pub line: usize,
    /// Bytes behind it.
    pub headers: usize,
    /// Header lines.
    pub count: usize,
}

/// How the body behind a head ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

const METHOD_MAX: usize = 20;

/// Where the head ends that `bytes` begin with, looking from `from` on. An end with bare LFs counts, so that it is refused at once
/// rather than when the time is up.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3);
    let tail = bytes.get(from..)?;
    tail.iter().enumerate().find_map(|(at, byte)| {
        if *byte != b'\n' {
            return None;
        }
        match tail.get(at + 1..) {
            Some([b'\n', ..]) => Some(from + at + 2),
            Some([b'\r', b'\n', ..]) => Some(from + at + 3),
            _ => None,
        }
    })
}

/// What can be said against a head that is not all here.
pub(super) fn partial(bytes: &[u8], caps: Caps) -> Result<(), Refusal> {
    if bytes
        .first()
        .is_some_and(|byte| !byte.is_ascii_alphabetic())
    {
        return Err(Refusal::Malformed("this is not an HTTP request"));
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(line) if line > caps.line => Err(Refusal::TargetTooLong),
        Some(line) if bytes.len() - line > caps.headers => Err(Refusal::HeadTooLarge),
        None if bytes.len() > caps.line => Err(Refusal::TargetTooLong),
        _ => Ok(()),
    }
}

/// Reads a whole head, its closing empty line included.
pub(super) fn head(bytes: &[u8], caps: Caps) -> Result<Framing, Refusal> {
    partial(bytes, caps)?;
    let mut lines = Lines(bytes);
    let line = lines.next().ok_or(LINE_ENDS)?;
    let (http_11, authority) = request_line(line.map_err(|()| LINE_ENDS)?)?;

    let mut count = 0;
    let mut host = None;
    let mut length = None;
    let mut chunked = false;
    for line in lines {
        let line = line.map_err(|()| LINE_ENDS)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > caps.count {
            return Err(Refusal::HeadTooLarge);
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"host") {
            if host.replace(value).is_some() {
                return Err(Refusal::Malformed("more than one Host"));
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(Refusal::Malformed("more than one Content-Length"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Malformed("Transfer-Encoding can only be chunked"));
            }
            chunked = true;
        }
    }

    match host {
        Some(host) if !is_host(host) => return Err(Refusal::Malformed("Host is not valid")),
        None if http_11 => return Err(Refusal::Malformed("no Host")),
        _ => {}
    }
    if let Some(authority) = authority
        && !host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
    {
        return Err(Refusal::Malformed("the target's authority is not the Host"));
    }
    match (chunked, length) {
        (true, _) if !http_11 => Err(Refusal::Malformed("Transfer-Encoding in HTTP/1.0")),
        (true, Some(_)) => Err(Refusal::Malformed(
            "both Transfer-Encoding and Content-Length",
        )),
        (true, None) => Ok(Framing::Chunked),
        (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

const LINE_ENDS: Refusal =
    Refusal::Malformed("lines of the head must end in CRLF and hold neither");

/// Lines without their CRLF; an error where a CR or LF stands alone.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let split = end.and_then(|end| self.0.split_at_checked(end));
        let Some((line, [b'\r', b'\n', rest @ ..])) = split else {
            self.0 = &[];
            return Some(Err(()));
        };
        self.0 = rest;
        Some(Ok(line))
    }
}

/// Version 1.1, and the authority of a target in absolute form.
fn request_line(line: &[u8]) -> Result<(bool, Option<&[u8]>), Refusal> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::Malformed("not a request line"));
    };
    self::method(method)?;
    let http_11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(Refusal::Version),
        _ => return Err(Refusal::Malformed("not a request line")),
    };
    if matches!(method, b"CONNECT" | b"TRACE") {
        return Err(Refusal::Method);
    }
    if !target.iter().copied().all(is_target_byte) {
        return Err(Refusal::Malformed(
            "the target has characters that no URL has",
        ));
    }
    let authority = match target {
        [b'/', ..] => None,
        _ => Some(authority(target).ok_or(Refusal::Malformed("the target is not a path"))?),
    };
    Ok((http_11, authority))
}

fn method(method: &[u8]) -> Result<(), Refusal> {
    let valid = (1..=METHOD_MAX).contains(&method.len())
        && method
            .iter()
            .all(|byte| byte.is_ascii_alphabetic() || *byte == b'-');
    if valid {
        Ok(())
    } else {
        Err(Refusal::Malformed("not a method"))
    }
}

fn is_target_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
}

/// The authority of `http://authority/…`.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then_some(rest)
    })?;
    rest.split(|byte| matches!(byte, b'/' | b'?')).next()
}

fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::Malformed("folded header line"));
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let Some((name, [_, value @ ..])) = colon.and_then(|at| line.split_at_checked(at)) else {
        return Err(Refusal::Malformed("header line without a colon"));
    };
    if name.is_empty() || !name.iter().copied().all(is_token_byte) {
        return Err(Refusal::Malformed("not a header name"));
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(Refusal::Malformed(
            "header value with bytes that are not ASCII text",
        ));
    }
    Ok((name, value.trim_ascii()))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value)
        .ok()
        .filter(|_| digits)
        .and_then(|digits| digits.parse::<u64>().ok())
        .ok_or(Refusal::Malformed("Content-Length is not a length"))
}

/// `name`, `name:port`, `[v6]`, `[v6]:port`: no path, no user.
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let Some((address, [_, port @ ..])) = rest.split_at_checked(end) else {
            return false;
        };
        if !address
            .iter()
            .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        {
            return false;
        }
        (address, port)
    } else {
        let end = host.iter().position(|byte| *byte == b':');
        let (name, port) = host.split_at(end.unwrap_or(host.len()));
        if !name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        {
            return false;
        }
        (name, port)
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits
                    .iter()
                    .fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'))
                    <= 65_535
        }
        _ => false,
    };
    !name.is_empty() && port_fits
}

/// What is asked of a parsed request of any version. HTTP/2's own framing is h2's to check.
pub(super) fn request(parts: &Parts, caps: Caps) -> Result<(), Refusal> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Refusal::Method);
    }
    let expects = parts.headers.get_all(EXPECT);
    if expects
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Refusal::Expectation);
    }
    if parts.version < Version::HTTP_2 {
        return Ok(());
    }
    method(parts.method.as_str().as_bytes())?;
    if parts.headers.len() > caps.count {
        return Err(Refusal::HeadTooLarge);
    }
    let values_fit = parts
        .headers
        .values()
        .all(|value| value.as_bytes().iter().copied().all(is_value_byte));
    if !values_fit {
        return Err(Refusal::Malformed(
            "header value with bytes that are not ASCII text",
        ));
    }
    let target = parts
        .uri
        .path_and_query()
        .map(|target| target.as_str().as_bytes())
        .unwrap_or_default();
    if target.len() > caps.line {
        return Err(Refusal::TargetTooLong);
    }
    if target.first() != Some(&b'/') || !target.iter().copied().all(is_target_byte) {
        return Err(Refusal::Malformed("the target is not a path"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    let authority = parts.uri.authority().map(|name| name.as_str().as_bytes());
    match (host, hosts.next(), authority) {
        (_, Some(_), _) => Err(Refusal::Malformed("more than one Host")),
        (None, None, None) => Err(Refusal::Malformed("no Host")),
        (Some(host), None, Some(name)) if !host.eq_ignore_ascii_case(name) => {
            Err(Refusal::Malformed("the target's authority is not the Host"))
        }
        (_, _, Some(host)) | (Some(host), _, None) if is_host(host) => Ok(()),
        _ => Err(Refusal::Malformed("Host is not valid")),
    }
}
