use std::collections::BTreeMap;

use super::*;
use crate::oci::{Name, Tag};
use crate::store::index::{EdgeRow, ManifestRow, TagRow};

use Condition::{All, Any, Number, Property, PropertyKey, PropertyValue, Text};
use Operator::{Equal, Greater, LessOrEqual, Match, NoMatch, NotEqual};
use TextField::{Path, Repo, Sha256, Type};

fn is(field: TextField, operator: Operator, value: &str) -> Condition {
    Text(field, operator, value.to_owned())
}

fn has(key: &str, operator: Operator, value: &str) -> Condition {
    Property(key.to_owned(), operator, value.to_owned())
}

fn repos() -> Vec<SearchedRepo> {
    [("dev-local", "dev-local"), ("hub", "hub-cache")]
        .map(|(key, shown)| SearchedRepo {
            key: key.to_owned(),
            shown: shown.to_owned(),
            also: vec![key.to_owned(), "over-all".to_owned()],
        })
        .to_vec()
}

fn ask(find: Condition) -> ItemQuery {
    ItemQuery {
        find,
        repos: repos(),
        sort: Vec::new(),
        offset: 0,
        limit: 100,
        properties: false,
    }
}

fn hex(content: &[u8]) -> String {
    Digest::of(content).hex().to_owned()
}

/// A tag of an image with two layers of the same bytes and a configuration with a label; `seed` makes the manifest.
async fn put(index: &Index, repo: &str, image: &str, tag: &str, seed: u8, at: i64) {
    let (image, tag) = (Name::parse(image).unwrap(), Tag::parse(tag).unwrap());
    let media_type = if seed == 9 {
        OCI_INDEX
    } else {
        "application/vnd.oci.image.manifest.v1+json"
    };
    let digest = Digest::of(&[seed]);
    let (config, layer) = ([seed, 1], [seed % 2, 2]);
    let edge = |kind: &str, content: &[u8], size| EdgeRow {
        kind: kind.to_owned(),
        digest: Digest::of(content),
        size,
        media_type: String::new(),
        urls: Vec::new(),
    };
    let edges = if seed == 9 {
        vec![edge("child", &[1], 100)]
    } else {
        vec![
            edge("config", &config, 10),
            edge("layer", &layer, 20),
            edge("layer", &layer, 20),
        ]
    };
    let row = ManifestRow {
        media_type: media_type.to_owned(),
        size: u64::from(seed) * 100,
        edges: edges.clone(),
        labels: BTreeMap::from([(
            "team".to_owned(),
            if seed.is_multiple_of(2) {
                "red"
            } else {
                "blue"
            }
            .to_owned(),
        )]),
        ..ManifestRow::default()
    };
    for edge in edges.iter().filter(|edge| edge.kind != "child") {
        index.link(repo, &image, &edge.digest).await.unwrap();
        let blob = edge.digest.to_string();
        let write = index.write(move |connection| {
            connection.execute("INSERT OR IGNORE INTO blob (digest, size, state, last_use, added) VALUES (?1, 1, 1, 0, 0)", [blob])
        });
        write.await.unwrap();
    }
    index
        .record_manifest(repo, &image, &digest, row)
        .await
        .unwrap();
    let row = TagRow {
        observed: digest.clone(),
        served: digest,
        media_type: media_type.to_owned(),
        size: u64::from(seed) * 100,
        etag: None,
        checked: Wall::from_ms(at + 5),
        moved: Wall::from_ms(at),
        gone: None,
    };
    index
        .put_tag(repo, &image, &tag, row, "pushed")
        .await
        .unwrap();
}

async fn filled(dir: &std::path::Path) -> Index {
    let (index, _new) = Index::open(dir, true, Wall::from_ms(0)).unwrap();
    put(&index, "dev-local", "team/app", "1.0", 1, 1000).await;
    put(&index, "dev-local", "team/app", "1.1", 2, 2000).await;
    put(&index, "dev-local", "team/app-two", "1.0", 3, 3000).await;
    put(&index, "dev-local", "team", "all", 9, 4000).await;
    put(&index, "hub", "library/app", "1.0", 1, 5000).await;
    put(&index, "elsewhere", "team/app", "1.0", 1, 6000).await;
    let write = index.write(|connection| {
        connection.execute("INSERT INTO property VALUES ('dev-local', 'team/app', '1.1', 'qa', 'passed'), ('dev-local', 'team/app', '1.1', 'qa', 'signed')", [])
    });
    write.await.unwrap();
    index
}

/// What is found, as `repo/path/name` with short hashes.
async fn found(index: &Index, query: ItemQuery) -> (Vec<String>, u64) {
    let found = index.items(query).await.unwrap();
    let rows = found.rows.iter().map(|row| {
        let mut name = row.name();
        if row.kind == ItemKind::Blob {
            name.truncate(12);
        }
        format!("{}/{}/{name}", row.repo, row.path())
    });
    (rows.collect(), found.total)
}

#[tokio::test]
async fn items_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path()).await;
    let manifest = || {
        Any(vec![
            is(TextField::Name, Equal, "manifest.json"),
            is(TextField::Name, Equal, "list.manifest.json"),
        ])
    };
    let all = [
        "dev-local/team/all/list.manifest.json",
        "dev-local/team/app/1.0/manifest.json",
        "dev-local/team/app/1.1/manifest.json",
        "dev-local/team/app-two/1.0/manifest.json",
        "hub/library/app/1.0/manifest.json",
    ];
    let table: Vec<(Condition, Vec<usize>)> = vec![
        (All(vec![]), vec![0, 1, 2, 3, 4]),
        (is(Repo, Equal, "hub-cache"), vec![4]),
        (is(Repo, Equal, "hub"), vec![4]),
        (is(Repo, Match, "*hub"), vec![]),
        (is(Repo, Match, "hub*"), vec![4]),
        (is(Repo, Equal, "over-all"), vec![0, 1, 2, 3, 4]),
        (is(Repo, NotEqual, "over-all"), vec![]),
        (is(Repo, NotEqual, "hub-cache"), vec![0, 1, 2, 3]),
        (is(Repo, Equal, "elsewhere"), vec![]),
        (is(Path, Equal, "team/app/1.0"), vec![1]),
        (is(Path, Equal, "team"), vec![]),
        (is(Path, Match, "team/app/*"), vec![1, 2]),
        (is(Path, Match, "team/app*"), vec![1, 2, 3]),
        (is(Path, Match, "team/a*l"), vec![0]),
        (is(Path, Match, "team/app/1.?"), vec![1, 2]),
        (is(Path, Match, "t*"), vec![0, 1, 2, 3]),
        (is(Path, Match, "*/1.0"), vec![1, 3, 4]),
        (is(Path, NoMatch, "team/*"), vec![4]),
        (is(Path, Match, "team/[a]*"), vec![]),
        (is(TextField::Name, Match, "list.*"), vec![0]),
        (
            is(TextField::Name, NotEqual, "list.manifest.json"),
            vec![1, 2, 3, 4],
        ),
        (is(Sha256, Equal, &hex(&[2])), vec![2]),
        (
            is(Sha256, Match, &format!("{}*", hex(&[2]).get(..8).unwrap())),
            vec![2],
        ),
        (Number(NumberField::Size, Greater, 100), vec![0, 2, 3]),
        (Number(NumberField::Moved, Greater, 2000), vec![0, 3, 4]),
        (Number(NumberField::Checked, LessOrEqual, 2005), vec![1, 2]),
        (Number(NumberField::Depth, Equal, 3), vec![0]),
        (has("docker.repoName", Match, "team/*"), vec![1, 2, 3]),
        (has("docker.manifest", Equal, "1.1"), vec![2]),
        (
            has(
                "docker.manifest.digest",
                Equal,
                &format!("sha256:{}", hex(&[2])),
            ),
            vec![2],
        ),
        (has("docker.manifest.type", Equal, OCI_INDEX), vec![0]),
        (has("sha256", Equal, &hex(&[2])), vec![2]),
        (has("docker.label.team", Equal, "blue"), vec![1, 3, 4]),
        (has("docker.label.team", NotEqual, "blue"), vec![0, 2]),
        (has("docker.label.team", Match, "*"), vec![1, 2, 3, 4]),
        (has("qa", Equal, "signed"), vec![2]),
        (has("qa", NotEqual, "signed"), vec![0, 1, 3, 4]),
        (has("qa", Match, "*"), vec![2]),
        (has("qa", NoMatch, "*"), vec![0, 1, 3, 4]),
        (has("x' OR 1=1 --", Equal, "' OR ''='"), vec![]),
        (PropertyKey(Match, "q*".to_owned()), vec![2]),
        (
            PropertyKey(Equal, "docker.label.team".to_owned()),
            vec![1, 2, 3, 4],
        ),
        (
            PropertyKey(Equal, "docker.manifest".to_owned()),
            vec![0, 1, 2, 3, 4],
        ),
        (PropertyValue(Equal, "passed".to_owned()), vec![2]),
        (PropertyValue(Equal, "red".to_owned()), vec![2]),
        (PropertyValue(Equal, "team/app".to_owned()), vec![1, 2]),
        (PropertyValue(NoMatch, "blue".to_owned()), vec![0, 2]),
        (
            Any(vec![
                has("qa", Equal, "passed"),
                is(Repo, Equal, "hub-cache"),
            ]),
            vec![2, 4],
        ),
        (Any(vec![]), vec![]),
        (
            Any(vec![
                All(vec![
                    is(Repo, Equal, "dev-local"),
                    is(Path, Match, "team/app/*"),
                    has("docker.label.team", Equal, "red"),
                ]),
                has("docker.repoName", Equal, "team"),
            ]),
            vec![0, 2],
        ),
    ];
    for (condition, expected) in table {
        let (rows, total) = found(&index, ask(All(vec![manifest(), condition.clone()]))).await;
        let mut rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        rows.sort_unstable();
        let mut expected: Vec<&str> = expected.iter().map(|place| all[*place]).collect();
        expected.sort_unstable();
        assert_eq!(rows, expected, "{condition:?}");
        assert_eq!(total, expected.len() as u64, "{condition:?}");
    }
}

#[tokio::test]
async fn blobs_and_folders() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path()).await;
    let short = |content: &[u8]| format!("sha256__{}", hex(content).get(..4).unwrap());
    let (config, layer, red) = (short(&[1, 1]), short(&[1, 2]), short(&[0, 2]));
    let dev = "dev-local/team/app/1.0";
    let name = |operator, value: &str| is(TextField::Name, operator, value);
    let mut both = vec![format!("{dev}/{config}"), format!("{dev}/{layer}")];
    both.sort_unstable();
    let at = is(Path, Equal, "team/app/1.0");
    let table = [
        (
            All(vec![at.clone(), name(Match, "sha256__*")]),
            both.clone(),
        ),
        (All(vec![at.clone(), name(Match, "sha*")]), both.clone()),
        (
            All(vec![
                at.clone(),
                name(NotEqual, "manifest.json"),
                is(Type, Equal, "file"),
            ]),
            both,
        ),
        (
            All(vec![at.clone(), Number(NumberField::Size, Equal, 20)]),
            vec![format!("{dev}/{layer}")],
        ),
        (All(vec![at.clone(), has("qa", Equal, "x")]), vec![]),
        // By hash, wherever it is.
        (
            All(vec![
                name(Equal, &format!("sha256__{}", hex(&[1, 2]))),
                is(Type, Equal, "file"),
            ]),
            vec![
                format!("{dev}/{layer}"),
                format!("dev-local/team/app-two/1.0/{layer}"),
                format!("hub/library/app/1.0/{layer}"),
            ],
        ),
        (
            is(Sha256, Equal, &hex(&[0, 2])),
            vec![format!("dev-local/team/app/1.1/{red}")],
        ),
        (
            All(vec![is(Type, Equal, "folder"), is(Path, Equal, "team/app")]),
            vec![
                "dev-local/team/app/1.0".to_owned(),
                "dev-local/team/app/1.1".to_owned(),
            ],
        ),
        (
            All(vec![is(Type, Equal, "folder"), name(Equal, "all")]),
            vec!["dev-local/team/all".to_owned()],
        ),
    ];
    for (condition, expected) in table {
        let (rows, total) = found(&index, ask(condition.clone())).await;
        assert_eq!(rows, expected, "{condition:?}");
        assert_eq!(total, expected.len() as u64);
    }
    // What is not here is no item of a cache.
    let gone = index.write(|connection| connection.execute("DELETE FROM blob", []));
    gone.await.unwrap();
    let none = ask(All(vec![at, name(Match, "sha256__*")]));
    assert_eq!(found(&index, none).await, (vec![], 0));
}

#[tokio::test]
async fn pages_orders_and_properties() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path()).await;
    let mut query = ask(is(TextField::Name, Match, "*manifest.json"));
    query.sort = vec![(SortField::Number(NumberField::Moved), true)];
    query.limit = 2;
    let tags = async |query: &ItemQuery| {
        let found = index.items(query.clone()).await.unwrap();
        let tags = found
            .rows
            .iter()
            .map(|row| format!("{}:{}", row.image, row.tag));
        (tags.collect::<Vec<_>>().join(" "), found.total)
    };
    assert_eq!(
        tags(&query).await,
        ("library/app:1.0 team:all".to_owned(), 5)
    );
    query.offset = 4;
    assert_eq!(tags(&query).await, ("team/app:1.0".to_owned(), 5));
    query.offset = 9;
    assert_eq!(tags(&query).await, (String::new(), 5));
    (query.offset, query.limit) = (0, 0);
    assert_eq!(tags(&query).await, (String::new(), 5));
    query.limit = 2;
    for (field, first) in [
        (SortField::Text(Repo), "library/app:1.0 team/app-two:1.0"),
        (SortField::Text(Path), "team/app/1.1 team/app/1.0"),
        (
            SortField::Text(TextField::Name),
            "library/app:1.0 team/app-two:1.0",
        ),
        (
            SortField::Number(NumberField::Size),
            "team:all team/app-two:1.0",
        ),
    ] {
        query.sort = vec![(field, true)];
        assert_eq!(
            tags(&query).await.0,
            first.replace("app/1.", "app:1."),
            "{field:?}"
        );
    }
    let mut query = ask(has("qa", Equal, "passed"));
    query.properties = true;
    let rows = index.items(query).await.unwrap().rows;
    assert_eq!(rows[0].properties["qa"], ["passed", "signed"]);
    assert_eq!(rows[0].labels["team"], "red");
}

/// How the database would go about it.
async fn plan(index: &Index, query: &ItemQuery) -> String {
    let Fragment { text, values } = statement::page(query).unwrap();
    let read = index.read(move |connection| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}"))?;
        let steps = statement.query_map(params_from_iter(values), |row| row.get::<_, String>(3))?;
        steps.collect::<rusqlite::Result<Vec<_>>>()
    });
    read.await.unwrap().join("\n")
}

use clause::Fragment;

#[tokio::test]
async fn questions_that_name_few_are_found_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let index = filled(dir.path()).await;
    let dev = || is(Repo, Equal, "dev-local");
    let json = || {
        All(vec![
            is(TextField::Name, Equal, "manifest.json"),
            is(Type, Equal, "file"),
        ])
    };
    let table = [
        (
            has("docker.repoName", Equal, "team/app"),
            "SEARCH tag USING INDEX tag_name (name=?)",
        ),
        (
            has("docker.repoName", Match, "team/*"),
            "SEARCH tag USING INDEX tag_name (name>? AND name<?)",
        ),
        (
            is(Path, Match, "team/app/*"),
            "SEARCH tag USING INDEX tag_name (name>? AND name<?)",
        ),
        (
            is(Path, Equal, "team/app/1"),
            "SEARCH tag USING INDEX tag_name (name=? AND tag=? AND repo=?)",
        ),
        (
            has("docker.label.team", Equal, "red"),
            "SEARCH tag USING INDEX tag_served (served=?)",
        ),
        (
            has("docker.manifest.digest", Equal, "sha256:00"),
            "SEARCH tag USING INDEX tag_served (served=?)",
        ),
        (
            is(Sha256, Equal, "00"),
            "SEARCH tag USING INDEX tag_served (served=?)",
        ),
        (
            has("qa", Equal, "passed"),
            "SEARCH tag USING PRIMARY KEY (repo=? AND name=? AND tag=?)",
        ),
        (
            Number(NumberField::Moved, Greater, 5),
            "SEARCH tag USING INDEX tag_moved (repo=? AND moved>?)",
        ),
        (
            Any(vec![
                has("docker.repoName", Equal, "team/app"),
                has("qa", Equal, "passed"),
            ]),
            "MULTI-INDEX OR",
        ),
    ];
    for (condition, expected) in table {
        let mut query = ask(All(vec![dev(), json(), condition.clone()]));
        query.sort = vec![(SortField::Number(NumberField::Moved), true)];
        let plan = plan(&index, &query).await;
        assert!(plan.contains(expected), "{condition:?}\n{plan}");
        assert!(!plan.contains("SCAN tag"), "{condition:?}\n{plan}");
    }
    // A blob by its hash; the latest of all.
    let since = Number(NumberField::Moved, Greater, 5);
    let since = plan(&index, &ask(All(vec![json(), since]))).await;
    let expected = "SEARCH tag USING INDEX tag_moved (repo=? AND moved>?)";
    assert!(since.contains(expected), "{since}");
    let blob = plan(&index, &ask(is(TextField::Name, Equal, "sha256__00"))).await;
    assert!(
        blob.contains("SEARCH edge USING INDEX edge_digest (digest=?)"),
        "{blob}"
    );
    assert!(
        blob.contains("SEARCH tag USING INDEX tag_served (served=?)"),
        "{blob}"
    );
    let mut latest = ask(All(vec![json(), dev()]));
    latest.sort = vec![(SortField::Number(NumberField::Moved), true)];
    let latest = plan(&index, &latest).await;
    assert!(
        latest.contains("SEARCH tag USING INDEX tag_moved (repo=?)"),
        "{latest}"
    );
    assert!(!latest.contains("TEMP B-TREE"), "{latest}");
}
