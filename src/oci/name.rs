//! Image names under a repository: `team/app` (distribution-spec, "Pulling manifests").

use std::fmt;

/// The most bytes a name may have; distribution caps it here, and clients cap `host/name` at the same figure.
pub const NAME_MAX: usize = 255;

/// Why a text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`NAME_MAX`].
    #[error("an image name has at most {NAME_MAX} characters")]
    TooLong,
    /// Outside the grammar.
    #[error(
        "an image name is made of lower-case letters and digits, parted by single '.', '_', '__' or dashes, in components parted by '/'"
    )]
    Malformed,
}

/// An image name that fits `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/…)*`, at most [`NAME_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

impl Name {
    /// Parses a whole name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_component) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Malformed)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name has one component only, as Docker Hub's official images are typed (`nginx`).
    pub fn is_single_component(&self) -> bool {
        !self.0.contains('/')
    }
}

/// One component: runs of `[a-z0-9]` parted by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        let word = rest
            .iter()
            .take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            .count();
        if word == 0 {
            return false;
        }
        rest = rest.get(word..).unwrap_or_default();
        let Some(first) = rest.first() else {
            return true;
        };
        let separator = match first {
            b'.' => 1,
            b'_' => rest.iter().take(2).take_while(|b| **b == b'_').count(),
            b'-' => rest.iter().take_while(|b| **b == b'-').count(),
            _ => return false,
        };
        rest = rest.get(separator..).unwrap_or_default();
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
