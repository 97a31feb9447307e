//! What was pulled and what was missing.

use super::*;

fn pull(reference: &str, content: &[u8], who: &str, at: i64) -> PullRow {
    PullRow {
        repo: "hub".to_owned(),
        name: "a/b".to_owned(),
        reference: reference.to_owned(),
        digest: Digest::of(content),
        media_type: "m".to_owned(),
        parent: None,
        platform: None,
        who: who.to_owned(),
        first: Wall::from_ms(at),
        last: Wall::from_ms(at),
        count: 1,
    }
}

const ALL: Kept = Kept {
    since: Wall::from_ms(0),
    most: 1000,
};

#[tokio::test]
async fn pulls_are_counted_by_what_and_by_whom() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let mut child = pull(&Digest::of(b"c").to_string(), b"c", "ada", 50);
    child.parent = Some(Digest::of(b"1"));
    child.platform = Some("linux/amd64".to_owned());
    let rows = vec![
        pull("1", b"1", "ada", 10),
        pull("1", b"1", "bob", 20),
        pull("1", b"2", "ada", 30),
        child.clone(),
    ];
    index.add_pulls(rows, ALL).await.unwrap();
    child.platform = None;
    let again = vec![pull("1", b"1", "ada", 40), child];
    index.add_pulls(again, ALL).await.unwrap();
    let wanted = |since: i64, by: Option<&[&str]>| PullsWanted {
        since: Some(Wall::from_ms(since)),
        repo: Some("hub".to_owned()),
        by: by.map(|by| by.iter().map(|one| (*one).to_owned()).collect()),
    };
    let told = |rows: &[PulledRow]| -> Vec<(String, Digest, Vec<String>, u64, i64, i64)> {
        let told = rows.iter().map(|row| {
            let (first, last) = (row.first.as_ms(), row.last.as_ms());
            let by = row.by.clone();
            (
                row.reference.clone(),
                row.digest.clone(),
                by,
                row.count,
                first,
                last,
            )
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|row| row.4);
        told
    };
    let names =
        |names: &[&str]| -> Vec<String> { names.iter().map(|one| (*one).to_owned()).collect() };
    let one = |by: &[&str], count, first, last| {
        (
            "1".to_owned(),
            Digest::of(b"1"),
            names(by),
            count,
            first,
            last,
        )
    };
    let rows = index.pulls(wanted(0, None), None, 10).await.unwrap();
    let two = ("1".to_owned(), Digest::of(b"2"), names(&["ada"]), 1, 30, 30);
    let platform = Digest::of(b"c");
    let three = (platform.to_string(), platform, names(&["ada"]), 2, 50, 50);
    assert_eq!(told(&rows), [one(&["ada", "bob"], 3, 10, 40), two, three]);
    let child = rows.iter().find(|row| !row.parents.is_empty()).unwrap();
    assert_eq!(child.parents, [Digest::of(b"1")]);
    assert_eq!(child.platform.as_deref(), Some("linux/amd64"));
    // By whom, and since when.
    let rows = index
        .pulls(wanted(0, Some(&["bob"])), None, 10)
        .await
        .unwrap();
    assert_eq!(told(&rows), [one(&["bob"], 1, 20, 20)]);
    let rows = index
        .pulls(wanted(35, Some(&["ada"])), None, 10)
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    assert!(
        index
            .pulls(wanted(0, Some(&[])), None, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(index.pullers().await.unwrap(), ["ada", "bob"]);
    // Page by page.
    let (mut behind, mut seen) = (None, Vec::new());
    loop {
        let page = index
            .pulls(PullsWanted::default(), behind, 1)
            .await
            .unwrap();
        let Some(row) = page.into_iter().next() else {
            break;
        };
        let digest = row.digest.to_string();
        behind = Some([row.repo, row.name, row.reference, digest.clone()]);
        seen.push(digest);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn old_pulls_go_and_so_do_the_oldest_of_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let rows = (1..=6)
        .map(|at| pull(&at.to_string(), b"1", "ada", at))
        .collect();
    let kept = Kept {
        since: Wall::from_ms(2),
        most: 3,
    };
    index.add_pulls(rows, kept).await.unwrap();
    let left = |rows: Vec<PulledRow>| -> Vec<String> {
        rows.into_iter().map(|row| row.reference).collect()
    };
    let rows = index.pulls(PullsWanted::default(), None, 10).await.unwrap();
    assert_eq!(left(rows), ["4", "5", "6"]);
    let kept = Kept {
        since: Wall::from_ms(6),
        most: 3,
    };
    index.add_pulls(Vec::new(), kept).await.unwrap();
    let rows = index.pulls(PullsWanted::default(), None, 10).await.unwrap();
    assert_eq!(left(rows), ["6"]);
}

fn miss(reference: &str, is_blob: bool, at: i64) -> MissingRow {
    MissingRow {
        key: MissingKey {
            repo: "all".to_owned(),
            name: "a/b".to_owned(),
            reference: reference.to_owned(),
            is_blob,
        },
        under: None,
        why: "offline".to_owned(),
        who: "ada".to_owned(),
        first: Wall::from_ms(at),
        last: Wall::from_ms(at),
        count: 1,
    }
}

/// What is missing, with what it is a part of.
async fn lacking(index: &Index) -> Vec<(String, Option<String>)> {
    let behind = BTreeMap::from([("all".to_owned(), vec!["all".to_owned(), "hub".to_owned()])]);
    let rows = index.missing(behind, None, 100).await.unwrap();
    rows.into_iter()
        .map(|(row, part_of)| (row.key.reference, part_of))
        .collect()
}

#[tokio::test]
async fn what_is_missing_goes_when_it_is_served_and_when_it_is_too_old_or_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let missed = vec![
        miss("1", false, 10),
        miss("2", false, 20),
        miss("3", false, 30),
    ];
    index.change_missing(Vec::new(), missed, ALL).await.unwrap();
    let again = vec![miss("1", false, 40)];
    index.change_missing(Vec::new(), again, ALL).await.unwrap();
    let rows = index.missing(BTreeMap::new(), None, 1).await.unwrap();
    let (first, _) = &rows[0];
    assert_eq!(
        (first.count, first.first, first.last),
        (2, Wall::from_ms(10), Wall::from_ms(40))
    );
    let behind = Some(first.key.clone());
    let rows = index.missing(BTreeMap::new(), behind, 1).await.unwrap();
    assert_eq!(rows[0].0.key.reference, "2");
    let served = |repos: &[&str], is_blob| Served {
        repos: repos.iter().map(|one| (*one).to_owned()).collect(),
        name: "a/b".to_owned(),
        reference: "2".to_owned(),
        is_blob,
    };
    for (served, gone) in [
        (served(&["hub"], false), 0),
        (served(&["all"], true), 0),
        (served(&["hub", "all"], false), 1),
    ] {
        let went = index.change_missing(vec![served], Vec::new(), ALL).await;
        assert_eq!(went.unwrap(), gone);
    }
    assert_eq!(index.count_missing().await.unwrap(), 2);
    let kept = Kept {
        since: Wall::from_ms(0),
        most: 2,
    };
    let more = vec![miss("4", false, 50)];
    assert_eq!(
        index.change_missing(Vec::new(), more, kept).await.unwrap(),
        1
    );
    let left: Vec<String> = lacking(&index)
        .await
        .into_iter()
        .map(|(one, _)| one)
        .collect();
    assert_eq!(
        left,
        ["1", "4"],
        "the one that was asked for longest ago went"
    );
    assert_eq!(index.clear_missing(Wall::from_ms(40)).await.unwrap(), 1);
    assert_eq!(
        index.missing_keys().await.unwrap(),
        [miss("4", false, 0).key]
    );
}

#[tokio::test]
async fn a_part_is_missing_under_the_image_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let edge = |kind: &str, content: &[u8]| EdgeRow {
        kind: kind.to_owned(),
        digest: Digest::of(content),
        size: 1,
        media_type: "m".to_owned(),
        urls: Vec::new(),
    };
    let with = |edges| ManifestRow {
        edges,
        ..ManifestRow::default()
    };
    let image = name("a/b");
    for (content, edges) in [
        (&b"index"[..], vec![edge("child", b"image")]),
        (b"image", vec![edge("layer", b"layer")]),
        (b"signature", vec![edge("subject", b"alone")]),
    ] {
        let digest = Digest::of(content);
        index
            .record_manifest("hub", &image, &digest, with(edges))
            .await
            .unwrap();
    }
    let missed = [
        (&b"layer"[..], true),
        (b"image", false),
        (b"alone", false),
        (b"nowhere", true),
    ]
    .map(|(content, is_blob)| miss(&Digest::of(content).to_string(), is_blob, 1));
    let missed = missed.into_iter().chain([miss("tag", false, 1)]).collect();
    index.change_missing(Vec::new(), missed, ALL).await.unwrap();
    let part_of = |found: &[(String, Option<String>)], content: &[u8]| {
        let digest = Digest::of(content).to_string();
        found
            .iter()
            .find(|(one, _)| *one == digest)
            .unwrap()
            .1
            .clone()
    };
    // Nobody is known to have asked for it: what contains all of it.
    let top = Digest::of(b"index").to_string();
    let found = lacking(&index).await;
    assert_eq!(part_of(&found, b"layer"), Some(top.clone()));
    assert_eq!(part_of(&found, b"image"), Some(top));
    assert_eq!(
        part_of(&found, b"alone"),
        None,
        "its signature is no image of it"
    );
    assert_eq!(part_of(&found, b"nowhere"), None);
    // By digest, then by tag, then by the tag that was pulled last; of another image, or elsewhere, it says nothing.
    let elsewhere = PullRow {
        name: "a/c".to_owned(),
        ..pull("other", b"index", "ada", 90)
    };
    let digest = Digest::of(b"image").to_string();
    for (row, expected) in [
        (elsewhere, Digest::of(b"index").to_string()),
        (pull(&digest, b"image", "ada", 80), digest.clone()),
        (pull("1", b"index", "bob", 10), "1".to_owned()),
        (pull("2", b"index", "bob", 20), "2".to_owned()),
    ] {
        index.add_pulls(vec![row], ALL).await.unwrap();
        let found = lacking(&index).await;
        assert_eq!(part_of(&found, b"layer"), Some(expected));
    }
}
