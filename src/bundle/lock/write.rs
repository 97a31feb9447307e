//! A lock as text.

use std::fmt::Write as _;

use super::{Lock, VERSION};
use crate::oci::Platform;

pub(super) fn write(lock: &Lock) -> String {
    let mut text = format!(
        "# What each image was when it was locked. Written by `roadstead lock`.\nversion = {VERSION}\n"
    );
    for (reference, locked) in &lock.images {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[image]]\nreference = {}\ndigest = {}\nmedia_type = {}\nsize = {}\nblobs = {}\nreferrers = {}\n",
            quoted(reference),
            quoted(&locked.digest.to_string()),
            quoted(locked.media_type.as_str()),
            locked.size,
            locked.blobs,
            locked.referrers,
        );
        if locked.platforms.is_empty() {
            text.push_str("platforms = []\n");
            continue;
        }
        text.push_str("platforms = [\n");
        for (platform, digest) in &locked.platforms {
            let _ = writeln!(
                text,
                "  {{ platform = {}, digest = {} }},",
                quoted(&self::platform(platform)),
                quoted(&digest.to_string()),
            );
        }
        text.push_str("]\n");
    }
    text
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
