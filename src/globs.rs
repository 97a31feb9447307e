//! Patterns of image names and tags: `*` is within a component, `**` over several, `?` one character.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns, of which one must match. Two sets of the same texts are equal.
#[derive(Clone)]
pub struct Globs {
    written: Vec<String>,
    set: GlobSet,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is no pattern: {problem}")]
pub struct GlobError {
    /// Which of them, counted from zero.
    pub position: usize,
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Globs {
    /// Parses patterns.
    pub fn parse<T: AsRef<str>>(patterns: &[T]) -> Result<Self, GlobError> {
        let mut set = GlobSetBuilder::new();
        let wrong = |position: usize, pattern: &str, problem: String| GlobError {
            position,
            pattern: pattern.to_owned(),
            problem,
        };
        for (position, pattern) in patterns.iter().enumerate() {
            let pattern = pattern.as_ref();
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            set.add(glob.map_err(|error| wrong(position, pattern, error.kind().to_string()))?);
        }
        let set = set.build();
        Ok(Self {
            set: set.map_err(|error| wrong(0, "", error.to_string()))?,
            written: patterns.iter().map(|one| one.as_ref().to_owned()).collect(),
        })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// Whether one of them matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.set.is_match(text)
    }

    /// The patterns as they were written.
    pub fn written(&self) -> &[String] {
        &self.written
    }
}

impl Default for Globs {
    fn default() -> Self {
        Self {
            written: Vec::new(),
            set: GlobSet::empty(),
        }
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Globs {}

impl fmt::Debug for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_component_and_two_are_several() {
        let globs = |patterns: &[&str]| Globs::parse(patterns).unwrap();
        assert!(globs(&["team/*"]).is_match("team/app"));
        assert!(!globs(&["team/*"]).is_match("team/a/b"));
        assert!(globs(&["x", "team/**"]).is_match("team/a/b"));
        assert!(!globs(&[]).is_match("x") && globs(&[]).is_empty());
        assert_eq!(globs(&["a*"]), globs(&["a*"]));
        assert_ne!(globs(&["a*"]), globs(&["b*"]));
    }

    #[test]
    fn what_is_no_pattern_is_named() {
        let error = Globs::parse(&["a", "[x"]).unwrap_err();
        assert_eq!((error.position, error.pattern.as_str()), (1, "[x"));
    }
}
