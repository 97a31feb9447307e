//! A lock as text.

use std::fmt::Write as _;

use super::{Lock, VERSION};
use crate::oci::{Digest, Platform};

pub(super) fn write(lock: &Lock) -> String {
    let mut text = format!(
        "# What each image was when it was locked. Written by `roadstead lock`.\nversion = {VERSION}\n"
    );
    for (reference, locked) in &lock.images {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[image]]\nreference = {}\ndigest = {}\nmedia_type = {}\nsize = {}\nblobs = {}\n",
            quoted(reference),
            quoted(&locked.digest.to_string()),
            quoted(locked.media_type.as_str()),
            locked.size,
            locked.blobs,
        );
        let digests = locked.referrers.iter();
        list(
            &mut text,
            "referrers",
            digests.map(|digest| quoted(&digest.to_string())),
        );
        let tags = locked.tags.iter();
        let tags = tags.map(|(tag, digest)| named("tag", tag.as_str(), digest));
        list(&mut text, "tags", tags);
        let platforms = locked.platforms.iter();
        let platforms = platforms
            .map(|(platform, digest)| named("platform", &self::platform(platform), digest));
        list(&mut text, "platforms", platforms);
    }
    text
}

/// A line for each entry.
fn list(text: &mut String, key: &str, entries: impl Iterator<Item = String>) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        let _ = writeln!(text, "{key} = []");
        return;
    }
    let _ = writeln!(text, "{key} = [");
    for entry in entries {
        let _ = writeln!(text, "  {entry},");
    }
    text.push_str("]\n");
}

fn named(key: &str, name: &str, digest: &Digest) -> String {
    let digest = quoted(&digest.to_string());
    format!("{{ {key} = {}, digest = {digest} }}", quoted(name))
}

/// A platform as text; one that says nothing is nothing.
pub(super) fn platform(platform: &Platform) -> String {
    if *platform == Platform::default() {
        String::new()
    } else {
        platform.to_string()
    }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
