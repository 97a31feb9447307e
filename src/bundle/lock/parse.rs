//! A lock out of a text: every key known, every value checked, each error with its line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::{LOCK_MAX, Lock, Locked, VERSION};
use crate::bundle::list::{Image, ListError, Place, is_host};
use crate::diagnosis::{Problem, of_toml};
use crate::oci::platform::PlatformError;
use crate::oci::{Digest, MediaType, Name, Platform, Tag};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<i64>,
    #[serde(default)]
    image: Vec<Entry>,
}

/// Read before the rest, so that a newer format is called that, and not wrong.
#[derive(Deserialize)]
struct Versioned {
    version: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reference: Spanned<String>,
    digest: Spanned<String>,
    media_type: Spanned<String>,
    size: u64,
    blobs: u64,
    referrers: Vec<Spanned<String>>,
    tags: Vec<EntryTag>,
    platforms: Vec<EntryPlatform>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryTag {
    tag: Spanned<String>,
    digest: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryPlatform {
    platform: Spanned<String>,
    digest: Spanned<String>,
}

pub(super) fn parse(file: &str, text: &str) -> Result<Lock, ListError> {
    if text.len() > LOCK_MAX {
        let most = LOCK_MAX / 1024 / 1024;
        return Err(ListError::plain(format!(
            "{file} has more than {most} MiB, which no lock has: is it the right file?"
        )));
    }
    read(text).map_err(|problem| ListError::report(text, file, &[problem]))
}

fn read(text: &str) -> Result<Lock, Problem> {
    if let Ok(Versioned {
        version: Some(version),
    }) = toml::from_str(text)
        && *version.get_ref() != VERSION
    {
        return Err(Problem {
            title: format!("this lock is of version {}", version.get_ref()),
            at: Some(version.span()),
            remedy: format!(
                "this roadstead reads version {VERSION}; lock anew, or use a newer one"
            ),
        });
    }
    let file: File = toml::from_str(text).map_err(|error| of_toml(&error))?;
    debug_assert_eq!(*file.version.get_ref(), VERSION, "it was looked at above");
    let mut lock = Lock::default();
    for entry in file.image {
        let at = entry.reference.span();
        let reference = reference(&entry.reference)?;
        let locked = locked(&entry)?;
        if lock.images.insert(reference, locked).is_some() {
            let title = format!("`{}` is locked twice", entry.reference.get_ref());
            return Err(wrong(at, title, "leave one of them out"));
        }
    }
    Ok(lock)
}

fn wrong(at: Range<usize>, title: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem {
        title: title.into(),
        at: Some(at),
        remedy: remedy.into(),
    }
}

/// A full reference, in the one form in which it is written: nothing is guessed in a lock.
pub(super) fn full_reference(written: &str) -> Result<String, String> {
    let image = Image::parse(written).map_err(|error| error.to_string())?;
    // The head may be a key of a mirror, which only that mirror knows, so whatever is no host is taken for one.
    let is_key = |head: &str| !is_host(head) && Name::parse(head).is_ok();
    let name = Place::of(&image.name, &is_key).map_err(|error| error.to_string())?;
    let full = match (&image.tag, &image.digest) {
        (None, None) => return Err("a tag or a digest belongs behind the name".to_owned()),
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, Some(digest)) => format!("{name}@{digest}"),
        (Some(tag), Some(digest)) => format!("{name}:{tag}@{digest}"),
    };
    if full == written {
        Ok(full)
    } else {
        Err(format!("write `{full}`"))
    }
}

fn reference(text: &Spanned<String>) -> Result<String, Problem> {
    let written = text.get_ref();
    full_reference(written).map_err(|remedy| {
        let title = format!("`{written}` is no full reference");
        wrong(text.span(), title, remedy)
    })
}

pub(super) fn platform(text: &str) -> Result<Platform, PlatformError> {
    if text.is_empty() {
        return Ok(Platform::default());
    }
    Platform::parse(text)
}

fn digest(text: &Spanned<String>) -> Result<Digest, Problem> {
    Digest::parse(text.get_ref()).map_err(|error| {
        let title = format!("`{}` is no digest", text.get_ref());
        wrong(text.span(), title, error.to_string())
    })
}

fn locked(entry: &Entry) -> Result<Locked, Problem> {
    let media_type = MediaType::parse(entry.media_type.get_ref())
        .filter(|media_type| media_type.as_str() == entry.media_type.get_ref());
    let media_type = media_type.ok_or_else(|| {
        wrong(
            entry.media_type.span(),
            format!("`{}` is no media type", entry.media_type.get_ref()),
            "a media type looks like application/vnd.oci.image.index.v1+json",
        )
    })?;
    let mut platforms = BTreeSet::new();
    for one in &entry.platforms {
        let text = one.platform.get_ref();
        let platform = platform(text).map_err(|error| {
            let title = format!("`{text}` is no platform");
            wrong(one.platform.span(), title, error.to_string())
        })?;
        if !platforms.insert((platform, digest(&one.digest)?)) {
            let title = format!("the platform `{text}` stands twice with one digest");
            return Err(wrong(one.platform.span(), title, "leave one of them out"));
        }
    }
    let mut referrers = BTreeSet::new();
    for one in &entry.referrers {
        if !referrers.insert(digest(one)?) {
            let title = format!("the referrer `{}` stands twice", one.get_ref());
            return Err(wrong(one.span(), title, "leave one of them out"));
        }
    }
    let mut tags = BTreeMap::new();
    for one in &entry.tags {
        let text = one.tag.get_ref();
        let tag = Tag::parse(text).map_err(|error| {
            let title = format!("`{text}` is no tag");
            wrong(one.tag.span(), title, error.to_string())
        })?;
        if tags.insert(tag, digest(&one.digest)?).is_some() {
            let title = format!("the tag `{text}` stands twice");
            return Err(wrong(one.tag.span(), title, "leave one of them out"));
        }
    }
    Ok(Locked {
        digest: digest(&entry.digest)?,
        media_type,
        size: entry.size,
        blobs: entry.blobs,
        referrers,
        tags,
        platforms,
    })
}
