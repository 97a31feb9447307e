mod records;

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::oci::{Digest, Name, Tag};

fn open(dir: &Path) -> Index {
    let (index, _rebuilt) = Index::open(dir, true, Wall::from_ms(0)).unwrap();
    index
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

fn row(served: &[u8], at: i64) -> TagRow {
    TagRow {
        observed: Digest::of(served),
        served: Digest::of(served),
        media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
        size: 1234,
        etag: Some("\"e\"".to_owned()),
        checked: Wall::from_ms(at),
        moved: Wall::from_ms(at),
        gone: None,
    }
}

fn manifest(subject: Option<&Digest>) -> ManifestRow {
    let edge = |kind: &str, content: &[u8], size| EdgeRow {
        kind: kind.to_owned(),
        digest: Digest::of(content),
        size,
        media_type: "application/octet-stream".to_owned(),
        urls: vec!["https://example.com/layer".to_owned()],
    };
    ManifestRow {
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        size: 527,
        artifact_type: Some("application/example".to_owned()),
        subject: subject.cloned(),
        annotations: BTreeMap::from([("a".to_owned(), "b \u{1f6a2}".to_owned())]),
        edges: vec![edge("config", b"config", 2), edge("layer", b"layer", 77)],
        labels: BTreeMap::new(),
    }
}

#[tokio::test]
async fn links_are_of_one_repository_and_one_name() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"x");
    for reopened in [false, true] {
        let index = open(dir.path());
        if !reopened {
            assert!(!index.is_linked("hub", &name("a/b"), &digest).await.unwrap());
            index.link("hub", &name("a/b"), &digest).await.unwrap();
            index.link("hub", &name("a/b"), &digest).await.unwrap();
        }
        for (repo, image, linked) in [
            ("hub", "a/b", true),
            ("hub", "a", false),
            ("quay", "a/b", false),
        ] {
            for _from_memory in 0..2 {
                let found = index.is_linked(repo, &name(image), &digest).await.unwrap();
                assert_eq!(found, linked, "{repo} {image}");
            }
        }
        assert!(
            !index
                .is_linked("hub", &name("a/b"), &Digest::of(b"y"))
                .await
                .unwrap()
        );
        assert!(
            index.names("hub").await.unwrap().is_empty(),
            "a blob's link names nothing"
        );
    }
}

#[tokio::test]
async fn manifests_come_with_link_edges_and_referrers() {
    let dir = tempfile::tempdir().unwrap();
    let (digest, subject, image) = (Digest::of(b"m"), Digest::of(b"s"), name("team/app"));
    let expected = ManifestRow {
        edges: Vec::new(),
        ..manifest(Some(&subject))
    };
    for reopened in [false, true] {
        let index = open(dir.path());
        if !reopened {
            assert_eq!(index.manifest(&digest).await.unwrap(), None);
            for _again in 0..2 {
                index
                    .record_manifest("hub", &image, &digest, manifest(Some(&subject)))
                    .await
                    .unwrap();
            }
        }
        assert_eq!(index.manifest(&digest).await.unwrap().unwrap(), expected);
        assert!(index.is_linked("hub", &image, &digest).await.unwrap());
        let size = async |repo, image, content: &[u8]| {
            index
                .descriptor_size(repo, &name(image), &Digest::of(content))
                .await
                .unwrap()
        };
        assert_eq!(size("hub", "team/app", b"layer").await, Some(77));
        assert_eq!(size("hub", "team/app", b"config").await, Some(2));
        assert_eq!(size("hub", "team/app", b"other").await, None);
        assert_eq!(size("hub", "team/other", b"layer").await, None);
        assert_eq!(size("quay", "team/app", b"layer").await, None);
        let referrers = index
            .known_referrers("hub", &image, &subject)
            .await
            .unwrap();
        assert_eq!(referrers, [(digest.clone(), expected.clone())]);
        assert!(
            index
                .known_referrers("hub", &name("other"), &subject)
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(index.names("hub").await.unwrap(), ["team/app"]);
    }
}

#[tokio::test]
async fn tags_move_and_their_history_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let (image, latest) = (name("app"), tag("latest"));
    let get = async || index.tag("hub", &image, &latest).await.unwrap();
    assert_eq!(get().await, None);
    index
        .tag_checked("hub", &image, &latest, Wall::from_ms(5))
        .await
        .unwrap();
    assert_eq!(get().await, None, "what is not there cannot be confirmed");

    index
        .put_tag("hub", &image, &latest, row(b"one", 10), "pulled")
        .await
        .unwrap();
    assert_eq!(get().await.unwrap(), row(b"one", 10));
    index
        .tag_checked("hub", &image, &latest, Wall::from_ms(20))
        .await
        .unwrap();
    assert_eq!(get().await.unwrap().checked, Wall::from_ms(20));
    index
        .put_tag("hub", &image, &latest, row(b"one", 30), "pulled")
        .await
        .unwrap();
    assert_eq!(
        get().await.unwrap().moved,
        Wall::from_ms(10),
        "it has not moved"
    );
    index
        .put_tag("hub", &image, &latest, row(b"two", 40), "revalidated")
        .await
        .unwrap();
    assert_eq!(get().await.unwrap(), row(b"two", 40));
    index
        .put_tag("hub", &image, &latest, row(b"one", 50), "rolled back")
        .await
        .unwrap();

    let history = index.history("hub", &image, &latest).await.unwrap();
    let said: Vec<_> = history
        .iter()
        .map(|row| {
            (
                row.digest.clone(),
                row.first.as_ms(),
                row.last.as_ms(),
                row.cause.as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (Digest::of(b"one"), 50, 50, "rolled back"),
            (Digest::of(b"two"), 40, 40, "revalidated"),
            (Digest::of(b"one"), 10, 30, "pulled"),
        ]
    );

    index
        .tag_gone("hub", &image, &latest, Wall::from_ms(60))
        .await
        .unwrap();
    index
        .tag_gone("hub", &image, &latest, Wall::from_ms(70))
        .await
        .unwrap();
    let gone = get().await.unwrap();
    assert_eq!(
        (gone.gone, gone.checked),
        (Some(Wall::from_ms(60)), Wall::from_ms(50))
    );
    assert!(index.known_tags("hub", &image).await.unwrap().is_empty());
    index
        .tag_checked("hub", &image, &latest, Wall::from_ms(80))
        .await
        .unwrap();
    assert_eq!(get().await.unwrap().gone, None, "it is back");
    assert_eq!(index.known_tags("hub", &image).await.unwrap(), ["latest"]);
    assert_eq!(index.names("hub").await.unwrap(), ["app"]);

    index.forget_tag("hub", &image, &latest).await.unwrap();
    assert_eq!(get().await, None);
    assert_eq!(
        index.history("hub", &image, &latest).await.unwrap().len(),
        3
    );
}

#[tokio::test]
async fn a_tag_held_back_keeps_both_digests_and_adds_no_history() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let (image, latest) = (name("app"), tag("latest"));
    index
        .put_tag("hub", &image, &latest, row(b"one", 10), "pulled")
        .await
        .unwrap();
    let held = TagRow {
        observed: Digest::of(b"two"),
        ..row(b"one", 20)
    };
    index
        .put_tag("hub", &image, &latest, held, "held back")
        .await
        .unwrap();
    let found = index.tag("hub", &image, &latest).await.unwrap().unwrap();
    assert_eq!(
        (found.observed, found.served),
        (Digest::of(b"two"), Digest::of(b"one"))
    );
    assert_eq!(
        index.history("hub", &image, &latest).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn names_and_tags_are_sorted_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    for (image, text) in [
        ("b", "v10"),
        ("b", "v9"),
        ("b", "V1"),
        ("a-z", "x"),
        ("a/z", "x"),
        ("a", "x"),
    ] {
        index
            .put_tag("hub", &name(image), &tag(text), row(b"x", 1), "pulled")
            .await
            .unwrap();
    }
    assert_eq!(index.names("hub").await.unwrap(), ["a", "a-z", "a/z", "b"]);
    assert_eq!(
        index.known_tags("hub", &name("b")).await.unwrap(),
        ["V1", "v10", "v9"]
    );
}

#[tokio::test]
async fn lists_are_kept_whole() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let (image, subject) = (name("app"), Digest::of(b"s"));
    assert_eq!(index.tag_list("hub", &image).await.unwrap(), None);
    for (tags, at) in [(vec!["b".to_owned(), "a".to_owned()], 1), (Vec::new(), 2)] {
        index
            .put_tag_list("hub", &image, tags.clone(), Wall::from_ms(at))
            .await
            .unwrap();
        assert_eq!(
            index.tag_list("hub", &image).await.unwrap(),
            Some((tags, Wall::from_ms(at)))
        );
    }
    assert_eq!(
        index.referrer_list("hub", &image, &subject).await.unwrap(),
        None
    );
    index
        .put_referrer_list("hub", &image, &subject, b"{}".to_vec(), Wall::from_ms(3))
        .await
        .unwrap();
    assert_eq!(
        index.referrer_list("hub", &image, &subject).await.unwrap(),
        Some((b"{}".to_vec(), Wall::from_ms(3)))
    );
}

#[tokio::test]
async fn a_command_that_fails_takes_nothing_of_its_group_along() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let image = name("app");
    let good: Vec<_> = (0..50_u8).map(|number| Digest::of(&[number])).collect();
    let links = good.iter().map(|digest| index.link("hub", &image, digest));
    let bad = (0..50).map(|_| {
        index.write(|connection| {
            connection.execute("INSERT INTO link VALUES ('half', 'done', 'x', 0, 0)", [])?;
            connection.execute("INSERT INTO nowhere VALUES (1)", [])
        })
    });
    let (links, bad) = futures_util::future::join(
        futures_util::future::join_all(links),
        futures_util::future::join_all(bad),
    )
    .await;
    assert!(links.iter().all(Result::is_ok));
    assert!(
        bad.iter()
            .all(|answer| matches!(answer, Err(IndexError::Database(_))))
    );
    let half = index.read(|c| {
        c.query_row("SELECT count(*) FROM link WHERE repo = 'half'", [], |r| {
            r.get::<_, i64>(0)
        })
    });
    assert_eq!(half.await.unwrap(), 0);
    for digest in &good {
        assert!(index.is_linked("hub", &image, digest).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_rows_in_memory_never_lag_behind_an_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let (image, latest) = (name("app"), tag("latest"));
    let (done, writing) = tokio::sync::watch::channel(0_i64);
    let writer = async {
        for at in 1..400_i64 {
            index
                .put_tag("hub", &image, &latest, row(&at.to_le_bytes(), at), "test")
                .await
                .unwrap();
            done.send_replace(at);
        }
        done.send_replace(i64::MAX);
    };
    let reader = async || {
        loop {
            let acknowledged = *writing.borrow();
            if acknowledged == i64::MAX {
                return;
            }
            let found = index.tag("hub", &image, &latest).await.unwrap();
            let at = found.map_or(0, |row| row.checked.as_ms());
            assert!(at >= acknowledged, "{at} after {acknowledged}");
            tokio::task::yield_now().await;
        }
    };
    let forgetter = async {
        // Other tags in the same cache, so that shards are touched and rows fall out.
        for number in 0..5000 {
            let other = tag(&format!("t{number}"));
            let _absent = index.tag("hub", &image, &other).await.unwrap();
        }
    };
    futures_util::future::join(
        futures_util::future::join3(writer, reader(), reader()),
        forgetter,
    )
    .await;
}

#[test]
fn a_row_that_was_read_before_a_write_is_not_kept() {
    let hot = Hot::<u8>::new(64);
    let read_at = hot.get("k").unwrap_err();
    hot.written("k", Some(2));
    hot.fill("k", 1, read_at);
    assert_eq!(hot.get("k"), Ok(2));
    hot.written("k", None);
    let read_at = hot.get("k").unwrap_err();
    hot.fill("k", 3, read_at);
    assert_eq!(hot.get("k"), Ok(3));
    for number in 0..10_000 {
        hot.written(&number.to_string(), Some(0));
    }
    assert!(hot.get("k").is_err(), "bounded");
}

#[tokio::test]
async fn garbled_rows_count_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let (image, latest) = (name("app"), tag("latest"));
    index
        .put_tag("hub", &image, &latest, row(b"one", 1), "pulled")
        .await
        .unwrap();
    index
        .record_manifest("hub", &image, &Digest::of(b"m"), manifest(None))
        .await
        .unwrap();
    for garble in [
        "UPDATE tag SET served = 'sha256:zz'",
        "UPDATE tag_history SET digest = x'00ff'",
        "UPDATE manifest SET annotations = '{'",
        "UPDATE edge SET size = -1",
    ] {
        index
            .write(move |connection| connection.execute(garble, []))
            .await
            .unwrap();
    }
    drop(index);
    let index = open(dir.path());
    assert_eq!(index.tag("hub", &image, &latest).await.unwrap(), None);
    assert!(
        index
            .history("hub", &image, &latest)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(index.manifest(&Digest::of(b"m")).await.unwrap(), None);
    let layer = Digest::of(b"layer");
    let size = index.descriptor_size("hub", &image, &layer);
    assert_eq!(size.await.unwrap(), None);
    // And can be written anew.
    index
        .put_tag("hub", &image, &latest, row(b"two", 2), "pulled")
        .await
        .unwrap();
    assert_eq!(
        index.tag("hub", &image, &latest).await.unwrap().unwrap(),
        row(b"two", 2)
    );
}

#[tokio::test]
async fn a_foreign_layer_is_what_the_images_own_manifests_call_so() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let (image, other) = (name("a/b"), name("a/c"));
    let put = async |content: &[u8], size, urls: &[&str]| {
        let mut row = manifest(None);
        row.edges[1].size = size;
        row.edges[1].urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let digest = Digest::of(content);
        let done = index.record_manifest("hub", &image, &digest, row);
        done.await.unwrap();
    };
    let asked = async |image, content: &[u8]| {
        let digest = Digest::of(content);
        let row = index.foreign_layer("hub", image, &digest).await.unwrap();
        row.map(|row| (row.size, row.urls))
    };
    put(b"plain", 77, &[]).await;
    assert_eq!(asked(&image, b"layer").await, None);
    put(b"one", 77, &["https://a.example/", "https://b.example/"]).await;
    put(b"two", 77, &["https://c.example/"]).await;
    let (size, mut urls) = asked(&image, b"layer").await.unwrap();
    urls.sort();
    let known = [
        "https://a.example/",
        "https://b.example/",
        "https://c.example/",
    ];
    assert_eq!((size, urls), (77, known.map(str::to_owned).into()));
    assert_eq!(asked(&other, b"layer").await, None, "another image");
    assert_eq!(asked(&image, b"config").await, None, "not a layer");
    // Of two sizes one is wrong; the addresses of both are never mixed.
    put(b"three", 78, &["https://d.example/"]).await;
    let (size, urls) = asked(&image, b"layer").await.unwrap();
    assert_eq!(urls.len(), if size == 77 { 3 } else { 1 });
}

#[tokio::test]
async fn a_closed_index_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let closing = index.clone();
    tokio::task::spawn_blocking(move || closing.close())
        .await
        .unwrap();
    let digest = Digest::of(b"x");
    assert!(matches!(
        index.link("hub", &name("a"), &digest).await,
        Err(IndexError::Closed)
    ));
    assert!(matches!(
        index.is_linked("hub", &name("a"), &digest).await,
        Err(IndexError::Closed)
    ));
}

#[test]
fn damage_leaves_a_note_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let marker = dir.path().join(connection::DAMAGED);
    let damage = Damage::new(marker.clone());
    let failure = |code: i32| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    drop(damage.judge(failure(rusqlite::ffi::SQLITE_FULL)));
    assert!(!marker.exists());
    drop(damage.judge(failure(rusqlite::ffi::SQLITE_CORRUPT)));
    assert!(marker.is_file());
}

#[test]
fn the_last_uses_and_totals_need_no_scan() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let plan = index.read_blocking(|connection| {
        let mut plans = Vec::new();
        for query in [
            "SELECT digest FROM blob INDEXED BY blob_by_use WHERE pinned = 0 AND kind = 0 ORDER BY manifest, last_use LIMIT 5",
            "SELECT max(last_use) FROM blob INDEXED BY blob_by_use WHERE pinned = 0 AND kind = 0 AND manifest = 0",
            "UPDATE blob SET state = 2 WHERE state <> 1 AND state = 0",
            "SELECT coalesce(sum(size), 0) FROM blob WHERE pinned > 0 AND kind = 0",
            "SELECT coalesce(sum(size), 0), count(*) FROM blob INDEXED BY blob_pushed WHERE kind = 1",
            "SELECT edge.size FROM edge JOIN link ON link.digest = edge.parent WHERE edge.digest = 'd' AND link.repo = 'r' AND link.name = 'n' LIMIT 1",
        ] {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
            let details = statement.query_map([], |row| row.get::<_, String>(3))?;
            plans.push(details.collect::<rusqlite::Result<Vec<_>>>()?.join("; "));
        }
        Ok(plans)
    });
    for plan in plan.unwrap() {
        let scans_all = plan.contains("SCAN")
            && !plan.contains("USING INDEX")
            && !plan.contains("USING COVERING INDEX");
        assert!(!scans_all && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[tokio::test]
async fn a_read_that_does_not_end_is_ended() {
    const FOREVER: &str =
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT max(n) FROM n";
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let forever = |limit| {
        index.read_within(Duration::from_millis(limit), |connection| {
            connection.query_row(FOREVER, [], |row| row.get::<_, i64>(0))
        })
    };
    // More of them than there are connections, one after the other and at once; one of them never begins.
    for limit in [20, 20, 20, 20, 20, 0] {
        assert!(matches!(forever(limit).await, Err(IndexError::TookTooLong)));
    }
    let all = futures_util::future::join_all((0..10).map(|_| forever(50))).await;
    assert!(
        all.iter()
            .all(|one| matches!(one, Err(IndexError::TookTooLong)))
    );
    // What nobody waits for any more holds no connection, and nobody else's read is ended for it.
    drop(tokio::time::timeout(Duration::from_millis(20), forever(60_000)).await);
    for _ in 0..20 {
        let read = index.read_within(Duration::from_secs(30), |connection| {
            connection.query_row("SELECT 7", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(read.await.unwrap(), 7);
    }
}

#[tokio::test]
async fn a_label_in_a_repository_is_found_by_the_label() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path());
    let label = Criterion::Label("team".to_owned(), vec!["red".to_owned()]);
    let repos = ["dev-local".to_owned()];
    let (sql, values) = properties::query(&[label], &repos, 10);
    let plan = index.read(move |connection| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let steps = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3))?;
        steps.collect::<rusqlite::Result<Vec<String>>>()
    });
    let plan = plan.await.unwrap().join("\n");
    assert!(
        plan.contains("SEARCH tag USING INDEX tag_served (served=?)"),
        "{plan}"
    );
}

#[tokio::test]
async fn what_is_admitted_vouches_for_what_it_contains() {
    let dir = tempfile::tempdir().unwrap();
    let (at, app) = (Wall::from_ms, name("team/app"));
    let [root, config, subject] = [&b"root"[..], b"config", b"subject"].map(Digest::of);
    for reopened in [false, true] {
        let index = open(dir.path());
        let standing = async |digest: &Digest, image: &Name, terms: &str| {
            index.standing("hub", image, digest, terms).await.unwrap()
        };
        if !reopened {
            let row = manifest(Some(&subject));
            index
                .record_manifest("hub", &app, &root, row)
                .await
                .unwrap();
            assert_eq!(standing(&root, &app, "t").await, StandingRow::default());
            // A clock that was ahead is taken back; one that is ahead changes nothing.
            let lone = Digest::of(b"lone");
            for (now, first) in [(9_000, 9_000), (5_000, 5_000), (7_000, 5_000)] {
                let seen = index.see("hub", &app, &lone, at(now)).await.unwrap();
                assert_eq!(seen, at(first));
            }
            assert_eq!(standing(&config, &app, "t").await, StandingRow::default());
            index.admit("hub", &app, &root, "t", at(10)).await.unwrap();
        }
        assert_eq!(standing(&root, &app, "t").await.terms.as_deref(), Some("t"));
        assert!(standing(&config, &app, "t").await.vouched);
        assert!(!standing(&config, &app, "other").await.vouched);
        assert!(!standing(&config, &name("team/b"), "t").await.vouched);
        assert!(!standing(&subject, &app, "t").await.vouched);
        assert!(!standing(&config, &app, "t").await.pinned);
    }
    let index = open(dir.path());
    index
        .admit_pinned("hub", &app, &root, at(20))
        .await
        .unwrap();
    index.admit("hub", &app, &root, "t", at(30)).await.unwrap();
    let standing = index.standing("hub", &app, &config, "x").await.unwrap();
    assert!(standing.pinned && !standing.vouched);
}

#[tokio::test]
async fn quotas_are_read_while_the_index_is_open_and_after() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(quotas_in(dir.path()).unwrap(), []);
    let index = open(dir.path());
    let row = |credential: &str, remaining, window| QuotaRow {
        repo: "hub".to_owned(),
        credential: credential.to_owned(),
        limit: 100,
        remaining,
        window,
        source: Some("192.0.2.1".to_owned()),
        seen: Wall::from_ms(7),
    };
    let window = Some(Duration::from_secs(21_600));
    let first = vec![row("a", 76, window), row("b", u64::MAX, None)];
    index.put_quotas(first).await.unwrap();
    index.put_quotas(vec![row("a", 75, window)]).await.unwrap();
    let read = index.quotas().await.unwrap();
    assert_eq!(read[0], row("a", 75, window));
    assert_eq!(read[1].window, None);
    assert_eq!(quotas_in(dir.path()).unwrap(), read);
    tokio::task::spawn_blocking(move || index.close())
        .await
        .unwrap();
    assert_eq!(quotas_in(dir.path()).unwrap(), read);
}
