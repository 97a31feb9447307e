//! What comes from strangers costs no more than its bounds, and never panics.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::{DEPTH_MAX, LIST_MAX, from_compose, from_file, from_kubernetes};

/// Ten aliases of ten aliases of ten, `depth` times over.
fn bomb(depth: usize, top: &str) -> String {
    let mut text = "a0: &a0 { image: 'nginx:1' }\n".to_owned();
    for level in 1..=depth {
        let below = format!("*a{}, ", level - 1).repeat(10);
        writeln!(text, "a{level}: &a{level} [{below}]").unwrap();
    }
    writeln!(text, "{top}: *a{depth}").unwrap();
    text
}

#[test]
fn aliases_of_aliases_cost_nothing_until_they_are_looked_at_and_then_end() {
    let error = from_kubernetes("bomb", bomb(9, "items").as_bytes())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the aliases of this YAML stand for too much"),
        "{error}"
    );
    let error = from_file("bomb.yaml", bomb(9, "items").as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("unknown key"), "{error}");
    assert_eq!(
        from_kubernetes("small", bomb(3, "items").as_bytes())
            .unwrap()
            .len(),
        1
    );
    let volumes = format!("v: &v [{}]\nservices:\n", "{}, ".repeat(10_000));
    let services: String = (0..1_000).fold(String::new(), |mut text, n| {
        writeln!(text, "  s{n}: {{ build: ., volumes: *v }}").unwrap();
        text
    });
    let error = from_compose("bomb", (volumes + &services).as_bytes(), &BTreeMap::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("stand for too much"), "{error}");
}

#[test]
fn merged_keys_are_counted() {
    let keys: String = (0..2_000).fold(String::new(), |mut text, n| {
        write!(text, "k{n}: 1, ").unwrap();
        text
    });
    let merges = "- { <<: *k }\n".repeat(2_000);
    let text = format!("k: &k {{ {keys} }}\nitems:\n{merges}");
    let error = from_kubernetes("bomb", text.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("more than 2000000 values"), "{error}");
}

#[test]
fn an_alias_of_itself_is_refused() {
    let error = from_kubernetes("x", b"a: &a [*a]\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("stands inside what it stands for"),
        "{error}"
    );
}

#[test]
fn depth_is_bounded() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(from_kubernetes("x", deep(DEPTH_MAX).as_bytes()).is_ok());
    let error = from_kubernetes("x", deep(DEPTH_MAX + 1).as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.contains("nests more than 128 deep"), "{error}");
    assert!(from_kubernetes("x", deep(100_000).as_bytes()).is_err());
    let block: String = (0..500).fold(String::new(), |mut text, n| {
        writeln!(text, "{}a:", " ".repeat(n)).unwrap();
        text
    });
    assert!(from_kubernetes("x", block.as_bytes()).is_err());
    let toml = format!("images = {}", deep(100_000));
    assert!(from_file("x.toml", toml.as_bytes()).is_err());
}

#[test]
fn size_is_bounded() {
    let mut text = vec![b'#'; LIST_MAX];
    assert!(from_file("x.txt", &text).unwrap().is_empty());
    text.push(b'#');
    let error = from_file("x.txt", &text).unwrap_err().to_string();
    assert!(error.contains("x.txt has more than 32 MiB"), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(
        text in "(image|images|tags|services|containers|semver|newest|a|1|é|\\$\\{|\\}|<<|[:\\[\\]{}\"'&*,=|>#!?%@ \n\t-]){0,60}",
    ) {
        for name in ["x", "x.txt", "x.yaml", "x.toml"] {
            let _ = from_file(name, text.as_bytes());
        }
        let _ = from_kubernetes("x", text.as_bytes());
        let _ = from_compose("x", text.as_bytes(), &BTreeMap::new());
        let service = format!("services: {{ a: {{ image: '{}' }} }}", text.replace('\'', ""));
        let _ = from_compose("x", service.as_bytes(), &BTreeMap::new());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_file("x", &bytes);
        let _ = from_kubernetes("x", &bytes);
    }
}
