//! Which of an image's tags are wanted.
//!
//! Pure: what there is goes in, what is chosen comes out. The words are regsync's where it has them (`allow`, `deny`, `semver`); `include` and
//! `exclude` are globs as in the configuration.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};

use super::version::{Range, Version, order};
use crate::oci::{Digest, Tag};

/// The most memory that one regular expression may take, compiled.
pub const REGEX_MAX: usize = 1024 * 1024;
/// How many of an image's tags an error lists.
const SHOWN: usize = 5;

/// What of an image is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// This content, which may also have been given a tag; the digest is what counts.
    Digest {
        /// The content.
        digest: Digest,
        /// What it is called.
        tag: Option<Tag>,
    },
    /// These tags.
    Tags(Vec<Tag>),
    /// Those of its tags that fit.
    Choice(Choice),
}

/// Why a pick comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// A tag that is not there.
    #[error("there is no tag `{tag}`; {}", there_is(.known))]
    Missing {
        /// The tag.
        tag: String,
        /// Some that there are.
        known: Vec<String>,
    },
    /// A pattern or range that fits no tag.
    #[error("no tag fits `{pattern}`; {}", there_is(.known))]
    Nothing {
        /// The pattern or range.
        pattern: String,
        /// Some tags that there are.
        known: Vec<String>,
    },
    /// Each condition fits some tags, but none fits all of them.
    #[error("no tag fits all of {0}; loosen one of them")]
    Together(String),
}

fn there_is(known: &[String]) -> String {
    if known.is_empty() {
        return "the image has no tags at all".to_owned();
    }
    format!("the newest that there are: {}", known.join(", "))
}

impl Pick {
    /// Whether an image's tags must be listed for it; a digest and tags by name can be asked for as they are.
    pub const fn needs_tags(&self) -> bool {
        matches!(self, Self::Choice(_))
    }

    /// Those of `tags` that are wanted, the newest first where there is a choice. What is no tag is never chosen.
    pub fn choose(&self, tags: &[String]) -> Result<Vec<Tag>, PickError> {
        match self {
            Self::Digest { tag, .. } => {
                let known = |tag: &&Tag| tags.iter().any(|known| known == tag.as_str());
                Ok(tag.iter().filter(known).cloned().collect())
            }
            Self::Tags(wanted) => wanted
                .iter()
                .map(|tag| {
                    if tags.iter().any(|known| known == tag.as_str()) {
                        Ok(tag.clone())
                    } else {
                        Err(PickError::Missing {
                            tag: tag.to_string(),
                            known: newest(tags),
                        })
                    }
                })
                .collect(),
            Self::Choice(choice) => choice.choose(tags),
        }
    }
}

/// Conditions on tags; a tag must fit every kind of them that is given, and one of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// Globs and regular expressions of which one must fit.
    pub allow: Vec<Pattern>,
    /// Those of which none may fit.
    pub deny: Vec<Pattern>,
    /// Ranges of which one must hold it.
    pub semver: Vec<Range>,
    /// How many of the newest, by version where tags are versions and else by natural order.
    pub newest: Option<usize>,
    /// Whether pre-releases count for ranges and for `newest`.
    pub prereleases: bool,
}

impl Choice {
    fn choose(&self, tags: &[String]) -> Result<Vec<Tag>, PickError> {
        let tags: Vec<Tag> = tags
            .iter()
            .filter(|tag| !is_of_a_digest(tag))
            .filter_map(|tag| Tag::parse(tag).ok())
            .collect();
        let nothing = |pattern: &str| PickError::Nothing {
            pattern: pattern.to_owned(),
            known: newest(tags.iter().map(Tag::as_str)),
        };
        for pattern in &self.allow {
            if !tags.iter().any(|tag| pattern.fits(tag.as_str())) {
                return Err(nothing(pattern.written()));
            }
        }
        for range in &self.semver {
            if !tags.iter().any(|tag| self.is_in(range, tag)) {
                return Err(nothing(range.written()));
            }
        }
        let mut found: Vec<Tag> = tags.iter().filter(|tag| self.fits(tag)).cloned().collect();
        if found.is_empty() {
            return Err(if tags.is_empty() {
                nothing("*")
            } else {
                PickError::Together(self.conditions())
            });
        }
        found.sort_by(|a, b| order(b.as_str(), a.as_str()));
        found.dedup();
        if let Some(newest) = self.newest {
            self.leave_out_what_is_no_release(&mut found);
            found.truncate(newest);
        }
        Ok(found)
    }

    fn fits(&self, tag: &Tag) -> bool {
        let fits = |pattern: &Pattern| pattern.fits(tag.as_str());
        (self.allow.is_empty() || self.allow.iter().any(fits))
            && (self.semver.is_empty() || self.semver.iter().any(|range| self.is_in(range, tag)))
            && !self.deny.iter().any(fits)
    }

    /// A variant (`1.27-alpine`) is in a range only where a pattern says which one is meant: a range alone means the plain versions.
    fn is_in(&self, range: &Range, tag: &Tag) -> bool {
        Version::parse(tag.as_str()).is_some_and(|version| {
            let is_meant = version.is_plain() || version.is_prerelease() || !self.allow.is_empty();
            is_meant && range.holds(&version, self.prereleases)
        })
    }

    /// The newest are meant to be releases, so pre-releases count where they are asked for, and variants where a pattern names them. If nothing
    /// else is there, they are what there is.
    fn leave_out_what_is_no_release(&self, found: &mut Vec<Tag>) {
        let is_release = |tag: &Tag| {
            Version::parse(tag.as_str()).is_some_and(|version| {
                if version.is_prerelease() {
                    self.prereleases || !self.semver.is_empty()
                } else {
                    version.is_plain() || !self.allow.is_empty()
                }
            })
        };
        if found.iter().any(is_release) {
            found.retain(|tag| is_release(tag) || Version::parse(tag.as_str()).is_none());
        }
    }

    /// All conditions, for a sentence.
    fn conditions(&self) -> String {
        let quoted = |(key, text): (&str, &str)| format!("{key} `{text}`");
        let all = self.allow.iter().map(|one| ("", one.written()));
        let all = all.chain(self.semver.iter().map(|one| ("", one.written())));
        let all = all.chain(self.deny.iter().map(|one| ("not", one.written())));
        let all: Vec<String> = all.map(quoted).map(|text| text.trim().to_owned()).collect();
        all.join(", ")
    }
}

/// Signatures and the like that cosign keeps under tags made of a digest: they belong to an image, and are no choice among its tags.
fn is_of_a_digest(tag: &str) -> bool {
    tag.strip_prefix("sha256-").is_some_and(|rest| {
        rest.len() >= 64 && rest.bytes().take(64).all(|b| b.is_ascii_hexdigit())
    })
}

fn newest<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut known: Vec<String> = tags
        .into_iter()
        .map(|tag| tag.as_ref().to_owned())
        .collect();
    known.sort_by(|a, b| order(b, a));
    known.truncate(SHOWN);
    known
}

/// A glob or a regular expression that a whole tag must fit.
#[derive(Clone)]
pub struct Pattern {
    written: String,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Glob(GlobMatcher),
    Regex(Regex),
}

impl Pattern {
    /// A glob: `*` any characters, `?` one, `[a-z]`, `{a,b}`.
    pub fn glob(text: &str) -> Result<Self, String> {
        let glob = GlobBuilder::new(text).build();
        let glob = glob.map_err(|error| error.kind().to_string())?;
        Ok(Self {
            written: text.to_owned(),
            matcher: Matcher::Glob(glob.compile_matcher()),
        })
    }

    /// A regular expression, which must fit from the first character to the last.
    pub fn regex(text: &str) -> Result<Self, String> {
        // On its own first, so that no parenthesis of it closes ours.
        let check = |text: &str| RegexBuilder::new(text).size_limit(REGEX_MAX).build();
        let regex = check(text)
            .and_then(|_fits| check(&format!(r"\A(?:{text})\z")))
            .map_err(|error| last_line(&error.to_string()))?;
        Ok(Self {
            written: text.to_owned(),
            matcher: Matcher::Regex(regex),
        })
    }

    /// The pattern as it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    fn fits(&self, tag: &str) -> bool {
        match &self.matcher {
            Matcher::Glob(glob) => glob.is_match(tag),
            Matcher::Regex(regex) => regex.is_match(tag),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        let kind = |pattern: &Self| matches!(pattern.matcher, Matcher::Glob(_));
        self.written == other.written && kind(self) == kind(other)
    }
}

impl Eq for Pattern {}

/// Without the automaton, which fills pages.
impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

/// The library draws where it is wrong; its last line says what.
fn last_line(text: &str) -> String {
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}
