//! Versions as tags write them, ranges of them, and the order of tags.
//!
//! Tags are laxer than semantic versioning: `v1.2.3`, `1.27`, `24.04`, `3.14rc1`, `1.27.3-alpine`. Two or three numbers make a version. What follows them is a
//! *pre-release* where it begins with one of the words for that, and else a *variant* of the same version (a base system, a
//! packager's revision).

use std::cmp::Ordering;

use semver::{Comparator, Prerelease, VersionReq};

/// Words with which a pre-release begins.
const PRERELEASES: [&str; 14] = [
    "alpha", "a", "beta", "b", "rc", "c", "pre", "preview", "dev", "snapshot", "nightly", "canary",
    "next", "ea",
];

/// A tag that is a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version<'a> {
    numbers: [u64; 3],
    /// How many numbers were written: `1.27` moves, `1.27.0` does not.
    written: u8,
    suffix: &'a str,
    is_prerelease: bool,
}

impl<'a> Version<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut numbers = [0; 3];
        let mut written = 0;
        for slot in &mut numbers {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            *slot = number.parse().ok()?;
            written += 1;
            rest = after;
            match rest.strip_prefix('.') {
                Some(more) if written < 3 && more.starts_with(|c: char| c.is_ascii_digit()) => {
                    rest = more;
                }
                _ => break,
            }
        }
        let (suffix, is_parted) = match rest.strip_prefix(['-', '_']) {
            Some(suffix) => (suffix, true),
            // `3.13.0.rc1`, but not `1.2.3.4`, which is no version.
            None => (rest.strip_prefix('.').unwrap_or(rest), false),
        };
        let word: String = suffix
            .chars()
            .take_while(char::is_ascii_alphabetic)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let is_prerelease = PRERELEASES.contains(&word.as_str());
        let is_version = written >= 2
            && (rest.is_empty() || (!suffix.is_empty() && (is_parted || is_prerelease)));
        is_version.then_some(Self {
            numbers,
            written,
            suffix,
            is_prerelease,
        })
    }

    pub(super) const fn is_prerelease(&self) -> bool {
        self.is_prerelease
    }

    /// Whether it is the version and nothing else.
    pub(super) const fn is_plain(&self) -> bool {
        self.suffix.is_empty()
    }

    const fn bare(&self) -> semver::Version {
        let [major, minor, patch] = self.numbers;
        semver::Version::new(major, minor, patch)
    }

    /// By numbers; a pre-release before its release; then the variants; of the same ones, the one with more numbers is the newer.
    fn order(&self, other: &Self) -> Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then(other.is_prerelease.cmp(&self.is_prerelease))
            .then_with(|| natural(self.suffix, other.suffix))
            .then(self.written.cmp(&other.written))
    }
}

/// One of several sets of conditions, as `semver` or as npm and Helm write them: `>=1.25, <2`, `>=1.25 <2`, `~1.2 || ^2`, `1.2 - 1.5`.
#[derive(Debug, Clone)]
pub struct Range {
    written: String,
    alternatives: Vec<VersionReq>,
}

impl PartialEq for Range {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Range {}

impl Range {
    /// Parses a range. A bare version means what is compatible with it, as in Cargo: `1.2` is `>=1.2, <2`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let alternatives = text
            .split("||")
            .map(|part| {
                let part = conditions(part);
                VersionReq::parse(&part).map_err(|error| error.to_string())
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            written: text.to_owned(),
            alternatives,
        })
    }

    /// The range as it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Whether a version is in it. Pre-releases are in it where they are asked for: by `prereleases`, by a range that ends a version with `-0`
    /// (as Helm does it), or by name (`>=2.0.0-rc.1`, which is about those of 2.0.0 alone).
    pub(super) fn holds(&self, version: &Version<'_>, prereleases: bool) -> bool {
        let bare = version.bare();
        let one = |range: &VersionReq| {
            if !version.is_prerelease {
                return range.matches(&bare);
            }
            let all = prereleases || range.comparators.iter().any(ends_with_zero);
            let named = Prerelease::new(version.suffix).is_ok_and(|pre| {
                let mut exact = bare.clone();
                exact.pre = pre;
                range.matches(&exact)
            });
            named || (all && range.matches(&bare))
        };
        self.alternatives.iter().any(one)
    }
}

fn ends_with_zero(comparator: &Comparator) -> bool {
    comparator.pre.as_str() == "0"
}

/// A set of conditions in the words of the `semver` crate: commas between them, no `v`, no leading zeros.
fn conditions(text: &str) -> String {
    let words: Vec<&str> = text
        .split([',', ' ', '\t'])
        .filter(|word| !word.is_empty())
        .collect();
    let mut found: Vec<String> = Vec::new();
    let mut operator = String::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let version = word.trim_start_matches(['<', '>', '=', '~', '^']);
        let (sign, _) = word.split_at(word.len() - version.len());
        operator.push_str(sign);
        if version.is_empty() {
            continue;
        }
        if operator.is_empty() && words.peek() == Some(&"-") {
            words.next();
            found.push(format!(">={}", plain(version)));
            "<=".clone_into(&mut operator);
            continue;
        }
        found.push(format!("{operator}{}", plain(version)));
        operator.clear();
    }
    if !operator.is_empty() {
        found.push(operator);
    }
    found.join(", ")
}

fn plain(version: &str) -> String {
    let version = version.strip_prefix(['v', 'V']).unwrap_or(version);
    let (numbers, suffix) = version
        .find(['-', '+'])
        .map_or((version, ""), |at| version.split_at(at));
    let numbers: Vec<&str> = numbers
        .split('.')
        .map(|number| match number.trim_start_matches('0') {
            "" if !number.is_empty() => "0",
            trimmed if trimmed.starts_with(|c: char| c.is_ascii_digit()) => trimmed,
            _ => number,
        })
        .collect();
    format!("{}{suffix}", numbers.join("."))
}

/// Which of two tags is the newer one, as far as names tell: by version where both are one, versions above what is none, else by natural order.
pub(super) fn order(a: &str, b: &str) -> Ordering {
    match (Version::parse(a), Version::parse(b)) {
        (Some(x), Some(y)) => x.order(&y).then_with(|| natural(a, b)),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => natural(a, b),
    }
}

/// Runs of digits count as numbers, so that `build-9` comes before `build-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    while !x.is_empty() && !y.is_empty() {
        let (left, after_left) = run(x);
        let (right, after_right) = run(y);
        let both_numbers = left.starts_with(|c: char| c.is_ascii_digit())
            && right.starts_with(|c: char| c.is_ascii_digit());
        let ordering = if both_numbers {
            let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            left.cmp(right)
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
        (x, y) = (after_left, after_right);
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// The digits or the other characters that a text begins with.
fn run(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text
        .find(|c: char| c.is_ascii_digit() != digits)
        .unwrap_or(text.len());
    text.split_at(end)
}
