//! A module imports only from strictly lower ranks; equals never import each other (ARCHITECTURE.md, "Ranks").
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code: a broken assumption should panic where it stands"
)]

use std::path::{Path, PathBuf};

/// Every top-level module and its rank.
const RANKS: [(&str, u8); 25] = [
    ("cli", 10),
    ("app", 9),
    ("config", 8),
    ("server", 7),
    ("api", 6),
    ("bundle", 5),
    ("repository", 4),
    ("cache", 3),
    ("overlay", 3),
    ("upstream", 2),
    ("auth", 2),
    ("limits", 2),
    ("store", 1),
    ("oci", 0),
    ("address", 0),
    ("audit", 0),
    ("bandwidth", 0),
    ("body", 0),
    ("clock", 0),
    ("diagnosis", 0),
    ("globs", 0),
    ("recent", 0),
    ("secret", 0),
    ("tasks", 0),
    ("telemetry", 0),
];

fn rank(module: &str) -> Option<u8> {
    RANKS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, rank)| *rank)
}

/// The top-level modules that a source text names behind `crate::`, also in groups.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default();
        let mut rest = code;
        while let Some(at) = rest.find("crate::") {
            rest = rest.split_at(at + "crate::".len()).1;
            let group = rest
                .strip_prefix('{')
                .map_or(rest, |group| group.split('}').next().unwrap_or_default());
            let names: Vec<&str> = if rest.starts_with('{') {
                group.split(',').collect()
            } else {
                vec![rest]
            };
            for name in names {
                let module: String = name
                    .trim()
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                if !module.is_empty() {
                    found.push(module);
                }
            }
        }
    }
    found
}

/// What is wrong with the imports of one file.
fn violations(module: &str, text: &str) -> Vec<String> {
    let Some(own) = rank(module) else {
        return vec![format!(
            "{module} has no rank: give it one in ARCHITECTURE.md and here"
        )];
    };
    let wrong = |import: &String| {
        let allowed = import == module || rank(import).is_some_and(|rank| rank < own);
        (!allowed).then(|| {
            format!(
                "{module} (rank {own}) imports {import} (rank {:?})",
                rank(import)
            )
        })
    };
    imports(text).iter().filter_map(wrong).collect()
}

fn sources(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(sources(&entry.path()));
        } else if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn modules_import_downwards_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&root) {
        let inside = path.strip_prefix(&root).unwrap();
        let first = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let module = first.trim_end_matches(".rs");
        if matches!(module, "lib" | "main") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        wrong.extend(
            violations(module, &text)
                .into_iter()
                .map(|what| format!("{}: {what}", inside.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_planted_violation_is_found() {
    assert_eq!(violations("store", "use crate::cache::Fills;").len(), 1);
    assert_eq!(
        violations("body", "use crate::clock;").len(),
        1,
        "equals never import each other"
    );
    assert_eq!(
        violations("cache", "use crate::{oci::Digest, api::Api};").len(),
        1
    );
    assert_eq!(violations("util", "").len(), 1);
    assert!(
        violations(
            "cache",
            "use crate::{oci::Digest, store};\n// crate::api is above"
        )
        .is_empty()
    );
}
