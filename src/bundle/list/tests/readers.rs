use std::collections::BTreeMap;

use super::super::{Pick, Referrers, from_arguments, from_compose, from_file, from_kubernetes};
use super::{fixture, lines};

const PLAIN: [&str; 4] = [
    "images.txt:3 nginx 1.27",
    "images.txt:4 ghcr.io/team/app @sha256:aaaa",
    "images.txt:5 redis latest",
    "images.txt:6 localhost:5000/tool v1 linux/amd64,linux/arm64,linux/arm/v7",
];

#[test]
fn arguments_name_images() {
    let found = from_arguments(&[
        "nginx:1.27",
        "ghcr.io/a/b",
        &format!("a:t@sha256:{}", "a".repeat(64)),
    ])
    .unwrap();
    assert_eq!(
        lines(&found),
        [
            "command line nginx 1.27",
            "command line ghcr.io/a/b latest",
            "command line a t@sha256:aaaa"
        ]
    );
    let error = from_arguments(&["nginx", "ftp://x"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: `ftp://x` names no image: leave out `ftp://`"
    );
}

#[test]
fn a_plain_list_is_one_image_a_line() {
    let found = from_file("images.txt", &fixture("images.txt")).unwrap();
    assert_eq!(lines(&found), PLAIN);
}

#[test]
fn windows_and_byte_order_marks_change_nothing() {
    let text = String::from_utf8(fixture("images.txt")).unwrap();
    let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    assert_eq!(
        lines(&from_file("images.txt", windows.as_bytes()).unwrap()),
        PLAIN
    );
    let utf16: Vec<u8> = std::iter::once(0xfeff)
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let error = from_file("images.txt", &utf16).unwrap_err();
    assert!(
        error.to_string().contains("images.txt is UTF-16"),
        "{error}"
    );
    let error = from_file("images.txt", b"nginx\n\xff\n").unwrap_err();
    assert!(
        error.to_string().contains("images.txt:2 is not UTF-8"),
        "{error}"
    );
}

#[test]
fn toml_and_yaml_say_the_same() {
    let toml = from_file("images.toml", &fixture("images.toml")).unwrap();
    let mut yaml = from_file("images.yaml", &fixture("images.yaml")).unwrap();
    assert_eq!(
        lines(&yaml),
        [
            "images.yaml:6 nginx 1.27 linux/amd64",
            "images.yaml:7 docker-hub/library/redis 7.2+7.4",
            "images.yaml:11 ghcr.io/team/app ? linux/amd64",
            "images.yaml:21 quay.io/team/tool v1@sha256:bbbb linux/amd64",
            "images.yaml:24 busybox ? linux/amd64",
        ]
    );
    for (yaml, toml) in yaml.iter_mut().zip(&toml) {
        if let (Pick::Choice(yaml), Pick::Choice(toml)) = (&mut yaml.pick, &toml.pick) {
            assert_eq!(
                yaml.semver[..].first().map(super::super::Range::written),
                toml.semver.first().map(super::super::Range::written)
            );
        }
        yaml.source = toml.source.clone();
    }
    assert_eq!(yaml, toml);
    let Pick::Choice(choice) = &toml[2].pick else {
        panic!("{:?}", toml[2].pick)
    };
    assert_eq!(
        (
            choice.allow.len(),
            choice.deny.len(),
            choice.semver.len(),
            choice.newest
        ),
        (2, 2, 1, Some(3))
    );
    assert!(choice.prereleases);
    let referrers: Vec<&Referrers> = toml.iter().map(|wanted| &wanted.referrers).collect();
    let bundle = Referrers::Types(vec![
        "application/vnd.dev.sigstore.bundle.v0.3+json".to_owned(),
    ]);
    assert_eq!(
        referrers,
        [
            &Referrers::All,
            &Referrers::None,
            &bundle,
            &Referrers::All,
            &Referrers::All
        ]
    );
}

#[test]
fn a_text_without_a_telling_name_is_known_by_its_looks() {
    for name in ["images.txt", "images.toml", "images.yaml"] {
        let known = from_file(name, &fixture(name)).unwrap();
        let looked_at = from_file("-", &fixture(name)).unwrap();
        assert_eq!(known.len(), looked_at.len(), "{name}");
    }
    assert_eq!(
        lines(&from_file("-", b"- nginx\n- redis:7\n").unwrap()),
        ["-:1 nginx latest", "-:2 redis 7"]
    );
    assert_eq!(
        lines(&from_file("-", b"{\"images\": [\"nginx\"]}").unwrap()),
        ["-:1 nginx latest"]
    );
    assert_eq!(
        lines(&from_file("-", b"nginx:1.27\n").unwrap()),
        ["-:1 nginx 1.27"],
        "a tag is no key"
    );
    assert!(from_file("-", b"# nothing\n").unwrap().is_empty());
}

#[test]
fn every_image_of_manifests_is_found_once() {
    let found = from_kubernetes("helm.yaml", &fixture("helm.yaml")).unwrap();
    let mut found: Vec<String> = lines(&found)
        .iter()
        .map(|line| line.split_once(' ').unwrap().1.to_owned())
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "busybox latest",
            "docker.io/library/redis 7.4",
            "gcr.io/kaniko-project/executor latest",
            "ghcr.io/shop/migrate 2.1",
            "ghcr.io/shop/model 7",
            "nginx 1.27",
            "quay.io/prometheus-operator/prometheus-config-reloader v0.79.2",
            "quay.io/prometheus/prometheus v3.1.0",
            "quay.io/shop/proxy @sha256:aaaa",
            "registry.example.com:5000/shop/report v3",
        ]
    );
    let json = br#"{"kind": "Pod", "spec": {"containers": [{"image": "nginx"}]}}"#;
    assert_eq!(
        lines(&from_kubernetes("pod.json", json).unwrap()),
        ["pod.json:1 nginx latest"]
    );
}

#[test]
fn a_container_whose_image_is_none_is_an_error() {
    let error = from_kubernetes(
        "pod.yaml",
        b"kind: Pod\nspec:\n  containers:\n  - image: Nginx:1\n",
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("`Nginx:1` names no image") && error.contains("pod.yaml:4:12"),
        "{error}"
    );
    let accents = "# é è ü\nkind: Pod\nspec:\n  containers:\n  - image: Nginx:1\n";
    let error = from_kubernetes("pod.yaml", accents.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("pod.yaml:5:12"), "{error}");
    let template = b"kind: Pod\nspec:\n  containers:\n  - image: {{ .Values.image }}\n";
    let error = from_kubernetes("pod.yaml", template)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("template") && error.contains("pod.yaml:4"),
        "{error}"
    );
    assert!(
        from_kubernetes("list.txt", b"nginx:1.27\n")
            .unwrap_err()
            .to_string()
            .contains("not a Kubernetes object")
    );
}

#[test]
fn every_image_of_a_compose_file_is_found() {
    let found = from_compose("compose.yaml", &fixture("compose.yaml"), &BTreeMap::new()).unwrap();
    assert_eq!(
        lines(&found),
        [
            "compose.yaml:7 nginx 1.27 linux/arm64",
            "compose.yaml:3 ghcr.io/shop/base 1.0",
            "compose.yaml:14 quay.io/shop/scheduler 2",
            "compose.yaml:19 registry.example.com/shop/named latest",
            "compose.yaml:26 ghcr.io/shop/data 3",
            "compose.yaml:23 redis latest",
        ]
    );
    let variables = BTreeMap::from([
        ("BASE".to_owned(), "9".to_owned()),
        ("REGISTRY".to_owned(), "r.io".to_owned()),
    ]);
    let found = from_compose("compose.yaml", &fixture("compose.yaml"), &variables).unwrap();
    assert!(lines(&found).contains(&"compose.yaml:14 r.io/shop/scheduler 9".to_owned()));
}

#[test]
fn a_variable_without_a_value_is_named() {
    for (image, expected) in [
        ("nginx:${TAG}", "the variable `TAG` has no value"),
        ("nginx:$TAG", "the variable `TAG` has no value"),
        ("nginx:${TAG:?which one}", "set it: which one"),
        (
            "nginx:${TAG:-${OTHER}}",
            "the variable `OTHER` has no value",
        ),
        ("nginx:${TAG", "without its `}`"),
        ("nginx:$", "write $$ for a dollar"),
        ("nginx:${TAG/x}", "is not understood"),
        ("nginx:${EMPTY:?empty}", "set it: empty"),
        ("${EMPTY}", "write an image here"),
    ] {
        let text = format!("services:\n  web:\n    image: \"{image}\"\n");
        let variables = BTreeMap::from([("EMPTY".to_owned(), String::new())]);
        let error = from_compose("c.yaml", text.as_bytes(), &variables)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(expected) && error.contains("c.yaml:3:12"),
            "{image}: {error}"
        );
    }
    for (image, expected) in [
        ("a:${X+b}c", "a c"),
        ("a:${E:-d}", "a d"),
        ("a:z${E-d}", "a z"),
        ("a:${S:+b}", "a b"),
        ("a:$S", "a s"),
    ] {
        let text = format!("services: {{ web: {{ image: \"{image}\" }} }}");
        let variables = BTreeMap::from([
            ("E".to_owned(), String::new()),
            ("S".to_owned(), "s".to_owned()),
        ]);
        assert_eq!(
            lines(&from_compose("c", text.as_bytes(), &variables).unwrap()),
            [format!("c:1 {expected}")]
        );
    }
}

#[test]
fn what_a_compose_file_leaves_to_others_is_said() {
    for (text, expected) in [
        ("include: [a.yaml]\nservices: {}", "includes others"),
        (
            "services: { a: { extends: { file: b.yaml, service: c } } }",
            "extends one of another file",
        ),
        (
            "services: { a: { command: x } }",
            "neither `image` nor `build`",
        ),
        ("services: { a: }", "the service `a` is nothing"),
        ("kind: Pod", "no `services`"),
    ] {
        let error = from_compose("c", text.as_bytes(), &BTreeMap::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
