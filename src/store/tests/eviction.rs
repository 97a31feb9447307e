use super::budget::{Books, Budget};
use super::choice::{Victim, choose};
use super::index::Counted;
use super::*;
use proptest::prelude::*;

#[tokio::test]
async fn the_least_recently_used_make_room_and_the_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let mut digests = Vec::new();
    for seed in 0..10 {
        digests.push(harness.fill(&noise(seed, 1000)).await);
    }
    assert_eq!(harness.store.usage().cached_bytes, 10_000);
    // The first is used again, so the second goes.
    assert!(harness.has(&digests[0]).await);
    harness.fill(&noise(100, 1500)).await;
    harness.assert_books();
    assert!(harness.store.usage().cached_bytes <= 10_000);
    let mut there = Vec::new();
    for digest in &digests {
        there.push(harness.blob_path(digest).exists());
    }
    assert_eq!(
        there,
        [true, false, false, true, true, true, true, true, true, true]
    );
    assert!(!harness.has(&digests[1]).await);
}

#[tokio::test]
async fn a_lowered_limit_is_met_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    for seed in 0..10 {
        harness.fill(&noise(seed, 1000)).await;
    }
    harness.settled().await;
    harness.close().await;
    let harness = Harness::sized(dir.path(), 3500).await;
    eventually("trimmed", || harness.store.usage().cached_bytes == 3000).await;
    assert!(harness.has(&Digest::of(&noise(9, 1000))).await);
    harness.assert_books();
}

#[tokio::test]
async fn last_uses_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 3000).await;
    let mut digests = Vec::new();
    for seed in 0..3 {
        digests.push(harness.fill(&noise(seed, 1000)).await);
    }
    assert!(harness.has(&digests[0]).await);
    harness.settled().await;
    harness.close().await;
    let harness = Harness::sized(dir.path(), 3000).await;
    harness.fill(&noise(7, 1000)).await;
    assert!(harness.has(&digests[0]).await);
    assert!(!harness.has(&digests[1]).await);
    assert!(harness.has(&digests[2]).await);
}

#[tokio::test]
async fn manifests_go_after_blobs_and_kept_content_never() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 5000).await;
    let put = async |content: Vec<u8>| {
        let digest = Digest::of(&content);
        harness.store.put(&digest, content.into()).await.unwrap();
        digest
    };
    let manifest = put(noise(1, 1000)).await;
    let pinned = harness.fill(&noise(2, 1000)).await;
    harness.keep(&pinned, std::slice::from_ref(&pinned)).await;
    let blob = harness.fill(&noise(3, 1000)).await;
    // Filled as a blob, recorded as a manifest later.
    let late = harness.fill(&noise(4, 1000)).await;
    let name = Name::parse("team/app").unwrap();
    let row = ManifestRow::default();
    let index = harness.store.index();
    index
        .record_manifest("hub", &name, &late, row)
        .await
        .unwrap();

    harness.fill(&noise(5, 2000)).await;
    assert!(!harness.has(&blob).await);
    assert!(harness.has(&manifest).await && harness.has(&pinned).await && harness.has(&late).await);

    // Everything but the pinned one can go; more than that is refused, and then nothing goes.
    let before = harness.store.usage();
    let digest = Digest::of(b"too much");
    let refused = harness.store.stage(&digest, Some(4001)).await;
    assert!(matches!(refused, Err(StageError::Full)), "{refused:?}");
    assert_eq!(harness.store.usage(), before);
    let staged = harness.store.stage(&digest, Some(4000)).await.unwrap();
    assert_eq!(harness.store.usage().blobs, 1);
    assert!(harness.has(&pinned).await);
    staged.discard().await;
    harness.assert_books();

    harness.unkeep(&pinned).await;
    let staged = harness.store.stage(&digest, Some(5000)).await.unwrap();
    assert!(!harness.has(&pinned).await);
    staged.discard().await;
    harness.assert_books();
}

#[tokio::test]
async fn reservations_count_before_the_bytes_come() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let digests: Vec<_> = (0..3_u8).map(|number| Digest::of(&[number])).collect();
    let first = harness.store.stage(&digests[0], Some(6000)).await.unwrap();
    let second = harness.store.stage(&digests[1], Some(4000)).await.unwrap();
    assert_eq!(harness.store.usage().reserved_bytes, 10_000);
    assert!(matches!(
        harness.store.stage(&digests[2], Some(1)).await,
        Err(StageError::Full)
    ));
    drop(second);
    eventually("given back", || {
        harness.store.usage().reserved_bytes == 6000
    })
    .await;
    let third = harness.store.stage(&digests[2], Some(4000)).await.unwrap();
    first.discard().await;
    third.discard().await;
    harness.assert_books();
}

#[tokio::test]
async fn a_fill_of_unknown_length_grows_until_it_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 100_000).await;
    let old = harness.fill(&noise(1, 50_000)).await;
    let content = noise(2, 100_001);
    let digest = Digest::of(&content);
    let mut staged = harness.store.stage(&digest, None).await.unwrap();
    let mut refused = None;
    for chunk in content.chunks(5_000) {
        if let Err(error) = staged.append(Bytes::copy_from_slice(chunk)).await {
            refused = Some(error);
            break;
        }
    }
    // The last chunk may be refused only at the commit, because the writer is behind.
    let refused = match refused {
        Some(error) => CommitError::Stage(error),
        None => staged.commit().await.unwrap_err(),
    };
    assert!(
        matches!(refused, CommitError::Stage(StageError::Full)),
        "{refused:?}"
    );
    assert!(!harness.has(&old).await, "it had to make room");
    eventually("given back", || harness.store.usage().reserved_bytes == 0).await;
    harness.assert_books();
    assert!(files(&harness.root.join("staging")).is_empty());
}

#[tokio::test]
async fn parts_that_wait_and_quarantined_files_make_room_too() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 4000).await;
    let damaged = harness.fill(&noise(1, 1000)).await;
    harness.store.quarantine(&damaged, "a test").await.unwrap();
    let digest = Digest::of(&noise(2, 2000));
    let mut staged = harness.store.stage(&digest, Some(2000)).await.unwrap();
    staged.append(noise(2, 1000).into()).await.unwrap();
    staged.keep().await;
    let blob = harness.fill(&noise(3, 1000)).await;
    harness.assert_books();

    harness.fill(&noise(4, 2000)).await;
    assert_eq!(harness.store.usage().quarantined_bytes, 0);
    assert_eq!(harness.store.usage().part_bytes, 1000);
    harness.fill(&noise(5, 1000)).await;
    assert_eq!(harness.store.usage().part_bytes, 0, "older than the blobs");
    assert!(harness.has(&blob).await);
    harness.assert_books();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_finish_while_everything_around_them_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 400_000).await;
    let rounds = (0..48_u64).map(|seed| {
        let harness = &harness;
        async move {
            let content = noise(seed % 16, 50_000);
            let digest = Digest::of(&content);
            for _again in 0..4 {
                let blob = match harness.store.open_blob(&digest).await.unwrap() {
                    Some(blob) => blob,
                    None => match harness.store.stage(&digest, Some(50_000)).await {
                        Ok(mut staged) => {
                            let from = usize::try_from(staged.held()).unwrap();
                            staged
                                .append(Bytes::copy_from_slice(&content[from..]))
                                .await
                                .unwrap();
                            staged.commit().await.unwrap()
                        }
                        Err(StageError::Full) => continue,
                        Err(error) => panic!("{error:?}"),
                    },
                };
                tokio::task::yield_now().await;
                assert_eq!(blob.read_whole(usize::MAX).await.unwrap(), content);
                let usage = harness.store.usage();
                assert!(usage.cached_bytes + usage.part_bytes + usage.reserved_bytes <= 400_000);
            }
        }
    });
    futures_util::future::join_all(rounds).await;
    harness.assert_books();
}

fn victims() -> impl Strategy<Value = Vec<Victim<usize>>> {
    let one = (0_u64..1000, any::<bool>(), 0_i64..50);
    proptest::collection::vec(one, 0..60).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(what, (size, manifest, last_use))| Victim {
                what,
                size,
                manifest,
                last_use,
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn the_choice_is_enough_and_not_more_and_in_order(all in victims(), need in 0_u64..20_000) {
        let total: u64 = all.iter().map(|victim| victim.size).sum();
        let Some(chosen) = choose(all.clone(), need) else {
            prop_assert!(total < need);
            return Ok(());
        };
        prop_assert!(total >= need);
        let freed: u64 = chosen.iter().map(|victim| victim.size).sum();
        prop_assert!(freed >= need);
        let but_one: u64 = chosen.iter().rev().skip(1).map(|victim| victim.size).sum();
        prop_assert!(chosen.is_empty() || but_one < need, "one too many");
        let order = |victim: &Victim<usize>| (victim.manifest, victim.last_use);
        prop_assert!(chosen.is_sorted_by_key(order));
        let spared = all.iter().filter(|victim| !chosen.contains(victim));
        let latest = chosen.iter().map(order).max();
        for victim in spared {
            prop_assert!(latest.is_none_or(|latest| latest <= order(victim)));
        }
    }

    /// P17 on the books alone: whatever is done, the limit holds, and at the end what was given is given back.
    #[test]
    fn the_books_never_exceed_the_limit(
        limit in 0_u64..10_000,
        steps in proptest::collection::vec((0_u8..8, 0_u64..3_000, any::<prop::sample::Index>()), 0..200),
    ) {
        let budget = Budget::new(limit, Books::default());
        let (mut fills, mut blobs, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for (step, bytes, pick) in steps {
            match step {
                0..=2 => match budget.reserve(bytes) {
                    Ok(reservation) => fills.push(reservation),
                    Err(shortage) => {
                        let books = budget.books();
                        prop_assert_eq!(books.used() + books.reserved + bytes, limit + shortage);
                    }
                },
                3 if !fills.is_empty() => {
                    let fill = fills.swap_remove(pick.index(fills.len()));
                    blobs.push(fill.bytes());
                    let size = fill.bytes();
                    fill.into_blob(None, Counted { size, pushed: false });
                }
                4 if !fills.is_empty() => {
                    let fill = fills.swap_remove(pick.index(fills.len()));
                    let size = fill.bytes() / 2;
                    parts.push(size);
                    fill.into_part(size);
                }
                5 if !parts.is_empty() => {
                    fills.push(budget.resume_part(parts.swap_remove(pick.index(parts.len()))));
                }
                6 if !blobs.is_empty() => {
                    let size = blobs.swap_remove(pick.index(blobs.len()));
                    budget.blob_dropped(Counted { size, pushed: false });
                }
                7 if !fills.is_empty() => drop(fills.swap_remove(pick.index(fills.len()))),
                _ => {}
            }
            let books = budget.books();
            prop_assert!(books.used() + books.reserved <= limit);
            prop_assert_eq!(books.cached, blobs.iter().sum::<u64>());
            prop_assert_eq!(books.blobs, blobs.len() as u64);
            prop_assert_eq!(books.parts, parts.iter().sum::<u64>());
            prop_assert_eq!(books.reserved, fills.iter().map(budget::Reservation::bytes).sum::<u64>());
        }
        drop(fills);
        prop_assert_eq!(budget.books().reserved, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// P17 on the disk: any sequence of fills, uses, pins, quarantines and kills leaves the books equal to the disk and below the limit.
    #[test]
    fn the_books_equal_the_disk(
        steps in proptest::collection::vec((0_u8..10, 0_u64..12, 1_usize..4_000), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut harness = Harness::sized(dir.path(), 12_000).await;
            let mut pinned = std::collections::HashSet::new();
            for (step, seed, length) in steps {
                let content = noise(seed, 1 + usize::try_from(seed).unwrap() * 300);
                let digest = Digest::of(&content);
                match step {
                    0..=3 => {
                        if let Ok(mut staged) = harness.store.stage(&digest, Some(content.len() as u64)).await {
                            let from = usize::try_from(staged.held()).unwrap();
                            let to = if step == 0 { (from + length).min(content.len()) } else { content.len() };
                            staged.append(Bytes::copy_from_slice(&content[from..to])).await.unwrap();
                            if step == 0 {
                                staged.keep().await;
                            } else {
                                staged.commit().await.unwrap();
                            }
                        }
                    }
                    4 | 5 => drop(harness.has(&digest).await),
                    6 => {
                        if harness.store.put(&digest, content.into()).await.is_ok() && seed % 4 == 0
                        {
                            harness.keep(&digest, std::slice::from_ref(&digest)).await;
                            pinned.insert(digest);
                        }
                    }
                    7 => {
                        if harness.store.quarantine(&digest, "a test").await.unwrap() {
                            pinned.remove(&digest);
                        }
                    }
                    8 => {
                        harness.close().await;
                        harness = Harness::sized(dir.path(), 12_000).await;
                    }
                    _ => {
                        harness = harness.dropped_and_opened(12_000).await;
                        eventually("settled", || harness.store.usage().settled).await;
                    }
                }
                harness.assert_books();
                let usage = harness.store.usage();
                assert!(usage.kept_bytes <= usage.cached_bytes);
                assert!(usage.cached_bytes + usage.part_bytes + usage.quarantined_bytes <= 12_000);
            }
            for digest in &pinned {
                assert!(harness.has(digest).await, "a pinned blob was let go");
            }
        });
    }
}

#[tokio::test]
async fn cut_down_what_was_not_used_lately_goes_and_nothing_half_done_stays() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 100_000).await;
    let mut digests = Vec::new();
    for seed in 0..10 {
        digests.push(harness.fill(&noise(seed, 1000)).await);
    }
    let pinned = digests[3].clone();
    harness.keep(&pinned, std::slice::from_ref(&pinned)).await;
    assert!(harness.has(&digests[0]).await);
    let damaged = harness.fill(&noise(20, 1000)).await;
    assert!(harness.store.quarantine(&damaged, "a test").await.unwrap());
    let half = Digest::of(b"half");
    let mut staged = harness.store.stage(&half, Some(4000)).await.unwrap();
    staged.append(vec![7; 2000].into()).await.unwrap();
    staged.keep().await;
    let before = harness.store.usage();
    assert_eq!((before.part_bytes, before.quarantined_bytes), (2000, 1000));
    let trimmed = harness.store.trim(3500).await.unwrap();
    assert_eq!((trimmed.gone, trimmed.cached), (10_000, 3000));
    let after = harness.store.usage();
    assert_eq!((after.part_bytes, after.quarantined_bytes), (0, 0));
    for (number, digest) in digests.iter().enumerate() {
        let stays = [0, 3, 9].contains(&number);
        assert_eq!(harness.has(digest).await, stays, "{number}");
    }
    harness.assert_books();
    // What is pinned stays, however little there may be, and the rest goes all the same.
    assert_eq!(harness.store.trim(10).await.unwrap().cached, 1000);
    assert!(harness.has(&pinned).await);
    harness.settled().await;
    harness.close().await;
    let left = files(dir.path());
    let is_junk = |name: &str| name.ends_with("-wal") || name.ends_with("-shm");
    assert!(
        left.iter()
            .all(|(path, _)| !is_junk(&path.display().to_string())),
        "{left:?}"
    );
    assert_eq!(sum(&files(&dir.path().join("staging"))), 0);
    assert_eq!(sum(&files(&dir.path().join("quarantine"))), 0);
}
