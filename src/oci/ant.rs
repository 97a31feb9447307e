//! Ant patterns, as Artifactory's settings are written: `?` is one character, `*` any number of them within a segment, `**` any number of
//! segments.
//!
//! Pure. A segment is what stands between slashes; empty ones do not count, and a slash at the end means `/**`, as in Ant. Matching goes
//! back to the last star alone, so that no pattern takes more steps than its length times the text's.

use std::fmt;

/// The longest pattern.
pub const PATTERN_MAX: usize = 1024;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`PATTERN_MAX`].
    #[error("is longer than {PATTERN_MAX} bytes")]
    TooLong,
    /// `**` beside something else: Ant takes it for `*`, which is never what is meant.
    #[error("has `**` beside other characters; it stands alone between slashes")]
    Stars,
}

/// A pattern for one segment: `?` and `*`.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob(Vec<char>);

impl Glob {
    /// Takes a text without slashes as a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_MAX {
            return Err(PatternError::TooLong);
        }
        if text.contains("**") {
            return Err(PatternError::Stars);
        }
        Ok(Self(text.chars().collect()))
    }

    /// Whether it stands for all of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        covers(&self.0, &text, |p| *p == '*', |p, c| *p == '?' || *p == *c)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.iter().collect::<String>(), f)
    }
}

/// A pattern for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Many,
    One(Glob),
}

impl Pattern {
    /// Parses a pattern. The empty one stands for the empty path.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_MAX {
            return Err(PatternError::TooLong);
        }
        let mut segments = segments(text)
            .map(|segment| match segment {
                "**" => Ok(Segment::Many),
                one => Glob::parse(one).map(Segment::One),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if text.ends_with('/') {
            segments.push(Segment::Many);
        }
        Ok(Self(segments))
    }

    /// Whether it stands for all of `path`.
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = segments(path).collect();
        covers(
            &self.0,
            &path,
            |p| *p == Segment::Many,
            |p, text| matches!(p, Segment::One(glob) if glob.matches(text)),
        )
    }
}

fn segments(text: &str) -> impl Iterator<Item = &str> {
    text.split('/').filter(|segment| !segment.is_empty())
}

/// Whether `pattern` stands for all of `text`. Whatever an earlier star could have taken, the last one can take too.
fn covers<P, T>(
    pattern: &[P],
    text: &[T],
    is_many: impl Fn(&P) -> bool,
    is_one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut last_star = None;
    while let Some(item) = text.get(read) {
        match (pattern.get(at), last_star) {
            (Some(many), _) if is_many(many) => {
                last_star = Some((at, read));
                at += 1;
            }
            (Some(one), _) if is_one(one, item) => {
                at += 1;
                read += 1;
            }
            (_, Some((star, taken))) => {
                last_star = Some((star, taken + 1));
                at = star + 1;
                read = taken + 1;
            }
            (_, None) => return false,
        }
    }
    pattern.iter().skip(at).all(is_many)
}
