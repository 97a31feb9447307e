#![allow(clippy::disallowed_methods, reason = "tests read their fixtures")]

mod bad;
mod bounds;
mod choose;
mod images;
mod readers;

use super::{Pick, Wanted};

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/fixtures/lists/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

/// Each wanted image in one line: `source image pick platforms`.
fn lines(found: &[Wanted]) -> Vec<String> {
    let line = |wanted: &Wanted| {
        let pick = match &wanted.pick {
            Pick::Digest { digest, tag: None } => format!("@{}", digest.to_string().split_at(11).0),
            Pick::Digest {
                digest,
                tag: Some(tag),
            } => format!("{tag}@{}", digest.to_string().split_at(11).0),
            Pick::Tags(tags) => tags
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("+"),
            Pick::Choice(_) => "?".to_owned(),
        };
        let platforms: Vec<String> = wanted.platforms.iter().map(ToString::to_string).collect();
        format!(
            "{} {} {pick} {}",
            wanted.source,
            wanted.image,
            platforms.join(",")
        )
        .trim()
        .to_owned()
    };
    found.iter().map(line).collect()
}
