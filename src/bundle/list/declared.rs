//! A list in TOML or YAML: images with conditions on their tags, platforms and referrers, and defaults for all of them.
//!
//! ```yaml
//! defaults: { platforms: [linux/amd64], referrers: true }
//! images:
//!   - nginx:1.27
//!   - image: ghcr.io/team/app
//!     tags: { include: ["v*"], exclude: ["*-debug"], semver: [">=1.25"], newest: 3 }
//! ```

use super::image::{Image, ImageError};
use super::pick::{Choice, Pattern, Pick};
use super::tree::{Entry, Kind, Node, from_toml};
use super::version::Range;
use super::{Referrers, Text, Wanted, yaml};
use crate::diagnosis::Problem;
use crate::oci::{Digest, Platform, Tag};

/// The one version of the vocabulary that there is.
const VERSION: &str = "1";
const TOP: [&str; 3] = ["version", "defaults", "images"];
const DEFAULTS: [&str; 2] = ["platforms", "referrers"];
const IMAGE: [&str; 6] = ["image", "tag", "tags", "digest", "platforms", "referrers"];
const TAGS: [&str; 8] = [
    "include",
    "exclude",
    "allow",
    "deny",
    "semver",
    "semverRange",
    "newest",
    "prereleases",
];

/// What counts for an image that does not say it.
#[derive(Debug, Clone, Default)]
struct Defaults {
    platforms: Vec<Platform>,
    referrers: Referrers,
}

pub(super) fn read_toml(text: &Text<'_>) -> Result<Vec<Wanted>, Problem> {
    read(text, &from_toml(text.content)?)
}

pub(super) fn read_yaml(text: &Text<'_>) -> Result<Vec<Wanted>, Problem> {
    let mut found = Vec::new();
    for document in yaml::parse(text.content)? {
        match &document.kind {
            Kind::Null => {}
            Kind::Sequence(items) => {
                for item in items {
                    found.push(read_image(text, item, &Defaults::default())?);
                }
            }
            _ if document.get("apiVersion").is_some() && document.get("kind").is_some() => {
                return Err(document.problem(
                    "this is a Kubernetes manifest, not a list of images",
                    "give it with --from-kubernetes",
                ));
            }
            _ if document.get("services").is_some() => {
                return Err(document.problem(
                    "this is a Compose file, not a list of images",
                    "give it with --from-compose",
                ));
            }
            Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Mapping(_) => {
                found.extend(read(text, &document)?);
            }
        }
    }
    Ok(found)
}

fn read(text: &Text<'_>, top: &Node) -> Result<Vec<Wanted>, Problem> {
    top.expect_keys("a list of images", &TOP)?;
    if let Some(version) = top.get("version")
        && version.text() != Some(VERSION)
    {
        return Err(version.problem(
            "this list is of a version that is not known here",
            format!("write version = {VERSION}, or use a newer roadstead"),
        ));
    }
    let defaults = match top.get("defaults") {
        Some(node) => {
            node.expect_keys("defaults", &DEFAULTS)?;
            conditions(node, &Defaults::default())?
        }
        None => Defaults::default(),
    };
    let Some(images) = top.get("images") else {
        return Err(top.problem("no images are listed", "write them under `images`"));
    };
    let Kind::Sequence(items) = &images.kind else {
        return Err(images.problem(
            format!("`images` is {}, not a list", images.name()),
            "write a list of images here",
        ));
    };
    let one = |item: &std::rc::Rc<Node>| read_image(text, item, &defaults);
    items.iter().map(one).collect()
}

/// The platforms and referrers that a table asks for.
fn conditions(node: &Node, defaults: &Defaults) -> Result<Defaults, Problem> {
    let mut found = defaults.clone();
    if let Some(node) = node.get("platforms") {
        found.platforms = platforms(node)?;
    }
    if let Some(node) = node.get("referrers") {
        found.referrers = match &node.kind {
            Kind::Bool(true) => Referrers::All,
            Kind::Bool(false) => Referrers::None,
            Kind::Null | Kind::Text(_) | Kind::Number(_) | Kind::Sequence(_) | Kind::Mapping(_) => {
                let types = node.expect_texts("an artifact type")?;
                let types = types.into_iter().map(|(text, _)| text.to_owned()).collect();
                Referrers::Types(types)
            }
        };
    }
    Ok(found)
}

/// Platforms; `all` lifts what the defaults say.
fn platforms(node: &Node) -> Result<Vec<Platform>, Problem> {
    if node.text() == Some("all") {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for (text, node) in node.expect_texts("a platform")? {
        let platform = Platform::parse(text)
            .map_err(|error| node.problem(format!("`{text}` is no platform"), error.to_string()))?;
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    if found.is_empty() {
        return Err(node.problem("no platform is listed", "write \"all\" if all are wanted"));
    }
    Ok(found)
}

fn read_image(text: &Text<'_>, node: &Node, defaults: &Defaults) -> Result<Wanted, Problem> {
    let source = text.source(&node.at);
    if !matches!(node.kind, Kind::Mapping(_)) {
        let image = parse_image(node)?;
        let Defaults {
            platforms,
            referrers,
        } = defaults.clone();
        return Ok(Wanted::new(image, platforms, referrers, source));
    }
    let entries = node.expect_keys("an image", &IMAGE)?;
    let Some(name) = node.get("image") else {
        return Err(node.problem("an image has no name", "write its name under `image`"));
    };
    let image = parse_image(name)?;
    let Defaults {
        platforms,
        referrers,
    } = conditions(node, defaults)?;
    let mut wanted = Wanted::new(image.clone(), platforms, referrers, source);
    if let Some(pick) = pick(entries)? {
        if image.tag.is_some() || image.digest.is_some() {
            let sentence = ImageError::NameOnly.to_string();
            return Err(name.problem("this image says twice what of it is wanted", sentence));
        }
        wanted.pick = pick;
    }
    Ok(wanted)
}

fn parse_image(node: &Node) -> Result<Image, Problem> {
    let text = node.expect_text("an image")?;
    Image::parse(text)
        .map_err(|error| node.problem(format!("`{text}` names no image"), error.to_string()))
}

/// What `tag`, `tags` and `digest` say; only one of them may stand there, but for a tag that names the digest.
fn pick(entries: &[Entry]) -> Result<Option<Pick>, Problem> {
    let get = |key: &str| entries.iter().find(|entry| entry.key == key);
    let tag = match get("tag") {
        Some(entry) => Some(parse_tag(&entry.value)?),
        None => None,
    };
    match (get("digest"), tag, get("tags")) {
        (_, Some(_), Some(tags)) | (Some(_), None, Some(tags)) => Err(Problem {
            title: "this image says twice what of it is wanted".to_owned(),
            at: Some(tags.key_at.clone()),
            remedy: "leave out `tags`, or `tag` and `digest`".to_owned(),
        }),
        (Some(digest), tag, None) => {
            let node = &digest.value;
            let text = node.expect_text("a digest")?;
            let digest = Digest::parse(text).map_err(|error| {
                node.problem(format!("`{text}` is no digest"), error.to_string())
            })?;
            Ok(Some(Pick::Digest { digest, tag }))
        }
        (None, Some(tag), None) => Ok(Some(Pick::Tags(vec![tag]))),
        (None, None, Some(tags)) => Ok(Some(tags_of(&tags.value)?)),
        (None, None, None) => Ok(None),
    }
}

fn parse_tag(node: &Node) -> Result<Tag, Problem> {
    let text = node.expect_text("a tag")?;
    Tag::parse(text).map_err(|error| node.problem(format!("`{text}` is no tag"), error.to_string()))
}

/// `tags`: names and globs, or a table of conditions.
fn tags_of(node: &Node) -> Result<Pick, Problem> {
    if !matches!(node.kind, Kind::Mapping(_)) {
        let texts = node.expect_texts("a tag")?;
        if texts.is_empty() {
            return Err(node.problem("no tag is listed", "write \"*\" if all are wanted"));
        }
        let tags: Result<Vec<Tag>, _> = texts.iter().map(|(text, _)| Tag::parse(text)).collect();
        return match tags {
            Ok(tags) => Ok(Pick::Tags(tags)),
            Err(_has_patterns) => Ok(Pick::Choice(Choice {
                allow: patterns(node, Pattern::glob)?,
                ..Choice::default()
            })),
        };
    }
    let mut choice = Choice::default();
    node.expect_keys("tags", &TAGS)?;
    // In this order, whatever order they were written in: TOML has none.
    for key in TAGS {
        let Some(value) = node.get(key) else {
            continue;
        };
        match key {
            "include" => choice.allow.extend(patterns(value, Pattern::glob)?),
            "allow" => choice.allow.extend(patterns(value, Pattern::regex)?),
            "exclude" => choice.deny.extend(patterns(value, Pattern::glob)?),
            "deny" => choice.deny.extend(patterns(value, Pattern::regex)?),
            "newest" => choice.newest = Some(number(value)?),
            "prereleases" => choice.prereleases = value.expect_bool("prereleases")?,
            _ => {
                for (text, node) in value.expect_texts("a range of versions")? {
                    let range = Range::parse(text).map_err(|error| {
                        let title = format!("`{text}` is no range of versions: {error}");
                        node.problem(title, "a range looks like `>=1.25, <2`, `~1.27` or `1.x`")
                    })?;
                    choice.semver.push(range);
                }
            }
        }
    }
    Ok(Pick::Choice(choice))
}

fn patterns(
    node: &Node,
    parse: impl Fn(&str) -> Result<Pattern, String>,
) -> Result<Vec<Pattern>, Problem> {
    let texts = node.expect_texts("a pattern of tags")?;
    let one = |(text, node): (&str, &Node)| {
        parse(text).map_err(|error| {
            let remedy = "`include` and `exclude` take globs (1.2*), `allow` and `deny` regular expressions (1\\.2.*)";
            node.problem(format!("`{text}` is no pattern: {error}"), remedy)
        })
    };
    texts.into_iter().map(one).collect()
}

fn number(node: &Node) -> Result<usize, Problem> {
    let number = node.text().filter(|_| matches!(node.kind, Kind::Number(_)));
    let number = number.and_then(|text| text.parse().ok());
    number.filter(|number| *number > 0).ok_or_else(|| {
        node.problem(
            "`newest` is no count of tags",
            "write how many are wanted, at least 1",
        )
    })
}
