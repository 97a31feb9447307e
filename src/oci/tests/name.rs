//! Names, against the table of section V1 of the hostile inputs and against the specification's own pattern.

use proptest::prelude::*;

use super::oracle::{Re, many, some};
use crate::oci::name::{NAME_MAX, Name, NameError};

#[test]
fn legal_names() {
    let longest = "a".repeat(NAME_MAX);
    for text in [
        "a",
        "0",
        "library/nginx",
        "a__b",
        "a--b",
        "a-----b",
        "a.b_c-d/e",
        "v2",
        "blobs/uploads",
        "manifests/tags/list",
        "x/y/z/1/2/3",
        &longest,
    ] {
        let name = Name::parse(text).expect(text);
        assert_eq!(name.to_string(), text);
        assert_eq!(name.as_str(), text);
        assert_eq!(name.is_single_component(), !text.contains('/'));
    }
}

#[test]
fn illegal_names() {
    for text in [
        "",
        "/",
        ".",
        "..",
        "a//b",
        "/a",
        "a/",
        "A",
        "-a",
        "a-",
        "_a",
        "a.",
        "a..b",
        "a___b",
        "a_-b",
        "a._b",
        "a/./b",
        "a/../b",
        "_catalog",
        "a:b",
        "a b",
        "a\0",
        "a%2fb",
        "a\\b",
        "\u{1f40b}",
        "\u{e9}",
        "e\u{301}",
        "\u{202e}a",
        "a\n",
    ] {
        assert_eq!(Name::parse(text), Err(NameError::Malformed), "{text:?}");
    }
    let long = "a".repeat(NAME_MAX + 1);
    assert_eq!(Name::parse(&long), Err(NameError::TooLong));
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`
fn pattern() -> Re {
    let word = || some(Re::Class(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9')));
    let separator = Re::Any(vec![
        Re::Text("."),
        Re::Text("_"),
        Re::Text("__"),
        some(Re::Text("-")),
    ]);
    let component = Re::Seq(vec![word(), many(Re::Seq(vec![separator, word()]))]);
    Re::Seq(vec![
        component.clone(),
        many(Re::Seq(vec![Re::Text("/"), component])),
    ])
}

#[test]
fn every_short_text_fits_as_the_pattern_says() {
    let (pattern, letters) = (pattern(), ["a", "0", ".", "_", "-", "/", "A"]);
    let mut texts = vec![String::new()];
    for _ in 0..6 {
        for text in &texts {
            let is_name = Name::parse(text).is_ok();
            assert_eq!(is_name, pattern.matches(text), "{text:?}");
        }
        texts = texts
            .iter()
            .flat_map(|text| letters.iter().map(move |letter| format!("{text}{letter}")))
            .collect();
    }
}

proptest! {
    #[test]
    fn likely_text_fits_as_the_pattern_says(text in "[a-c0._/-]{0,40}") {
        prop_assert_eq!(Name::parse(&text).is_ok(), pattern().matches(&text));
    }

    #[test]
    fn arbitrary_text_never_panics_and_names_keep_their_text(text in any::<String>()) {
        prop_assert_eq!(Name::parse(&text).is_ok(), text.len() <= NAME_MAX && pattern().matches(&text));
    }
}
