//! Repository keys: `[a-z][a-z0-9.-]*`, some words reserved.

use std::fmt;

/// First path components that mean something else.
const RESERVED: [&str; 10] = [
    "v1",
    "v2",
    "api",
    "artifactory",
    "admin",
    "ui",
    "token",
    "metrics",
    "livez",
    "readyz",
];
/// The most bytes of a key.
pub(super) const KEY_MAX: usize = 64;

/// Why a text is no repository key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Outside the grammar.
    #[error(
        "a repository key begins with a lower-case letter and has lower-case letters, digits, '.' and '-', at most {KEY_MAX}"
    )]
    Malformed,
    /// A word with another meaning.
    #[error(
        "this word is reserved: v1 v2 api artifactory admin ui token metrics livez readyz and everything that ends in -cache"
    )]
    Reserved,
}

/// The key of a configured repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Box<str>);

impl Key {
    /// Parses a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let fits = text.len() <= KEY_MAX
            && text
                .bytes()
                .next()
                .is_some_and(|first| first.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        if !fits {
            return Err(KeyError::Malformed);
        }
        if RESERVED.contains(&text) || text.ends_with("-cache") {
            Err(KeyError::Reserved)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it could be somebody's namespace on Docker Hub, which would then be hidden.
    pub fn could_be_a_namespace(&self) -> bool {
        !self.0.contains(['-', '.'])
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
