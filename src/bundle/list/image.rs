//! How people name images (`nginx`, `ghcr.io/a/b:1.2@sha256:…`), and what Docker means by it.

use std::fmt;

use crate::oci::digest::DigestError;
use crate::oci::name::NameError;
use crate::oci::{Digest, Name, Reference, Tag};

/// The host that a name without one means.
pub const DOCKER_HUB: &str = "docker.io";
/// Other names of that host, which Docker and people use.
const ALSO_DOCKER_HUB: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// Where Docker Hub keeps what is named by one word.
const OFFICIAL: &str = "library";

/// The most bytes that a text naming an image may have: host, name, tag and digest at their longest, and some.
pub const IMAGE_MAX: usize = 1024;

/// Why a text names no image. Its text says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is nothing.
    #[error("write an image here, such as nginx:1.27")]
    Empty,
    /// A template that nobody has filled in.
    #[error("this is a template; list what it renders to (`helm template` prints that)")]
    Template,
    /// It begins like a URL.
    #[error("leave out `{0}://`")]
    Scheme(String),
    /// What stands before the first slash is no host.
    #[error(
        "the host before the first '/' is made of letters, digits, '.' and '-', and may have a port"
    )]
    Host,
    /// The name is outside the grammar.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What stands behind the colon is no tag.
    #[error(transparent)]
    Tag(#[from] crate::oci::tag::TagError),
    /// What stands behind the @ is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A tag or a digest where only the name is asked for.
    #[error("leave out what stands behind the name: tags and digests have keys of their own")]
    NameOnly,
}

/// An image as somebody wrote it, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The host or repository key, and the name, as they were written.
    pub name: String,
    /// What stands behind the colon.
    pub tag: Option<Tag>,
    /// What stands behind the @; it wins over the tag.
    pub digest: Option<Digest>,
}

impl Image {
    /// Takes `name[:tag][@digest]` apart and checks every part.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ImageError::Empty);
        }
        if text.len() > IMAGE_MAX {
            return Err(NameError::TooLong.into());
        }
        if text.contains("{{") || text.contains("${") {
            return Err(ImageError::Template);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(ImageError::Scheme(scheme.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let last = rest.split_at(after_slash).1;
        let (name, tag) = match last.find(':') {
            Some(colon) => {
                let (name, tag) = rest.split_at(after_slash + colon);
                (name, Some(Tag::parse(tag.trim_start_matches(':'))?))
            }
            None => (rest, None),
        };
        // Any key of a repository fits the grammar of names, so this holds for whatever the first component turns out to be.
        Place::of(name, &|_| false)?;
        Ok(Self {
            name: name.to_owned(),
            tag,
            digest,
        })
    }
}

/// Where an image is, in full: a host or a repository key of this mirror, and the name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    head: String,
    name: Name,
    is_key: bool,
}

impl Place {
    /// What Docker means by `written`, except that a leading key of this mirror stays what it is.
    pub fn of(written: &str, is_key: &dyn Fn(&str) -> bool) -> Result<Self, ImageError> {
        let (first, rest) = match written.split_once('/') {
            Some((first, rest)) => (Some(first), rest),
            None => (None, written),
        };
        let (head, name) = match first {
            Some(key) if is_key(key) => {
                return Ok(Self {
                    head: key.to_owned(),
                    name: Name::parse(rest)?,
                    is_key: true,
                });
            }
            Some(host) if is_host(host) => (check_host(host)?, rest),
            _ => (DOCKER_HUB.to_owned(), written),
        };
        let name = Name::parse(name)?;
        let is_hub = head == DOCKER_HUB || ALSO_DOCKER_HUB.contains(&head.as_str());
        let name = if is_hub && name.is_single_component() {
            Name::parse(&format!("{OFFICIAL}/{name}"))?
        } else {
            name
        };
        Ok(Self {
            head: if is_hub { DOCKER_HUB.to_owned() } else { head },
            name,
            is_key: false,
        })
    }

    /// The host, with its port, or the key.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Whether the head is a repository key of this mirror.
    pub const fn is_key(&self) -> bool {
        self.is_key
    }

    /// The name there.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The full reference: `docker.io/library/nginx:1.27`, `…@sha256:…`.
    pub fn with(&self, reference: &Reference) -> String {
        match reference {
            Reference::Tag(tag) => format!("{self}:{tag}"),
            Reference::Digest(digest) => format!("{self}@{digest}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.head, self.name)
    }
}

/// Docker's rule for whether the first component is a host: it looks like one, or cannot be part of a name.
pub(in crate::bundle) fn is_host(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|b| b.is_ascii_uppercase())
}

/// A host as it is compared: in lower case.
fn check_host(text: &str) -> Result<String, ImageError> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            let port = after.strip_prefix(':');
            if port.is_none() && !after.is_empty() {
                return Err(ImageError::Host);
            }
            ("v6", port)
        }
        Some(_) => return Err(ImageError::Host),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if host.split('.').all(label) && port_fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(ImageError::Host)
    }
}
