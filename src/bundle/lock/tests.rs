#![allow(clippy::disallowed_methods, reason = "tests read their fixtures")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Lock, Locked};
use crate::oci::{Digest, MediaType, Platform, Tag};

fn fixture() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/lists/images.lock");
    std::fs::read_to_string(path).unwrap()
}

fn digest(letter: char) -> Digest {
    Digest::parse(&format!("sha256:{}", letter.to_string().repeat(64))).unwrap()
}

fn locked(letter: char) -> Locked {
    Locked {
        digest: digest(letter),
        media_type: MediaType::parse("application/vnd.oci.image.index.v1+json").unwrap(),
        size: 1,
        blobs: 100,
        referrers: BTreeSet::new(),
        tags: BTreeMap::new(),
        platforms: [(Platform::new("linux", "amd64"), digest(letter))].into(),
    }
}

#[test]
fn a_lock_is_the_same_to_the_byte() {
    let text = fixture();
    let lock = Lock::parse("images.lock", &text).unwrap();
    assert_eq!(lock.to_text(), text);
    assert_eq!(lock.images().count(), 2);
    let nginx = lock.get("docker.io/library/nginx:1.27").unwrap();
    assert_eq!(
        (
            nginx.size,
            nginx.blobs,
            nginx.referrers.len(),
            nginx.tags.len(),
            nginx.platforms.len()
        ),
        (10_229, 73_400_320, 2, 1, 4)
    );
    // However it was ordered and spaced before.
    let (head, images) = text.split_once("\n[[image]]").unwrap();
    let mut images: Vec<&str> = images.split("\n[[image]]").collect();
    images.reverse();
    let turned = format!("{head}\n[[image]]{}", images.join("\n\n[[image]]")).replace(" = ", "=");
    assert_eq!(Lock::parse("x", &turned).unwrap().to_text(), text);
    assert_eq!(Lock::parse("x", "version = 1").unwrap(), Lock::default());
}

#[test]
fn what_is_wrong_with_a_lock_is_shown_with_its_line() {
    let text = fixture();
    let nginx = "docker.io/library/nginx:1.27";
    for (from, to, expected, line) in [
        ("version = 1", "version = 2", "this lock is of version 2", 2),
        (
            "size = 10229",
            "size = 10229\nsizes = 1",
            "unknown field `sizes`",
            9,
        ),
        ("size = 10229\n", "", "missing field `size`", 4),
        (
            "size = 10229",
            "size = -1",
            "invalid value: integer `-1`",
            8,
        ),
        (nginx, "nginx:1.27", "`nginx:1.27` is no full reference", 5),
        (
            nginx,
            "docker.io/library/nginx",
            "a tag or a digest belongs",
            5,
        ),
        (
            nginx,
            "index.docker.io/library/nginx:1",
            "write `docker.io/library/nginx:1`",
            5,
        ),
        (nginx, "ghcr.io/../x:1", "is no full reference", 5),
        ("sha256:aaaaa", "sha256:aaaa", "is no digest", 6),
        (
            "oci.image.index.v1+json",
            "oci.image.index.v1+json; x=y",
            "is no media type",
            7,
        ),
        ("sha256:11111", "sha256:1111", "is no digest", 11),
        (
            "sha256:1111111111111111111111111111111111111111111111111111111111111111",
            "sha256:2222222222222222222222222222222222222222222222222222222222222222",
            "stands twice",
            12,
        ),
        (".sig\"", "/sig\"", "is no tag", 15),
        ("linux/amd64", "linux amd64", "is no platform", 18),
        (
            "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
            "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
            "stands twice",
            21,
        ),
        (
            "ghcr.io/team/app:v1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            nginx,
            "is locked twice",
            25,
        ),
    ] {
        assert!(text.contains(from), "{from}");
        let error = Lock::parse("images.lock", &text.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{from}: {error}");
        assert!(
            error.contains(&format!("images.lock:{line}:")),
            "{from}: {error}"
        );
    }
    assert!(
        Lock::parse("x", "")
            .unwrap_err()
            .to_string()
            .contains("missing field `version`")
    );
    let huge = " ".repeat(super::LOCK_MAX + 1);
    assert!(
        Lock::parse("x", &huge)
            .unwrap_err()
            .to_string()
            .contains("more than 64 MiB")
    );
}

#[test]
fn what_could_not_be_read_back_is_not_locked() {
    let mut lock = Lock::default();
    assert!(
        lock.add("nginx:1.27", locked('a'))
            .unwrap_err()
            .to_string()
            .contains("write `docker.io/library/nginx:1.27`")
    );
    for (os, architecture) in [
        ("linux\"", "amd64"),
        ("", "amd64"),
        ("Linux", "amd64"),
        ("a/b", "c"),
        ("a\nb", "c"),
    ] {
        let mut odd = locked('a');
        odd.platforms
            .insert((Platform::new(os, architecture), digest('b')));
        assert!(
            lock.add("docker-hub/a:1", odd).is_err(),
            "{os}/{architecture}"
        );
    }
    let mut empty = locked('a');
    empty.platforms.insert((Platform::default(), digest('b')));
    lock.add("docker-hub/a:1", empty).unwrap();
    assert_eq!(Lock::parse("x", &lock.to_text()).unwrap(), lock);
}

#[test]
fn people_are_told_what_changed() {
    let mut earlier = Lock::default();
    let mut later = Lock::default();
    earlier.add("ghcr.io/a:gone", locked('a')).unwrap();
    later.add("ghcr.io/b:new", locked('b')).unwrap();
    for lock in [&mut earlier, &mut later] {
        lock.add("ghcr.io/c:same", locked('c')).unwrap();
        lock.add("ghcr.io/d:moved", locked('d')).unwrap();
        lock.add("ghcr.io/e:wider", locked('e')).unwrap();
    }
    assert!(later.diff(&later).is_empty() && later.diff(&later).to_string().is_empty());
    later
        .add(
            "ghcr.io/d:moved",
            Locked {
                blobs: 150,
                ..locked('1')
            },
        )
        .unwrap();
    let mut wider = Locked {
        referrers: [digest('1'), digest('2')].into(),
        tags: [(Tag::parse("sha256-x.sig").unwrap(), digest('3'))].into(),
        blobs: 90,
        ..locked('e')
    };
    wider.platforms = [(Platform::new("linux", "arm64"), digest('f'))].into();
    later.add("ghcr.io/e:wider", wider).unwrap();
    assert_eq!(
        later.diff(&earlier).to_string(),
        "- ghcr.io/a:gone: sha256:aaaaaaaaaaaa\n\
         + ghcr.io/b:new: sha256:bbbbbbbbbbbb\n\
         ~ ghcr.io/d:moved: sha256:dddddddddddd is now sha256:111111111111, 50 bytes more\n\
         ~ ghcr.io/e:wider: without linux/amd64, with linux/arm64, 2 referrers more, with the tag sha256-x.sig, 10 bytes less\n"
    );
    let mut signed = later.clone();
    let e = later.get("ghcr.io/e:wider").unwrap().clone();
    let signed_again = Locked {
        referrers: [digest('1')].into(),
        tags: [(Tag::parse("sha256-x.sig").unwrap(), digest('4'))].into(),
        ..e
    };
    signed.add("ghcr.io/e:wider", signed_again).unwrap();
    assert_eq!(
        signed.diff(&later).to_string(),
        "~ ghcr.io/e:wider: 1 referrer fewer, sha256-x.sig: sha256:333333333333 is now sha256:444444444444\n"
    );
    let mut other = locked('c');
    other.platforms = [(Platform::new("linux", "amd64"), digest('9'))].into();
    let mut again = later.clone();
    again.add("ghcr.io/c:same", other).unwrap();
    assert_eq!(
        again.diff(&later).to_string(),
        "~ ghcr.io/c:same: linux/amd64: sha256:cccccccccccc is now sha256:999999999999\n"
    );
}

prop_compose! {
    fn any_locked()(
        letter in proptest::char::range('a', 'f'),
        size in 0..i64::MAX as u64,
        blobs in 0..i64::MAX as u64,
        referrers in proptest::collection::btree_set(proptest::char::range('a', 'f'), 0..4),
        tags in proptest::collection::btree_map("[a-z0-9_][a-z0-9_.-]{0,9}", proptest::char::range('a', 'f'), 0..4),
        platforms in proptest::collection::btree_set(("[a-z]{1,5}", "[a-z0-9]{1,5}", proptest::char::range('a', 'f')), 0..4),
    ) -> Locked {
        let platforms = platforms.into_iter();
        let platforms = platforms.map(|(os, architecture, letter)| (Platform::new(os, architecture), digest(letter)));
        let tags = tags.into_iter().map(|(tag, letter)| (Tag::parse(&tag).unwrap(), digest(letter)));
        Locked {
            size,
            blobs,
            referrers: referrers.into_iter().map(digest).collect(),
            tags: tags.collect(),
            platforms: platforms.collect(),
            ..locked(letter)
        }
    }
}

proptest! {
    #[test]
    fn locks_are_read_as_they_were_written(
        images in proptest::collection::btree_map("[a-z]{1,4}\\.io/[a-z]{1,4}:[a-z0-9_]{1,4}", any_locked(), 0..5),
    ) {
        let mut lock = Lock::default();
        for (reference, locked) in images {
            lock.add(&reference, locked).unwrap();
        }
        let text = lock.to_text();
        let again = Lock::parse("x", &text).unwrap();
        prop_assert_eq!(again.to_text(), text);
        prop_assert!(again.diff(&lock).is_empty());
        prop_assert_eq!(again, lock);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(version|image|=|1|\\[|\\]|\"|\n|reference|digest|[{}.a é]){0,60}") {
        let _ = Lock::parse("x", &text);
    }
}
