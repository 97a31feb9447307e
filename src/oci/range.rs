//! Byte ranges (RFC 9110, 14.1 to 14.4): what a client asks for and what a registry says it sends.
//!
//! A `Range` header is advice. What is malformed, in another unit or too long a list is ignored, and the whole content is the
//! right answer; so is it when ranges overlap, since nobody needs the same bytes twice and an attacker would (CVE-2011-3192).

use std::fmt;

/// The most ranges one header may ask for.
pub const RANGES_MAX: usize = 16;

/// One range as asked for, before the length of the content is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `a-b`, both included, `a` ≤ `b`.
    FromTo(u64, u64),
    /// `a-`
    From(u64),
    /// `-n`: the last `n` bytes.
    Suffix(u64),
}

/// The ranges of a `Range: bytes=…` header: 1 to [`RANGES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeHeader(Vec<RangeSpec>);

/// What a header means for content of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Answer 206 with these, in the order asked for; they do not overlap, and there is at least one.
    Ranges(Vec<ByteRange>),
    /// Answer 416.
    Unsatisfiable,
    /// Answer 200 with everything.
    Whole,
}

impl RangeHeader {
    /// Parses the value of a `Range` header; `None` means that the header is to be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, set) = text.trim_matches(OWS).split_once('=')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let mut specs = Vec::new();
        let items = set.split(',').map(|item| item.trim_matches(OWS));
        for item in items.filter(|item| !item.is_empty()) {
            if specs.len() == RANGES_MAX {
                return None;
            }
            specs.push(RangeSpec::parse(item)?);
        }
        (!specs.is_empty()).then_some(Self(specs))
    }

    /// What was asked for.
    pub fn specs(&self) -> &[RangeSpec] {
        &self.0
    }

    /// Fits the ranges to content of `size` bytes.
    pub fn resolve(&self, size: u64) -> Resolved {
        // The end of empty content is asked for and there is one, of no bytes; but no 206 can say so.
        if size == 0
            && self
                .0
                .iter()
                .any(|spec| matches!(spec, RangeSpec::Suffix(1..)))
        {
            return Resolved::Whole;
        }
        let ranges: Vec<_> = self
            .0
            .iter()
            .filter_map(|spec| spec.resolve(size))
            .collect();
        if ranges.is_empty() {
            return Resolved::Unsatisfiable;
        }
        let mut sorted = ranges.clone();
        sorted.sort_unstable_by_key(|range| range.start);
        // Ranges that do not overlap cannot add up to more than the whole, so this is the only check.
        let overlap = sorted
            .iter()
            .zip(sorted.iter().skip(1))
            .any(|(left, right)| right.start <= left.end);
        if overlap {
            Resolved::Whole
        } else {
            Resolved::Ranges(ranges)
        }
    }
}

impl fmt::Display for RangeHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, spec) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "bytes=" } else { "," })?;
            spec.fmt(f)?;
        }
        Ok(())
    }
}

impl RangeSpec {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", suffix) => Some(Self::Suffix(saturating(suffix)?)),
            (first, "") => Some(Self::From(saturating(first)?)),
            (first, last) => {
                let (first, last) = (saturating(first)?, saturating(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    fn resolve(self, size: u64) -> Option<ByteRange> {
        let end = size.checked_sub(1)?;
        let (start, end) = match self {
            Self::FromTo(first, last) => (first, last.min(end)),
            Self::From(first) => (first, end),
            Self::Suffix(count) => (size.saturating_sub(count), end),
        };
        // A start behind the end, and a suffix of nothing, come out here.
        ByteRange::new(start, end)
    }
}

impl fmt::Display for RangeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromTo(first, last) => write!(f, "{first}-{last}"),
            Self::From(first) => write!(f, "{first}-"),
            Self::Suffix(count) => write!(f, "-{count}"),
        }
    }
}

/// One or more bytes of some content, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The bytes from `start` to `end`, both included; `None` unless `start` ≤ `end` < 2^64 − 1.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start <= end && end < u64::MAX).then_some(Self { start, end })
    }

    /// The first byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// The last byte.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a range holds at least one byte"
    )]
    pub const fn len(self) -> u64 {
        self.end - self.start + 1
    }

    /// Whether these are all bytes of content of `size` bytes.
    pub const fn is_whole(self, size: u64) -> bool {
        self.start == 0 && self.len() == size
    }
}

/// The value of a `Content-Range` header that goes with a 206.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentRange {
    range: ByteRange,
    total: Option<u64>,
}

impl ContentRange {
    /// `range` of content of `total` bytes; `None` if it does not lie in it.
    pub fn new(range: ByteRange, total: Option<u64>) -> Option<Self> {
        total
            .is_none_or(|total| range.end < total)
            .then_some(Self { range, total })
    }

    /// Parses `bytes a-b/t` and `bytes a-b/*`. Numbers are not saturated here: who tells an offset must tell it right.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.trim_matches(OWS).split_once(' ')?;
        let (range, total) = rest.split_once('/')?;
        let (start, end) = range.split_once('-')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let total = match total {
            "*" => None,
            number => Some(exact(number)?),
        };
        Self::new(ByteRange::new(exact(start)?, exact(end)?)?, total)
    }

    /// The first byte sent.
    pub const fn start(self) -> u64 {
        self.range.start
    }

    /// The last byte sent.
    pub const fn end(self) -> u64 {
        self.range.end
    }

    /// The bytes sent.
    pub const fn range(self) -> ByteRange {
        self.range
    }

    /// The length of the whole content, if told.
    pub const fn total(self) -> Option<u64> {
        self.total
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.range.start, self.range.end)?;
        match self.total {
            Some(total) => total.fmt(f),
            None => f.write_str("*"),
        }
    }
}

/// The value of the `Content-Range` header that goes with a 416: `bytes */<size>`.
pub fn unsatisfied(size: u64) -> String {
    format!("bytes */{size}")
}

const OWS: [char; 2] = [' ', '\t'];

/// Digits and nothing else. A number over `u64::MAX` becomes that: as an end it means "to the last byte", and as a start it lies
/// behind the last byte of anything.
fn saturating(text: &str) -> Option<u64> {
    is_number(text).then(|| text.parse().unwrap_or(u64::MAX))
}

fn exact(text: &str) -> Option<u64> {
    is_number(text).then(|| text.parse().ok()).flatten()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
