//! Which repository a request means, and which image there (INTERFACE, "Which repository a request means").
//!
//! Pure, and a closed world: `ns`, Host and paths only ever look up what is configured; none of them names a place to dial.

use super::definitions::{Definitions, canonical_host};
use super::key::Key;
use crate::oci::Name;
use crate::oci::name::NameError;

/// What a request says.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The repository of its listener or Host, where one is bound there.
    pub bound: Option<&'a Key>,
    /// The key or host before `/v2`.
    pub prefix: Option<&'a str>,
    /// The `?ns=` values.
    pub namespaces: &'a [String],
    /// The name in the path, unparsed.
    pub name: &'a str,
    /// Our own names: a `ns` that is one of them means none.
    pub own_hosts: &'a [String],
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The repository.
    pub key: Key,
    /// The image there.
    pub name: Name,
    /// The `ns` that chose the repository, for `OCI-Namespace`.
    pub namespace: Option<String>,
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

/// Decides which repository and image `ask` means.
pub fn resolve(definitions: &Definitions, ask: &Ask<'_>) -> Result<Target, Unresolved> {
    if let Some(key) = ask.bound {
        return target(definitions, key, ask.name, None);
    }
    if let Some(prefix) = ask.prefix {
        let key = definitions
            .by_key(prefix)
            .or_else(|| definitions.by_host(prefix))
            .ok_or(Unresolved::UnknownRepository)?;
        return target(definitions, key, ask.name, None);
    }
    if let Some(namespace) = namespace(definitions, ask)? {
        let key = definitions
            .by_host(&namespace)
            .ok_or(Unresolved::UnknownNamespace)?;
        // BuildKit names the repository in the path and by ns.
        let name = match ask.name.split_once('/') {
            Some((first, rest))
                if definitions
                    .by_key(first)
                    .or_else(|| definitions.by_host(first))
                    == Some(key) =>
            {
                rest
            }
            _ => ask.name,
        };
        return target(definitions, key, name, Some(namespace));
    }
    if let Some((first, rest)) = ask.name.split_once('/')
        && let Some(key) = definitions
            .by_key(first)
            .or_else(|| definitions.by_host(first))
    {
        return target(definitions, key, rest, None);
    }
    target(definitions, definitions.default_key(), ask.name, None)
}

/// The one namespace that a request names; several different ones are none that is known.
fn namespace(definitions: &Definitions, ask: &Ask<'_>) -> Result<Option<String>, Unresolved> {
    let mut named: Option<String> = None;
    for namespace in ask.namespaces {
        let namespace = canonical_host(namespace);
        if named.as_ref().is_some_and(|named| *named != namespace) {
            return Err(Unresolved::UnknownNamespace);
        }
        named = Some(namespace);
    }
    // A host that somebody serves is not ours, whatever a client says in Host.
    Ok(named.filter(|namespace| {
        definitions.by_host(namespace).is_some()
            || !ask
                .own_hosts
                .iter()
                .any(|own| canonical_host(own) == *namespace)
    }))
}

fn target(
    definitions: &Definitions,
    key: &Key,
    name: &str,
    namespace: Option<String>,
) -> Result<Target, Unresolved> {
    let name = Name::parse(name)?;
    let name = if definitions.has_library(key) && name.is_single_component() {
        Name::parse(&format!("library/{name}"))?
    } else {
        name
    };
    Ok(Target {
        key: key.clone(),
        name,
        namespace,
    })
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
