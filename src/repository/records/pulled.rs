//! What was pulled, folded: each tag once with what it meant last, what was asked for by digest alone once, and the platforms that were
//! taken of an index with it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::clock::Wall;
use crate::oci::{Digest, Tag};
use crate::store::index::PulledRow;

/// Something that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Repository key.
    pub repository: String,
    /// Image.
    pub image: String,
    /// The tag that it was asked for by; `None`: by digest.
    pub tag: Option<Tag>,
    /// What was served last.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Of an index, what clients took of it. None: nobody is known to have taken any.
    pub platforms: Vec<Digest>,
    /// Who pulled it, as records show them.
    pub by: Vec<String>,
    /// How often.
    pub count: u64,
    /// When first.
    pub first: Wall,
    /// When last.
    pub last: Wall,
}

/// Folds all that was pulled of one image of one repository.
pub(super) fn fold(rows: Vec<PulledRow>) -> Vec<Pulled> {
    let pulled: HashSet<Digest> = rows.iter().map(|row| row.digest.clone()).collect();
    let mut children: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
    let mut tags: BTreeMap<Tag, PulledRow> = BTreeMap::new();
    let mut digests: Vec<PulledRow> = Vec::new();
    for row in rows {
        if let Ok(tag) = Tag::parse(&row.reference) {
            let newest = tags.get(&tag).is_none_or(|known| row.last > known.last);
            if newest {
                tags.insert(tag, row);
            }
            continue;
        }
        // Without the index that it belongs to it stands for itself.
        let parents = row.parents.iter().filter(|parent| pulled.contains(parent));
        let mut is_child = false;
        for parent in parents {
            is_child = true;
            let taken = children.entry(parent.clone()).or_default();
            taken.insert(row.digest.clone());
        }
        if !is_child {
            digests.push(row);
        }
    }
    let tags = tags.into_iter().map(|(tag, row)| (Some(tag), row));
    let digests = digests.into_iter().map(|row| (None, row));
    tags.chain(digests)
        .map(|(tag, row)| Pulled {
            platforms: children
                .get(&row.digest)
                .map(|taken| taken.iter().cloned().collect())
                .unwrap_or_default(),
            repository: row.repo,
            image: row.name,
            tag,
            digest: row.digest,
            media_type: row.media_type,
            by: row.by,
            count: row.count,
            first: row.first,
            last: row.last,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(reference: &str, content: &[u8], parents: &[&[u8]], last: i64) -> PulledRow {
        let digest = Digest::of(content);
        PulledRow {
            repo: "hub".to_owned(),
            name: "a/b".to_owned(),
            reference: if reference.is_empty() {
                digest.to_string()
            } else {
                reference.to_owned()
            },
            digest,
            media_type: "m".to_owned(),
            parents: parents.iter().map(|parent| Digest::of(parent)).collect(),
            platform: None,
            by: vec!["ada".to_owned()],
            count: 1,
            first: Wall::from_ms(1),
            last: Wall::from_ms(last),
        }
    }

    /// Tag or nothing, what it is, and the platforms.
    fn told(rows: Vec<PulledRow>) -> Vec<(String, Digest, Vec<Digest>)> {
        let told = fold(rows).into_iter().map(|one| {
            let tag = one.tag.map_or_else(String::new, |tag| tag.to_string());
            (tag, one.digest, one.platforms)
        });
        told.collect()
    }

    #[test]
    fn a_tag_stands_once_with_what_it_meant_last() {
        let rows = vec![
            row("1", b"old", &[], 10),
            row("1", b"new", &[], 30),
            row("1", b"older", &[], 20),
            row("2", b"old", &[], 5),
        ];
        let expected = [
            ("1".to_owned(), Digest::of(b"new"), vec![]),
            ("2".to_owned(), Digest::of(b"old"), vec![]),
        ];
        assert_eq!(told(rows), expected);
    }

    #[test]
    fn what_was_chosen_from_an_index_is_a_platform_of_it() {
        let mut platforms = vec![Digest::of(b"amd64"), Digest::of(b"arm64")];
        platforms.sort_unstable();
        let rows = vec![
            row("1", b"index", &[], 10),
            row("", b"amd64", &[b"index", b"unpulled"], 11),
            row("", b"arm64", &[b"index"], 12),
            row("", b"lonely", &[b"unpulled"], 13),
            row("", b"plain", &[], 14),
            row("", b"other index", &[], 15),
            row("", b"s390x", &[b"other index"], 16),
        ];
        let expected = [
            ("1".to_owned(), Digest::of(b"index"), platforms),
            (String::new(), Digest::of(b"lonely"), vec![]),
            (String::new(), Digest::of(b"plain"), vec![]),
            (
                String::new(),
                Digest::of(b"other index"),
                vec![Digest::of(b"s390x")],
            ),
        ];
        assert_eq!(told(rows), expected);
        assert!(told(Vec::new()).is_empty());
    }
}
