//! Which caches a request has come through (`CDN-Loop`, RFC 8586).

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header; `http` has no constant for it.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// More hops than this are a loop whatever they are called.
const HOPS_MAX: usize = 16;
/// More bytes than this are one too.
const BYTES_MAX: usize = 4096;

/// The chain of caches that a request has come through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hops {
    ids: Vec<Box<str>>,
    endless: bool,
}

impl Hops {
    /// A request of our own.
    pub fn none() -> Self {
        Self::default()
    }

    /// The chain that a request's headers tell of.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut hops = Self::none();
        let mut bytes = 0;
        for value in headers.get_all(CDN_LOOP) {
            bytes += value.len();
            let Ok(value) = value.to_str() else { continue };
            for id in value.split(',').filter_map(id_of) {
                if hops.ids.len() == HOPS_MAX || bytes > BYTES_MAX {
                    hops.endless = true;
                    return hops;
                }
                hops.ids.push(id.into());
            }
        }
        hops
    }

    /// Whether the request has been at `instance` before, or has come through too many caches to tell.
    pub fn contains(&self, instance: &str) -> bool {
        self.endless || self.ids.iter().any(|id| id.eq_ignore_ascii_case(instance))
    }

    /// The header of a request that `instance` passes on.
    pub(super) fn passed_on(&self, instance: &str) -> Option<HeaderValue> {
        let mut chain = self.ids.join(", ");
        if !chain.is_empty() {
            chain.push_str(", ");
        }
        chain.push_str(instance);
        HeaderValue::from_str(&chain).ok()
    }
}

/// Whether `text` is a token (RFC 9110, 5.6.2) of reasonable length.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
        })
}

/// The id of one list member, without its parameters. An id is a token or a host with a port.
fn id_of(member: &str) -> Option<&str> {
    let id = member.split(';').next().unwrap_or_default().trim();
    let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\');
    (!id.is_empty() && id.len() <= 255 && id.bytes().all(fits)).then_some(id)
}

#[cfg(test)]
mod tests;
