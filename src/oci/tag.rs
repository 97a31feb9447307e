//! Tags: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec, "Pulling manifests").

use std::fmt;

use super::digest::Digest;

/// The most bytes a tag may have.
pub const TAG_MAX: usize = 128;

/// A text that is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tag has 1 to {TAG_MAX} letters, digits, '_', '.' or '-', and does not begin with '.' or '-'"
)]
pub struct TagError;

/// A tag that fits the grammar.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let first = text.bytes().next().ok_or(TagError)?;
        let fits = text.len() <= TAG_MAX
            && (first.is_ascii_alphanumeric() || first == b'_')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(TagError)
        }
    }

    /// The tag that stands for the referrers of `subject` (distribution-spec, "Referrers Tag Schema"): the algorithm, `-`, the
    /// first 64 hex digits. Made here since it cannot fail: what a digest is made of fits the grammar of tags.
    pub(super) fn of_subject(subject: &Digest) -> Self {
        let hex: String = subject.hex().chars().take(64).collect();
        Self(format!("{}-{hex}", subject.algorithm().as_str()).into())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
