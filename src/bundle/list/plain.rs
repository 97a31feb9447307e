//! A list of one image a line: `nginx:1.27`, with the platforms behind it where not all are wanted, and `#` for comments.

use super::image::Image;
use super::{Referrers, Text, Wanted};
use crate::diagnosis::Problem;
use crate::oci::Platform;

pub(super) fn read(text: &Text<'_>) -> Result<Vec<Wanted>, Problem> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.content.split_inclusive('\n') {
        found.extend(read_line(text, line, start)?);
        start += line.len();
    }
    Ok(found)
}

fn read_line(text: &Text<'_>, line: &str, start: usize) -> Result<Option<Wanted>, Problem> {
    // A comment begins a line or stands behind a space: no image has a `#` in it, but a template may.
    let end = line
        .char_indices()
        .find(|(at, c)| {
            let before = line.split_at(*at).0;
            *c == '#' && (before.is_empty() || before.ends_with([' ', '\t']))
        })
        .map_or(line.len(), |(at, _)| at);
    let content = line.split_at(end).0;
    let mut words = content.split_whitespace();
    let Some(first) = words.next() else {
        return Ok(None);
    };
    let wrong = |word: &str, title: String, remedy: String| {
        // The words are parts of the line.
        let at = start + (word.as_ptr().addr() - line.as_ptr().addr());
        Problem {
            title,
            at: Some(at..at + word.len()),
            remedy,
        }
    };
    let image = Image::parse(first).map_err(|error| {
        let title = format!("`{first}` names no image");
        wrong(first, title, error.to_string())
    })?;
    let mut platforms = Vec::new();
    for word in words {
        for platform in word.split(',').filter(|platform| !platform.is_empty()) {
            let platform = Platform::parse(platform).map_err(|error| {
                let title = format!("`{platform}` is no platform");
                wrong(platform, title, error.to_string())
            })?;
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
    }
    let at = start..start + line.len();
    let source = text.source(&at);
    Ok(Some(Wanted::new(image, platforms, Referrers::None, source)))
}
