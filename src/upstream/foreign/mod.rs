//! Foreign layers: which of the URLs that manifests name may be asked.
//!
//! Pure. A manifest is anybody's word, so a URL of one is asked only where the configuration lets it ([`ForeignLayers`]), and what comes
//! out ([`ForeignUrl`]) has no place for a login: neither in the URL nor beside it (RELIABILITY P29, U23, CVE-2020-15157). Which address
//! it leads to is judged at connect.

mod fetch;

use std::fmt;

use url::Url;

use super::endpoint::{Origin, parse};
use crate::oci::ant::{Glob, Pattern, PatternError};

pub(super) use fetch::Fetcher;

/// How many URLs of one layer are tried.
const URLS_MAX: usize = 8;

/// The URLs that layers are fetched from: those that one of the patterns fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignLayers(Vec<UrlPattern>);

impl ForeignLayers {
    /// What these patterns fit.
    pub const fn new(patterns: Vec<UrlPattern>) -> Self {
        Self(patterns)
    }

    /// Whether nothing fits.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a descriptor's `urls` that may be asked, in their order, the first few.
    pub fn admit(&self, urls: &[String]) -> Vec<ForeignUrl> {
        let mut admitted: Vec<ForeignUrl> = Vec::new();
        for text in urls {
            let Ok(url) = parse(text, None) else { continue };
            let Some(origin) = Origin::of(&url) else {
                continue;
            };
            let known = |known: &ForeignUrl| known.url == url;
            if self.0.iter().any(|pattern| pattern.fits(&url)) && !admitted.iter().any(known) {
                admitted.push(ForeignUrl { url, origin });
            }
            if admitted.len() == URLS_MAX {
                break;
            }
        }
        admitted
    }
}

/// A URL of a manifest that may be asked: `http` or `https`, no user name, let through by [`ForeignLayers`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ForeignUrl {
    url: Url,
    origin: Origin,
}

/// The host alone: a query may be a signature.
impl fmt::Display for ForeignUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.origin, f)
    }
}

impl fmt::Debug for ForeignUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.origin, f)
    }
}

/// An Ant pattern for URLs: `**/mcr.microsoft.com/**`, `https://*.example.com/layers/**`.
///
/// Artifactory fits such a pattern to the text of the URL, where `**/mcr.microsoft.com/**` is fit by
/// `https://evil.example/mcr.microsoft.com/x` as well. Whoever writes it means a host, so here the first segment that is not `**` is the
/// host's, and what `**` stands for before it is the scheme and nothing else. Query and fragment are not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPattern {
    scheme: Glob,
    /// `None`: any host with any path.
    place: Option<(Glob, Pattern)>,
}

/// Why a text is no pattern for URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlPatternError {
    /// Not a pattern at all.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Neither `**` nor a scheme at its beginning: it would fit no URL.
    #[error("begins neither with `**` nor with `https://`, so that it fits no URL")]
    Start,
    /// A scheme that no layer is fetched by.
    #[error("has a scheme that is neither http nor https")]
    Scheme,
    /// A character that stands in no URL.
    #[error("has a character that stands in no URL")]
    Character,
}

impl UrlPattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Self, UrlPatternError> {
        if !text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'@'))
        {
            return Err(UrlPatternError::Character);
        }
        let (scheme, behind) = match text.split_once("://") {
            Some((scheme, behind)) => (scheme, behind),
            None if text == "**" || text.starts_with("**/") => ("**", text),
            // The stars' own mistake is told first.
            None => {
                Pattern::parse(text)?;
                return Err(UrlPatternError::Start);
            }
        };
        let scheme = if scheme == "**" { "*" } else { scheme };
        let scheme = Glob::parse(&scheme.to_ascii_lowercase())?;
        if !scheme.matches("https") && !scheme.matches("http") {
            return Err(UrlPatternError::Scheme);
        }
        Ok(Self {
            scheme,
            place: place(behind)?,
        })
    }

    fn fits(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else {
            return false;
        };
        let host = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        self.scheme.matches(url.scheme())
            && self
                .place
                .as_ref()
                .is_none_or(|(at, path)| at.matches(&host) && path.matches(url.path()))
    }
}

/// The host's segment, which is the first one that is not `**`, and the rest.
fn place(mut behind: &str) -> Result<Option<(Glob, Pattern)>, PatternError> {
    loop {
        let (segment, rest) = match behind.split_once('/') {
            // A slash at the end means everything below.
            Some((segment, "")) => (segment, "**"),
            Some((segment, rest)) => (segment, rest),
            None => (behind, ""),
        };
        match segment {
            "" | "**" if rest.is_empty() || rest == "**" => return Ok(None),
            "" | "**" => behind = rest,
            host => {
                let host = Glob::parse(&host.to_ascii_lowercase())?;
                return Ok(Some((host, Pattern::parse(rest)?)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
