//! Which repository a request means, and which image there (INTERFACE, "Which repository a request means").
//!
//! Pure, and a closed world: `ns`, Host and paths only ever look up what is configured; none of them names a place to dial.

use super::definitions::{Definitions, canonical_host};
use super::key::Key;
use crate::oci::Name;
use crate::oci::name::NameError;

/// What a request says of the repository, apart from the name in its path.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The repository of its listener or Host, where one is bound there.
    pub bound: Option<&'a Key>,
    /// The key or host before `/v2`.
    pub prefix: Option<&'a str>,
    /// The `?ns=` values.
    pub namespaces: &'a [String],
    /// Our own names: a `ns` that is one of them means none.
    pub own_hosts: &'a [String],
}

/// What a request has chosen before its path names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen<'a> {
    /// Nothing: the name decides.
    Nothing,
    /// One repository, by its listener, its Host or a prefix.
    Repository(&'a Key),
    /// One repository, by this `ns` as the client wrote it.
    Namespace(&'a Key, &'a str),
}

impl<'a> Chosen<'a> {
    /// The repository, where one is chosen.
    pub const fn key(&self) -> Option<&'a Key> {
        match self {
            Self::Nothing => None,
            Self::Repository(key) | Self::Namespace(key, _) => Some(key),
        }
    }

    /// The `ns` that chose it, for `OCI-Namespace`.
    pub const fn namespace(&self) -> Option<&'a str> {
        match self {
            Self::Namespace(_, namespace) => Some(namespace),
            Self::Nothing | Self::Repository(_) => None,
        }
    }
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The repository.
    pub key: Key,
    /// The image there.
    pub name: Name,
}

/// Why a request means nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No repository has that key, and none serves that host.
    #[error("no repository of this mirror has that key or serves that host")]
    UnknownRepository,
    /// No repository serves that namespace.
    #[error("no repository of this mirror serves that namespace")]
    UnknownNamespace,
    /// The name is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Decides which repository `ask` has chosen, if any: by its listener or Host, else by a prefix, else by `ns`.
pub fn choose<'a>(definitions: &'a Definitions, ask: &Ask<'a>) -> Result<Chosen<'a>, Unresolved> {
    if let Some(key) = ask.bound {
        return Ok(Chosen::Repository(key));
    }
    if let Some(prefix) = ask.prefix {
        return definitions
            .by_key_or_host(prefix)
            .map(Chosen::Repository)
            .ok_or(Unresolved::UnknownRepository);
    }
    namespace(definitions, ask)
}

/// Decides which repository and image a name means after `choose`.
pub fn resolve(
    definitions: &Definitions,
    chosen: &Chosen<'_>,
    name: &str,
) -> Result<Target, Unresolved> {
    let first = name
        .split_once('/')
        .and_then(|(first, rest)| Some((definitions.by_key_or_host(first)?, rest)));
    let (key, name) = match (chosen, first) {
        // BuildKit names the repository in the path and by ns.
        (Chosen::Namespace(key, _), Some((first, rest))) if first == *key => (*key, rest),
        (Chosen::Repository(key) | Chosen::Namespace(key, _), _) => (*key, name),
        (Chosen::Nothing, Some((key, rest))) => (key, rest),
        (Chosen::Nothing, None) => (definitions.default_key(), name),
    };
    let name = Name::parse(name)?;
    let name = if definitions.has_library(key) && name.is_single_component() {
        Name::parse(&format!("library/{name}"))?
    } else {
        name
    };
    Ok(Target {
        key: key.clone(),
        name,
    })
}

/// The one namespace that a request names; several different ones are none that is known.
fn namespace<'a>(definitions: &'a Definitions, ask: &Ask<'a>) -> Result<Chosen<'a>, Unresolved> {
    let mut named: Option<(String, &str)> = None;
    for namespace in ask.namespaces {
        let canonical = canonical_host(namespace);
        if named.as_ref().is_some_and(|(named, _)| *named != canonical) {
            return Err(Unresolved::UnknownNamespace);
        }
        named = Some((canonical, namespace));
    }
    let Some((canonical, as_sent)) = named else {
        return Ok(Chosen::Nothing);
    };
    // A host that somebody serves is not ours, whatever a client says in Host.
    if let Some(key) = definitions.by_host(&canonical) {
        return Ok(Chosen::Namespace(key, as_sent));
    }
    let is_ours = ask
        .own_hosts
        .iter()
        .any(|own| canonical_host(own) == canonical);
    is_ours
        .then_some(Chosen::Nothing)
        .ok_or(Unresolved::UnknownNamespace)
}

/// Parts a path at its `/v2`: what stands before it (a key or a host) and the path behind it. `None` where it is no registry path.
pub fn split_prefix(path: &str) -> Option<(Option<&str>, &str)> {
    let behind = |rest: &'_ str| rest.is_empty() || rest.starts_with('/');
    if let Some(rest) = path.strip_prefix("/v2")
        && behind(rest)
    {
        return Some((None, rest));
    }
    let rest = path
        .strip_prefix("/artifactory/api/docker/")
        .or_else(|| path.strip_prefix("/api/docker/"))
        .or_else(|| path.strip_prefix('/'))?;
    let (prefix, rest) = rest.split_once('/')?;
    let rest = rest.strip_prefix("v2")?;
    (!prefix.is_empty() && behind(rest)).then_some((Some(prefix), rest))
}
