//! An image by its full name, as a bundle tells it: `docker.io/library/nginx:1.27` or `docker.io/library/nginx@sha256:…`.

use std::fmt;

use crate::oci::{Digest, Name, Reference, Tag};

/// The most bytes of the host in front.
const HOST_MAX: usize = 255;
/// What a name without a host means (`nginx`, `bitnami/redis`), as Docker reads it.
const HUB: &str = "docker.io";
/// What Docker Hub calls itself in other places.
const HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// What stands in front of Docker Hub's official images.
const OFFICIAL: &str = "library";

/// Why a text is no full name of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a full name looks like docker.io/library/nginx:1.27 or docker.io/library/nginx@sha256:…")]
pub struct ImageRefError;

/// Host, name, and either a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    host: Box<str>,
    name: Name,
    reference: Reference,
}

impl ImageRef {
    /// Parses a full name.
    pub fn parse(text: &str) -> Result<Self, ImageRefError> {
        let (host, rest) = text.split_once('/').ok_or(ImageRefError)?;
        let (name, reference) = if let Some((name, digest)) = rest.split_once('@') {
            let digest = Digest::parse(digest).map_err(|_other| ImageRefError)?;
            (name, Reference::Digest(digest))
        } else {
            let (name, tag) = rest.rsplit_once(':').ok_or(ImageRefError)?;
            let tag = Tag::parse(tag).map_err(|_other| ImageRefError)?;
            (name, Reference::Tag(tag))
        };
        let name = Name::parse(name).map_err(|_other| ImageRefError)?;
        if !is_host(host) {
            return Err(ImageRefError);
        }
        Ok(Self {
            host: host.into(),
            name,
            reference,
        })
    }

    /// Parses a name as `docker save` writes it, where `nginx:1.27` means `docker.io/library/nginx:1.27`.
    pub fn parse_familiar(text: &str) -> Result<Self, ImageRefError> {
        let first = text.split('/').next().unwrap_or_default();
        let has_host = first != text && (first.contains(['.', ':']) || first == "localhost");
        let (host, rest) = match text.split_once('/') {
            Some((host, rest)) if has_host => (host, rest),
            _ => (HUB, text),
        };
        let host = if HUB_ALIASES.contains(&host) {
            HUB
        } else {
            host
        };
        if host == HUB && !rest.contains('/') {
            Self::parse(&format!("{host}/{OFFICIAL}/{rest}"))
        } else {
            Self::parse(&format!("{host}/{rest}"))
        }
    }

    /// The same image by another tag or digest.
    #[must_use]
    pub fn with(&self, reference: Reference) -> Self {
        Self {
            reference,
            ..self.clone()
        }
    }

    /// The registry, with its port if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name of the image there.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Tag or digest.
    pub const fn reference(&self) -> &Reference {
        &self.reference
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            name,
            reference,
        } = self;
        match reference {
            Reference::Tag(tag) => write!(f, "{host}/{name}:{tag}"),
            Reference::Digest(digest) => write!(f, "{host}/{name}@{digest}"),
        }
    }
}

/// A host name or an IPv4 address, or an IPv6 address in brackets, with a port or without.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let in_brackets = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let fits = in_brackets.map_or_else(
        || {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host.ends_with(|c: char| c.is_ascii_alphanumeric())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
        },
        |inner| inner.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    text.len() <= HOST_MAX && fits && port.is_none_or(is_port)
}
