//! Pages of sorted lists: `?n=<count>&last=<value>` (distribution-spec, "Listing Tags"; Docker's `_catalog`).
//!
//! Without `n` the list is given whole: scripts that know nothing of pages would otherwise lose its tail without a word.

use url::form_urlencoded;

/// The most entries one page has; a larger `n` is clamped to it.
pub const PAGE_MAX: usize = 1000;

/// A query whose `n` or `last` makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("n is a number from 0, and n and last may be given once only")]
pub struct PageError;

/// The part of a list that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    n: Option<usize>,
    last: Option<String>,
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    n: usize,
    last: String,
}

impl Page {
    /// Reads `n` and `last` from the decoded pairs of a query; other keys are skipped. An empty value is as good as none, as
    /// distribution has it.
    pub fn parse<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, PageError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let (mut n, mut last) = (None, None);
        for (key, value) in pairs {
            let slot = match key.as_ref() {
                "n" => &mut n,
                "last" => &mut last,
                _ => continue,
            };
            if slot.replace(value.as_ref().to_owned()).is_some() {
                return Err(PageError);
            }
        }
        Ok(Self {
            n: match n.as_deref() {
                None | Some("") => None,
                Some(text) => Some(count(text)?),
            },
            last: last.filter(|text| !text.is_empty()),
        })
    }

    /// How many entries at most, if told; never over [`PAGE_MAX`].
    pub const fn n(&self) -> Option<usize> {
        self.n
    }

    /// The entry behind which the page begins. It need not exist.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }
}

impl Next {
    /// Where a list goes on that is cut elsewhere.
    pub const fn new(n: usize, last: String) -> Self {
        Self { n, last }
    }

    /// How many entries the next page has at most.
    pub const fn n(&self) -> usize {
        self.n
    }

    /// The last entry of this page.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// The query of the next page, encoded: `n=2&last=b`.
    pub fn query(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .append_pair("n", &self.n.to_string())
            .append_pair("last", &self.last)
            .finish()
    }
}

/// The page of a list that is sorted by bytes, and where the next one begins; `None` when there is no more, or when nothing was
/// asked for.
pub fn cut<'a>(sorted: &'a [String], page: &Page) -> (&'a [String], Option<Next>) {
    cut_by(sorted, page, page.n, Clone::clone)
}

/// The same for entries that are sorted by `key`, with at most [`PAGE_MAX`] where nobody said how many.
pub fn cut_capped<'a, T>(
    sorted: &'a [T],
    page: &Page,
    key: impl Fn(&T) -> String,
) -> (&'a [T], Option<Next>) {
    cut_by(sorted, page, page.n.or(Some(PAGE_MAX)), key)
}

fn cut_by<'a, T>(
    sorted: &'a [T],
    page: &Page,
    n: Option<usize>,
    key: impl Fn(&T) -> String,
) -> (&'a [T], Option<Next>) {
    let behind = page.last().map_or(0, |last| {
        sorted.partition_point(|entry| *key(entry) <= *last)
    });
    let rest = sorted.get(behind..).unwrap_or_default();
    let Some(n) = n else {
        return (rest, None);
    };
    let Some((taken, more)) = rest.split_at_checked(n) else {
        return (rest, None);
    };
    let next = taken
        .last()
        .filter(|_| !more.is_empty())
        .map(|last| Next { n, last: key(last) });
    (taken, next)
}

fn count(text: &str) -> Result<usize, PageError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number can hold are just a large number.
        Ok(text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX))
    } else {
        Err(PageError)
    }
}
