//! Images that are kept: the journal says which, and neither eviction nor a lost index takes anything of them.

use super::journal::remove_index;
use super::*;
use crate::clock::{self, Wall};
use crate::oci::Tag;
use crate::store::index::{EdgeRow, Forgot, KeptRow, TagRow};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn name() -> Name {
    Name::parse("a/b").unwrap()
}

fn tag() -> Tag {
    Tag::parse("1.0").unwrap()
}

fn by_tag() -> Reference {
    Reference::Tag(tag())
}

/// An index of one manifest with a configuration and a layer, all of them in the store.
struct Image {
    root: Digest,
    manifests: Vec<(Digest, Bytes)>,
    config: Digest,
    layer: Digest,
}

impl Image {
    async fn new(harness: &Harness, seed: u64) -> Self {
        let config = harness
            .fill(format!("{{\"seed\":{seed}}}").as_bytes())
            .await;
        let layer = harness.fill(&noise(seed, 1000)).await;
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\
             \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"{config}\",\"size\":10}},\
             \"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"{layer}\",\"size\":1000}}]}}"
        );
        let child = Digest::of(manifest.as_bytes());
        let size = manifest.len();
        let index = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\
             \"manifests\":[{{\"mediaType\":\"{OCI_MANIFEST}\",\"digest\":\"{child}\",\"size\":{size}}}]}}"
        );
        let root = Digest::of(index.as_bytes());
        let manifests = vec![(root.clone(), index.into()), (child, manifest.into())];
        let image = Self {
            root,
            manifests,
            config,
            layer,
        };
        for (digest, bytes) in &image.manifests {
            harness.store.put(digest, bytes.clone()).await.unwrap();
        }
        image
    }

    fn all(&self) -> Vec<Digest> {
        let manifests = self.manifests.iter().map(|(digest, _)| digest.clone());
        let blobs = [self.config.clone(), self.layer.clone()];
        manifests.chain(blobs).collect()
    }

    async fn size(&self, harness: &Harness) -> u64 {
        let mut size = 0;
        for digest in self.all() {
            let blob = harness.store.open_blob(&digest).await.unwrap().unwrap();
            size += blob.size();
        }
        size
    }

    async fn keep(&self, harness: &Harness, reference: &Reference, origin: Option<&str>) {
        self.keep_as(harness, reference, origin, true).await;
    }

    async fn keep_as(
        &self,
        harness: &Harness,
        reference: &Reference,
        origin: Option<&str>,
        moves_tag: bool,
    ) {
        let mut manifests = Vec::new();
        for (digest, bytes) in &self.manifests {
            let parsed = Manifest::parse(bytes, None).unwrap();
            let row = harness.store.row_of(&parsed, bytes.len()).await;
            manifests.push((digest.clone(), row));
        }
        let keeping = Keeping {
            reference,
            digest: &self.root,
            manifests,
            blobs: &[self.config.clone(), self.layer.clone()],
            moves_tag,
            origin: origin.map(str::to_owned),
        };
        let change = Change::keep("hub", &name(), keeping, clock::now());
        commit(harness, change).await;
    }

    /// Everything of it is here, linked and known, and the tag means it.
    async fn assert_whole(&self, harness: &Harness) {
        let index = harness.store.index();
        for digest in self.all() {
            assert!(harness.has(&digest).await, "{digest}");
            let linked = index.is_linked("hub", &name(), &digest).await;
            assert!(linked.unwrap(), "{digest}");
        }
        let row = index.manifest(&self.root).await.unwrap().unwrap();
        assert_eq!(row.media_type, OCI_INDEX);
        assert_eq!(row.size, self.manifests[0].1.len() as u64);
        let size = index.descriptor_size("hub", &name(), &self.layer).await;
        assert_eq!(size.unwrap(), Some(1000));
        assert_eq!(served(harness).await.as_ref(), Some(&self.root));
    }
}

async fn commit(harness: &Harness, change: Change) {
    let committed = harness.store.commit_changes(vec![(change, None)]);
    committed.await.unwrap();
}

async fn served(harness: &Harness) -> Option<Digest> {
    let row = harness.store.index().tag("hub", &name(), &tag()).await;
    row.unwrap().map(|row| row.served)
}

async fn kept(harness: &Harness) -> Vec<KeptRow> {
    harness.store.index().kept(None).await.unwrap()
}

/// Caches more than fits, so that everything goes that may.
async fn press(harness: &Harness) {
    for seed in 1000..1040 {
        harness.fill(&noise(seed, 1000)).await;
    }
    harness.assert_books();
}

#[tokio::test]
async fn what_is_kept_outlives_pressure_and_the_rest_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let (image, other) = (Image::new(&harness, 1).await, Image::new(&harness, 2).await);
    let before = clock::now();
    image.keep(&harness, &by_tag(), None).await;
    let size = image.size(&harness).await;
    assert_eq!(harness.store.usage().kept_bytes, size);
    press(&harness).await;
    image.assert_whole(&harness).await;
    // Manifests go last, so theirs may still be here.
    assert!(!harness.has(&other.config).await && !harness.has(&other.layer).await);
    harness.store.drop_cached(image.all()).await.unwrap();
    image.assert_whole(&harness).await;
    let [row] = &kept(&harness).await[..] else {
        panic!("one is kept");
    };
    assert_eq!((row.repo.as_str(), row.name.as_str()), ("hub", "a/b"));
    assert_eq!((row.reference.as_str(), &row.digest), ("1.0", &image.root));
    assert_eq!((row.bytes, row.missing), (size, 0));
    assert!(row.at >= before && row.at <= clock::now());

    let change = Change::unkeep("hub", &name(), &by_tag(), clock::now());
    commit(&harness, change).await;
    assert_eq!(harness.store.usage().kept_bytes, 0);
    image.assert_whole(&harness).await;
    press(&harness).await;
    assert!(!harness.has(&image.config).await && !harness.has(&image.layer).await);
    assert!(kept(&harness).await.is_empty());
}

#[tokio::test]
async fn it_comes_back_without_the_index_and_stays_kept() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let image = Image::new(&harness, 1).await;
    image.keep(&harness, &by_tag(), Some("remote x")).await;
    let rows = kept(&harness).await;
    harness.store.durable_barrier().await.unwrap();
    for lose in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        if lose {
            remove_index(copy.path());
        }
        let after = Harness::sized(copy.path(), 10_000).await;
        after.settled().await;
        assert_eq!(kept(&after).await, rows, "lost: {lose}");
        assert_eq!(after.store.usage().kept_bytes, rows[0].bytes);
        press(&after).await;
        image.assert_whole(&after).await;
        let origin = after.store.index().origin("hub").await.unwrap();
        assert!(origin.is_some(), "lost: {lose}");
        // What the rules would say of it is settled: the operator wanted it.
        let index = after.store.index();
        let (name, child) = (name(), &image.manifests[1].0);
        let standing = index.standing("hub", &name, child, "terms");
        assert!(standing.await.unwrap().pinned);
    }
}

#[tokio::test]
async fn a_manifest_that_is_gone_is_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let image = Image::new(&harness, 1).await;
    image.keep(&harness, &by_tag(), None).await;
    harness.store.durable_barrier().await.unwrap();
    let (_copy, after) = harness
        .after_kill_and(|root| {
            remove_index(root);
            fs::remove_file(blob_path(root, &image.root)).unwrap();
        })
        .await;
    after.settled().await;
    assert_eq!(served(&after).await, None);
    assert_eq!(
        after.store.index().manifest(&image.root).await.unwrap(),
        None
    );
    let row = &kept(&after).await[0];
    assert_eq!(row.missing, 1);
    assert!(row.bytes > 1000 && after.store.usage().kept_bytes == row.bytes);
    // Whoever fetches it again makes it whole, and it counts as kept at once.
    let bytes = image.manifests[0].1.clone();
    after.store.put(&image.root, bytes).await.unwrap();
    let row = &kept(&after).await[0];
    assert_eq!((row.missing, row.bytes), (0, image.size(&after).await));
    assert_eq!(after.store.usage().kept_bytes, row.bytes);
}

#[tokio::test]
async fn another_image_by_the_same_reference_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let (old, new) = (Image::new(&harness, 1).await, Image::new(&harness, 2).await);
    old.keep(&harness, &by_tag(), None).await;
    // Of two references each keeps it.
    let by_digest = Reference::Digest(old.root.clone());
    old.keep(&harness, &by_digest, None).await;
    new.keep(&harness, &by_tag(), None).await;
    let both = old.size(&harness).await + new.size(&harness).await;
    assert_eq!(harness.store.usage().kept_bytes, both);
    assert_eq!(served(&harness).await, Some(new.root.clone()));
    let change = Change::unkeep("hub", &name(), &by_digest, clock::now());
    commit(&harness, change).await;
    press(&harness).await;
    new.assert_whole(&harness).await;
    assert!(!harness.has(&old.config).await && !harness.has(&old.layer).await);
    // The same again changes nothing.
    new.keep(&harness, &by_tag(), None).await;
    let usage = harness.store.usage();
    assert_eq!(usage.kept_bytes, new.size(&harness).await);
    assert_eq!(kept(&harness).await.len(), 1);
}

#[tokio::test]
async fn a_tag_that_says_something_else_moves_only_where_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let index = harness.store.index();
    let (one, two) = (Image::new(&harness, 1).await, Image::new(&harness, 2).await);
    let checked = Wall::from_ms(1000);
    let row = TagRow {
        observed: one.root.clone(),
        served: one.root.clone(),
        media_type: OCI_INDEX.to_owned(),
        size: 1,
        etag: Some("\"x\"".to_owned()),
        checked,
        moved: checked,
        gone: None,
    };
    let (image, latest) = (name(), tag());
    let put = index.put_tag("hub", &image, &latest, row.clone(), "upstream");
    put.await.unwrap();
    two.keep_as(&harness, &by_tag(), None, false).await;
    assert_eq!(served(&harness).await, Some(one.root.clone()));
    // One that means it stays as upstream confirmed it.
    one.keep_as(&harness, &by_tag(), None, true).await;
    let found = index.tag("hub", &name(), &tag()).await.unwrap().unwrap();
    assert_eq!(found, row);
    two.keep_as(&harness, &by_tag(), None, true).await;
    let found = index.tag("hub", &name(), &tag()).await.unwrap().unwrap();
    assert_eq!((&found.observed, &found.served), (&two.root, &two.root));
    assert!(found.checked > checked);
    assert_eq!(found.size, two.manifests[0].1.len() as u64);
    let history = index.history("hub", &name(), &tag()).await.unwrap();
    let history: Vec<_> = history.iter().map(|row| row.cause.as_str()).collect();
    assert_eq!(history, ["kept", "upstream"]);
}

#[tokio::test]
async fn deleting_takes_along_what_is_kept_and_the_journal_knows() {
    for what in ["tag", "image", "cached", "repository"] {
        let dir = tempfile::tempdir().unwrap();
        let harness = Harness::open(dir.path()).await;
        let index = harness.store.index();
        let (image, other) = (Image::new(&harness, 1).await, Image::new(&harness, 2).await);
        image.keep(&harness, &by_tag(), Some("remote x")).await;
        let elsewhere = Reference::Digest(other.root.clone());
        other.keep(&harness, &elsewhere, Some("remote x")).await;
        let now = clock::now();
        // Without a record it would come back with the next index.
        let forgot = index.forget_image("hub", &name()).await.unwrap();
        assert_eq!(forgot, Forgot::Kept);
        let forgot = index.remove_tag("hub", &name(), &tag()).await.unwrap();
        assert_eq!(forgot, Forgot::Kept);
        image.assert_whole(&harness).await;
        let (change, left) = match what {
            "tag" => (Change::forget("hub", &name(), Some(&tag()), now), 1),
            "image" => (Change::forget("hub", &name(), None, now), 0),
            "cached" => (Change::forget_repository("hub", now), 0),
            _ => (Change::drop_repository("hub", true, now), 0),
        };
        commit(&harness, change).await;
        harness.store.durable_barrier().await.unwrap();
        let (_copy, after) = harness.after_kill_and(remove_index).await;
        after.settled().await;
        for harness in [&harness, &after] {
            assert_eq!(kept(harness).await.len(), left, "{what}");
            assert_eq!(served(harness).await, None, "{what}");
            let index = harness.store.index();
            let linked = index.is_linked("hub", &name(), &image.root).await;
            assert!(!linked.unwrap(), "{what}");
            let linked = index.is_linked("hub", &name(), &other.root).await;
            assert_eq!(linked.unwrap(), left == 1, "{what}");
            let bytes = if left == 1 {
                other.size(harness).await
            } else {
                0
            };
            assert_eq!(harness.store.usage().kept_bytes, bytes, "{what}");
        }
        if left == 0 {
            assert!(
                !harness.has(&image.layer).await,
                "{what}: nobody may read it"
            );
        }
    }
}

#[tokio::test]
async fn a_tag_that_goes_leaves_readable_what_is_kept_by_digest() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let image = Image::new(&harness, 1).await;
    image.keep(&harness, &by_tag(), None).await;
    let by_digest = Reference::Digest(image.root.clone());
    image.keep(&harness, &by_digest, None).await;
    let change = Change::forget("hub", &name(), Some(&tag()), clock::now());
    commit(&harness, change).await;
    assert_eq!(served(&harness).await, None);
    let linked = harness.store.index();
    let linked = linked.is_linked("hub", &name(), &image.root).await;
    assert!(linked.unwrap());
    assert_eq!(kept(&harness).await.len(), 1);
}

#[tokio::test]
async fn another_upstream_gets_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let image = Image::new(&harness, 1).await;
    image.keep(&harness, &by_tag(), Some("remote x")).await;
    harness.store.durable_barrier().await.unwrap();
    let (_copy, after) = harness.after_kill_and(remove_index).await;
    let index = after.store.index();
    // The upstream became another while the index was lost.
    let orphans = index.settle_origin("hub", "remote y", false).await.unwrap();
    assert!(orphans.contains(&image.layer));
    assert!(kept(&after).await.is_empty());
    // And one that comes too late for its upstream is not taken in.
    image.keep(&after, &by_tag(), Some("remote x")).await;
    assert!(kept(&after).await.is_empty());
    let linked = index.is_linked("hub", &name(), &image.root).await;
    assert!(!linked.unwrap());
    image.keep(&after, &by_tag(), Some("remote y")).await;
    assert_eq!(kept(&after).await.len(), 1);
}

#[tokio::test]
async fn what_is_pushed_is_not_counted_as_kept() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let image = Image::new(&harness, 1).await;
    image.keep(&harness, &by_tag(), None).await;
    let all = harness.store.usage().kept_bytes;
    let pushed = Change::link_blob("dev-local", &name(), &image.layer, clock::now());
    commit(&harness, pushed).await;
    assert_eq!(harness.store.usage().kept_bytes, all - 1000);
    let dropped = Change::drop_blob("dev-local", &name(), &image.layer, clock::now());
    commit(&harness, dropped).await;
    assert_eq!(harness.store.usage().kept_bytes, all);
    assert!(harness.has(&image.layer).await);
    // Damage takes it out, and what is fetched again is kept as before.
    harness
        .store
        .quarantine(&image.layer, "a test")
        .await
        .unwrap();
    assert_eq!(harness.store.usage().kept_bytes, all - 1000);
    harness.fill(&noise(1, 1000)).await;
    assert_eq!(harness.store.usage().kept_bytes, all);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_the_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let one = harness.fill(&noise(1, 4000)).await;
    let two = harness.fill(&noise(2, 3000)).await;
    harness.keep(&one, std::slice::from_ref(&one)).await;
    let unknown = |seed: u64, size: u64| (Digest::of(&noise(seed, 8)), size);
    let check = async |wanted: &[(Digest, u64)]| harness.store.check_kept_room(wanted).await;
    // What is kept already, and what is named twice, is not counted again.
    let fits = [(one.clone(), 4000), (two.clone(), 3000), unknown(3, 3000)];
    check(&fits).await.unwrap();
    let twice = [unknown(3, 6000), unknown(3, 6000)];
    check(&twice).await.unwrap();
    let refused = check(&[(two.clone(), 3000), unknown(3, 3001)]).await;
    let Err(StoreError::NoRoomToKeep(why)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((why.need, why.kept, why.max_size), (6001, 4000, 10_000));
    assert_eq!(why.missing, 3001);
    let words = why.to_string();
    for size in ["6001", "4000", "10000", "3001", &why.free.to_string()] {
        assert!(words.contains(size), "{words}");
    }
    // What was pushed takes nothing of it.
    let pushed = Change::link_blob("dev-local", &name(), &two, clock::now());
    commit(&harness, pushed).await;
    check(&[(two, 3000), unknown(3, 6000)]).await.unwrap();
}

#[tokio::test]
async fn the_disk_must_hold_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        path: dir.path().to_owned(),
        max_size: u64::MAX / 4,
        min_free: 0,
    };
    let store = Store::open(config, &Tasks::new()).await.unwrap();
    let refused = store
        .check_kept_room(&[(Digest::of(b"huge"), 1 << 60)])
        .await;
    let Err(StoreError::NoRoomToKeep(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.missing == 1 << 60 && why.free < 1 << 60, "{why}");
    store.close().await;
}

#[tokio::test]
async fn a_record_is_read_by_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let image = Image::new(&harness, 1).await;
    image.keep(&harness, &by_tag(), Some("remote x")).await;
    let journal = fs::read(dir.path().join("journal")).unwrap();
    let text = String::from_utf8_lossy(&journal);
    for word in [
        r#""do":"keep""#,
        r#""reference":"1.0""#,
        r#""moves_tag":true"#,
    ] {
        assert!(text.contains(word), "{text}");
    }
    // What the bytes say is not written down twice.
    assert!(
        !text.contains("annotations") && !text.contains("\"row\""),
        "{text}"
    );
    let row = EdgeRow {
        kind: "layer".to_owned(),
        digest: image.layer.clone(),
        size: 1000,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        urls: Vec::new(),
    };
    let known = Manifest::parse(&image.manifests[1].1, None).unwrap();
    assert!(ManifestRow::of(&known, 1).edges.contains(&row));
}

#[tokio::test]
async fn what_is_held_does_not_stand_in_the_way_of_what_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::sized(dir.path(), 10_000).await;
    let mut digests = Vec::new();
    for seed in 0..10 {
        digests.push(harness.fill(&noise(seed, 1000)).await);
    }
    // The least recently used are about to be kept.
    let holds: Vec<_> = digests[..8]
        .iter()
        .map(|one| harness.store.hold(one))
        .collect();
    harness.fill(&noise(20, 1000)).await;
    harness.fill(&noise(21, 1000)).await;
    for digest in &digests[..8] {
        assert!(harness.has(digest).await);
    }
    assert!(!harness.has(&digests[8]).await && !harness.has(&digests[9]).await);
    drop(holds);
}

#[tokio::test]
async fn a_record_that_was_cut_off_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let harness = Harness::open(dir.path()).await;
    let (one, two) = (Image::new(&harness, 1).await, Image::new(&harness, 2).await);
    one.keep(&harness, &Reference::Digest(one.root.clone()), None)
        .await;
    let first = fs::metadata(dir.path().join("journal")).unwrap().len();
    two.keep(&harness, &by_tag(), None).await;
    harness.store.durable_barrier().await.unwrap();
    let last = fs::metadata(dir.path().join("journal")).unwrap().len();
    // Killed in the middle of writing it down, at any byte.
    for cut in [first + 1, first + 30, u64::midpoint(first, last), last - 1] {
        let tear = |root: &Path| {
            remove_index(root);
            let journal = fs::File::options().write(true).open(root.join("journal"));
            journal.unwrap().set_len(cut).unwrap();
        };
        let (_copy, after) = harness.after_kill_and(tear).await;
        after.settled().await;
        let rows = kept(&after).await;
        assert_eq!((rows.len(), &rows[0].digest), (1, &one.root), "at {cut}");
        assert_eq!(after.store.usage().kept_bytes, one.size(&after).await);
        assert_eq!(served(&after).await, None);
        let linked = after.store.index();
        let linked = linked.is_linked("hub", &name(), &two.layer).await;
        assert!(!linked.unwrap(), "at {cut}");
        // And it can be kept again.
        two.keep(&after, &by_tag(), None).await;
        two.assert_whole(&after).await;
    }
}
