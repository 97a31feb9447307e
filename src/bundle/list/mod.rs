//! Which images are wanted: from the command line, from lists, from Kubernetes manifests and Compose files.
//!
//! Pure: text in, data out. It knows no network, no store and no environment, and whether a name leads to a repository of this mirror only by
//! a predicate ([`Place::of`]). Invariants: no text makes it panic or work without a bound; every problem names file, line and remedy; what is
//! read is as it was written, so that the place where it was asked for can be shown.
//!
//! Sources: regsync's `sync` configuration (vocabulary), Docker's reference grammar (`distribution/reference`), Compose specification
//! ("Interpolation", `services`), Kubernetes `PodSpec`.

mod compose;
mod declared;
mod error;
mod image;
mod kubernetes;
mod pick;
mod plain;
#[cfg(test)]
mod tests;
mod tree;
mod variables;
mod version;
mod yaml;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range as Bytes;

pub use crate::oci::referrers::Selection as Referrers;
pub use error::ListError;
pub(in crate::bundle) use image::is_host;
pub use image::{DOCKER_HUB, IMAGE_MAX, Image, ImageError, Place};
pub use pick::{Choice, Pattern, Pick, PickError, REGEX_MAX};
pub use version::Range;
pub use yaml::{DEPTH_MAX, VALUES_MAX};

use crate::diagnosis::Problem;
use crate::oci::{Platform, Tag};

/// The most bytes that one list may have; Helm renders no chart to that much.
pub const LIST_MAX: usize = 32 * 1024 * 1024;
/// How many values of YAML are looked at, an aliased one each time: what bounds aliases of aliases.
pub const VISITS_MAX: usize = 4_000_000;
/// The tag that a name without one means.
const LATEST: &str = "latest";

/// One image that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The image as it was written, without tag and digest: `nginx`, `ghcr.io/a/b`, `docker-hub/a/b`.
    pub image: String,
    /// What of it.
    pub pick: Pick,
    /// Which platforms; none: all that there are.
    pub platforms: Vec<Platform>,
    /// What else comes along.
    pub referrers: Referrers,
    /// Where it was asked for.
    pub source: Source,
}

/// Where an image was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file as it was named, or the words for the command line.
    pub file: String,
    /// The line, from one; `None` on the command line.
    pub line: Option<usize>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match self.line {
            Some(line) => write!(f, ":{line}"),
            None => Ok(()),
        }
    }
}

/// Reads images named on the command line: `nginx:1.27`, `ghcr.io/a/b@sha256:…`.
pub fn from_arguments<T: AsRef<str>>(arguments: &[T]) -> Result<Vec<Wanted>, ListError> {
    let one = |argument: &T| {
        let argument = argument.as_ref();
        let image = Image::parse(argument)
            .map_err(|error| ListError::plain(format!("`{argument}` names no image: {error}")))?;
        let source = Source {
            file: "command line".to_owned(),
            line: None,
        };
        Ok(Wanted::new(image, Vec::new(), Referrers::None, source))
    };
    arguments.iter().map(one).collect()
}

/// Reads a list: TOML or YAML by the file's extension, else by what it looks like, else one image a line.
pub fn from_file(file: &str, bytes: &[u8]) -> Result<Vec<Wanted>, ListError> {
    let text = Text::decode(file, bytes)?;
    let extension = file.rsplit_once('.').map(|(_, extension)| extension);
    let found = match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("toml") => declared::read_toml(&text),
        Some("yaml" | "yml" | "json") => declared::read_yaml(&text),
        Some("txt" | "list" | "lst") => plain::read(&text),
        _ => match look(text.content) {
            Look::Toml => declared::read_toml(&text),
            Look::Yaml => declared::read_yaml(&text),
            Look::Plain => plain::read(&text),
        },
    };
    found.map_err(|problem| text.error(problem))
}

/// Reads Kubernetes manifests, or what Helm renders: every image in them, each once.
pub fn from_kubernetes(file: &str, bytes: &[u8]) -> Result<Vec<Wanted>, ListError> {
    let text = Text::decode(file, bytes)?;
    kubernetes::read(&text).map_err(|problem| text.error(problem))
}

/// Reads a Compose file: the image of every service that has one, each once. `variables` are those that may stand in it.
pub fn from_compose(
    file: &str,
    bytes: &[u8],
    variables: &BTreeMap<String, String>,
) -> Result<Vec<Wanted>, ListError> {
    let text = Text::decode(file, bytes)?;
    let found = compose::read(&text, variables).map_err(|problem| text.error(problem))?;
    Ok(each_once(found))
}

impl Wanted {
    /// What an image without further conditions means: its digest, its tag, else `latest`.
    fn new(image: Image, platforms: Vec<Platform>, referrers: Referrers, source: Source) -> Self {
        let pick = match (image.digest, image.tag) {
            (Some(digest), tag) => Pick::Digest { digest, tag },
            (None, Some(tag)) => Pick::Tags(vec![tag]),
            (None, None) => Pick::Tags(Tag::parse(LATEST).into_iter().collect()),
        };
        Self {
            image: image.name,
            pick,
            platforms,
            referrers,
            source,
        }
    }
}

/// The same image that is asked for in many places is wanted once, where it was asked for first.
fn each_once(found: Vec<Wanted>) -> Vec<Wanted> {
    let mut seen = HashSet::new();
    let mut is_new = |wanted: &Wanted| {
        let Wanted {
            image,
            pick,
            platforms,
            ..
        } = wanted;
        seen.insert(format!("{image} {pick:?} {platforms:?}"))
    };
    found.into_iter().filter(|wanted| is_new(wanted)).collect()
}

/// A text and the file that it came from.
struct Text<'a> {
    file: &'a str,
    content: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl<'a> Text<'a> {
    fn decode(file: &'a str, bytes: &'a [u8]) -> Result<Self, ListError> {
        if bytes.len() > LIST_MAX {
            return Err(ListError::plain(format!(
                "{file} has more than {} MiB, which no list of images has: is it the right file?",
                LIST_MAX / 1024 / 1024
            )));
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Err(ListError::plain(format!(
                "{file} is UTF-16, as PowerShell writes it: save it as UTF-8"
            )));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = before.split(|byte| *byte == b'\n').count();
            ListError::plain(format!("{file}:{line} is not UTF-8: save it as UTF-8"))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Ok(Self {
            file,
            content: text,
            lines: std::iter::once(0).chain(ends).collect(),
        })
    }

    /// The line of a place, from one.
    fn source(&self, at: &Bytes<usize>) -> Source {
        Source {
            file: self.file.to_owned(),
            line: Some(self.lines.partition_point(|start| *start <= at.start)),
        }
    }

    fn error(&self, problem: Problem) -> ListError {
        ListError::report(self.content, self.file, &[problem])
    }
}

enum Look {
    Toml,
    Yaml,
    Plain,
}

/// What a text without a telling extension is, by its first line that says anything.
fn look(text: &str) -> Look {
    let mut lines = text.lines().map(str::trim);
    let Some(line) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) else {
        return Look::Plain;
    };
    let key = line.bytes().take_while(u8::is_ascii_lowercase).count();
    let after = line.split_at(key).1.trim_start();
    if line.starts_with('[') || (key > 0 && after.starts_with('=')) {
        Look::Toml
    } else if line.starts_with("---")
        || line.starts_with("- ")
        || line.starts_with('{')
        || (key > 0 && (after == ":" || after.starts_with(": ") || after.starts_with(":\t")))
    {
        Look::Yaml
    } else {
        Look::Plain
    }
}
