//! What changed between two locks, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Lock, Locked};
use crate::oci::{Digest, Platform, Tag};

/// How many hex digits of a digest people are shown.
const SHOWN: usize = 12;

/// What changed, sorted by reference. Its text has a line for each change, and none if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Each reference that changed, and how.
    pub changes: Vec<(String, Change)>,
}

/// How a reference changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added(Locked),
    /// It is not there any more.
    Removed(Locked),
    /// It was something else.
    Changed {
        /// What it was.
        from: Box<Locked>,
        /// What it is.
        to: Box<Locked>,
    },
}

impl Diff {
    pub(super) fn between(earlier: &Lock, later: &Lock) -> Self {
        let names: BTreeSet<&String> = earlier.images.keys().chain(later.images.keys()).collect();
        let change = |name: &String| match (earlier.images.get(name), later.images.get(name)) {
            (None, Some(to)) => Some(Change::Added(to.clone())),
            (Some(from), None) => Some(Change::Removed(from.clone())),
            (Some(from), Some(to)) if from != to => Some(Change::Changed {
                from: Box::new(from.clone()),
                to: Box::new(to.clone()),
            }),
            _ => None,
        };
        let changes = names.into_iter();
        let changes = changes.filter_map(|name| Some((name.clone(), change(name)?)));
        Self {
            changes: changes.collect(),
        }
    }

    /// Whether nothing changed.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (reference, change) in &self.changes {
            match change {
                Change::Added(to) => writeln!(f, "+ {reference}: {}", short(&to.digest))?,
                Change::Removed(from) => writeln!(f, "- {reference}: {}", short(&from.digest))?,
                Change::Changed { from, to } => {
                    writeln!(f, "~ {reference}: {}", differences(from, to).join(", "))?;
                }
            }
        }
        Ok(())
    }
}

fn short(digest: &Digest) -> String {
    let hex: String = digest.hex().chars().take(SHOWN).collect();
    format!("{}:{hex}", digest.algorithm().as_str())
}

/// All that is different, in words.
fn differences(from: &Locked, to: &Locked) -> Vec<String> {
    let mut found = Vec::new();
    if from.digest != to.digest {
        found.push(format!(
            "{} is now {}",
            short(&from.digest),
            short(&to.digest)
        ));
    }
    if from.media_type != to.media_type {
        found.push(format!("{} is now {}", from.media_type, to.media_type));
    }
    if from.size != to.size {
        found.push(format!(
            "a manifest of {} bytes is now one of {}",
            from.size, to.size
        ));
    }
    let (was, is) = (by_platform(from), by_platform(to));
    for platform in was.keys().filter(|platform| !is.contains_key(*platform)) {
        found.push(format!("without {platform}"));
    }
    for (platform, digests) in &is {
        match was.get(platform) {
            None => found.push(format!("with {platform}")),
            // Of a reference that moved they all did; that says it.
            Some(before) if before != digests && from.digest == to.digest => {
                let shown = |digests: &Vec<&Digest>| {
                    let shown: Vec<String> = digests.iter().map(|digest| short(digest)).collect();
                    shown.join(" and ")
                };
                found.push(format!(
                    "{platform}: {} is now {}",
                    shown(before),
                    shown(digests)
                ));
            }
            Some(_) => {}
        }
    }
    let new = to.referrers.difference(&from.referrers).count();
    let gone = from.referrers.difference(&to.referrers).count();
    for (count, how) in [(new, "more"), (gone, "fewer")] {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            found.push(format!("{count} referrer{plural} {how}"));
        }
    }
    let tags: BTreeSet<&Tag> = from.tags.keys().chain(to.tags.keys()).collect();
    for tag in tags {
        match (from.tags.get(tag), to.tags.get(tag)) {
            (None, Some(_)) => found.push(format!("with the tag {tag}")),
            (Some(_), None) => found.push(format!("without the tag {tag}")),
            (Some(was), Some(is)) if was != is => {
                found.push(format!("{tag}: {} is now {}", short(was), short(is)));
            }
            _ => {}
        }
    }
    match to.blobs.cmp(&from.blobs) {
        std::cmp::Ordering::Greater => found.push(format!("{} bytes more", to.blobs - from.blobs)),
        std::cmp::Ordering::Less => found.push(format!("{} bytes less", from.blobs - to.blobs)),
        std::cmp::Ordering::Equal => {}
    }
    found
}

fn by_platform(locked: &Locked) -> BTreeMap<&Platform, Vec<&Digest>> {
    let mut found: BTreeMap<&Platform, Vec<&Digest>> = BTreeMap::new();
    for (platform, digest) in &locked.platforms {
        found.entry(platform).or_default().push(digest);
    }
    found
}
