use proptest::prelude::*;

use super::super::version::order;
use super::super::{Choice, Pattern, Pick, Range};
use crate::oci::Tag;

fn strings(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

fn choice(include: &[&str], exclude: &[&str], semver: &[&str], newest: usize) -> Choice {
    let globs = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| Pattern::glob(text).unwrap())
            .collect()
    };
    Choice {
        allow: globs(include),
        deny: globs(exclude),
        semver: semver
            .iter()
            .map(|text| Range::parse(text).unwrap())
            .collect(),
        newest: (newest > 0).then_some(newest),
        prereleases: false,
    }
}

fn chosen(choice: Choice, tags: &[&str]) -> String {
    match Pick::Choice(choice).choose(&strings(tags)) {
        Ok(tags) => tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" "),
        Err(error) => format!("error: {error}"),
    }
}

const NGINX: [&str; 12] = [
    "1.25.5",
    "1.26",
    "1.26.2",
    "1.27",
    "1.27.3",
    "1.27.10",
    "1.27.3-alpine",
    "1.27.10-alpine",
    "1.28.0-rc.1",
    "latest",
    "mainline",
    "v1.9.0",
];

#[test]
fn patterns_are_anchored_and_deny_wins() {
    let all = choice(&["1.27*"], &["*-alpine"], &[], 0);
    assert_eq!(chosen(all, &NGINX), "1.27.10 1.27.3 1.27");
    let mut regex = Choice::default();
    regex.allow.push(Pattern::regex(r"1\.27|latest").unwrap());
    assert_eq!(chosen(regex.clone(), &NGINX), "1.27 latest");
    regex.deny.push(Pattern::regex("late").unwrap());
    assert_eq!(
        chosen(regex.clone(), &NGINX),
        "1.27 latest",
        "not the whole of it"
    );
    regex.deny.push(Pattern::regex("late.*").unwrap());
    assert_eq!(chosen(regex, &NGINX), "1.27");
    assert!(
        Pattern::regex("a)(b").is_err(),
        "it must not leave its anchors"
    );
    assert!(Pattern::regex("(a{1000}){1000}").is_err(), "REGEX_MAX");
    assert!(Pattern::glob("[a").is_err());
}

#[test]
fn ranges_are_lenient_with_tags_and_strict_with_prereleases() {
    for (range, expected) in [
        (">=1.26, <1.27.4", "1.27.3 1.27 1.26.2 1.26"),
        (">=1.26 <1.27.4", "1.27.3 1.27 1.26.2 1.26"),
        ("~1.27", "1.27.10 1.27.3 1.27"),
        ("1.27.x", "1.27.10 1.27.3 1.27"),
        ("<1.10 || ~1.25", "1.25.5 v1.9.0"),
        ("v1.26 - v1.26.5", "1.26.2 1.26"),
        ("=1.27.3", "1.27.3"),
        (">=1.28.0-rc.0", "1.28.0-rc.1"),
        (">=1.27.4-0", "1.28.0-rc.1 1.27.10"),
    ] {
        assert_eq!(
            chosen(choice(&[], &[], &[range], 0), &NGINX),
            expected,
            "{range}"
        );
    }
    let variants = choice(&["*-alpine"], &[], &[">=1.27.4"], 0);
    assert_eq!(chosen(variants, &NGINX), "1.27.10-alpine");
    let mut early = choice(&[], &[], &[">=1.28"], 0);
    assert!(chosen(early.clone(), &NGINX).starts_with("error: no tag fits `>=1.28`"));
    early.prereleases = true;
    assert_eq!(chosen(early, &NGINX), "1.28.0-rc.1");
    assert_eq!(
        chosen(
            choice(&[], &[], &[">=24.04"], 0),
            &["22.04", "24.04", "24.10"]
        ),
        "24.10 24.04"
    );
    assert_eq!(
        chosen(
            choice(&[], &[], &["~3.13"], 0),
            &["3.13.0rc1", "3.13.0.b2", "3.13.1"]
        ),
        "3.13.1"
    );
    for text in ["", "banana", ">=", "1.2.3.4", ">= <"] {
        assert!(Range::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_newest_are_by_version_and_else_by_natural_order() {
    assert_eq!(chosen(choice(&[], &[], &[], 2), &NGINX), "1.27.10 1.27.3");
    assert_eq!(
        chosen(choice(&["*alpine"], &[], &[], 1), &NGINX),
        "1.27.10-alpine"
    );
    assert_eq!(
        chosen(choice(&["1.28*"], &[], &[], 1), &NGINX),
        "1.28.0-rc.1",
        "nothing else is there"
    );
    assert_eq!(
        chosen(choice(&["1.2[78]*"], &["*alpine"], &[], 1), &NGINX),
        "1.27.10"
    );
    let mut early = choice(&[], &[], &[], 1);
    early.prereleases = true;
    assert_eq!(chosen(early, &NGINX), "1.28.0-rc.1");
    let builds = ["build-9", "build-10", "build-08", "latest"];
    assert_eq!(
        chosen(choice(&["build-*"], &[], &[], 2), &builds),
        "build-10 build-9"
    );
    assert_eq!(
        chosen(choice(&[], &[], &[], 9), &["2024-01-02", "2024-01-10"]),
        "2024-01-10 2024-01-02"
    );
}

#[test]
fn what_belongs_to_a_digest_is_no_choice() {
    let signature = format!("sha256-{}.sig", "a".repeat(64));
    assert_eq!(chosen(Choice::default(), &[&signature, "1.0"]), "1.0");
}

#[test]
fn nothing_is_an_error_that_says_what_fits_nothing() {
    let error = chosen(choice(&["1.27*", "1.99*"], &[], &[], 0), &NGINX);
    assert_eq!(
        error,
        "error: no tag fits `1.99*`; the newest that there are: 1.28.0-rc.1, 1.27.10-alpine, 1.27.10, 1.27.3-alpine, 1.27.3"
    );
    let error = chosen(choice(&["1.26*"], &["*"], &["~1.26"], 0), &NGINX);
    assert_eq!(
        error,
        "error: no tag fits all of `1.26*`, `~1.26`, not `*`; loosen one of them"
    );
    assert_eq!(
        chosen(Choice::default(), &[]),
        "error: no tag fits `*`; the image has no tags at all"
    );
    let tags = Pick::Tags(vec![Tag::parse("1.99").unwrap()]);
    assert!(
        tags.choose(&strings(&NGINX))
            .unwrap_err()
            .to_string()
            .starts_with("there is no tag `1.99`; the newest")
    );
    assert!(!tags.needs_tags() && Pick::Choice(Choice::default()).needs_tags());
}

#[test]
fn versions_stand_in_order() {
    let sorted = [
        "latest",
        "nightly",
        "1.2-rc1",
        "1.2",
        "1.2.0",
        "1.2.0-alpine",
        "1.2.1-rc2",
        "1.2.1-rc10",
        "1.2.1",
        "v1.10.0",
        "2024.01.02",
    ];
    for pair in sorted.windows(2) {
        assert!(order(pair[0], pair[1]).is_lt(), "{pair:?}");
        assert!(order(pair[1], pair[0]).is_gt(), "{pair:?}");
    }
}

proptest! {
    #[test]
    fn what_is_chosen_was_there(
        tags in proptest::collection::vec("v?[0-9]{1,2}(\\.[0-9]{1,2}){0,3}(-?(rc|alpine|b)[0-9]?)?", 0..20),
        include in proptest::option::of("[v0-9.*?]{1,4}"),
        range in proptest::option::of("(>=|<|~|\\^|=)?[0-9]{1,2}(\\.[0-9])?"),
        newest in proptest::option::of(1_usize..4),
        prereleases: bool,
    ) {
        let choice = Choice {
            allow: include.iter().map(|text| Pattern::glob(text).unwrap()).collect(),
            deny: Vec::new(),
            semver: range.iter().map(|text| Range::parse(text).unwrap()).collect(),
            newest,
            prereleases,
        };
        if let Ok(found) = Pick::Choice(choice).choose(&tags) {
            prop_assert!(!found.is_empty() && found.len() <= newest.unwrap_or(tags.len()));
            prop_assert!(found.iter().all(|tag| tags.iter().any(|known| known == tag.as_str())));
            prop_assert!(found.windows(2).all(|pair| order(pair[0].as_str(), pair[1].as_str()).is_gt()));
        }
    }

    #[test]
    fn the_order_is_one(tags in proptest::collection::vec("[v0-9a-c.-]{1,6}", 3)) {
        let [a, b, c] = &tags[..] else { unreachable!() };
        prop_assert_eq!(order(a, b), order(b, a).reverse());
        prop_assert_eq!(order(a, b).is_eq(), a == b);
        if order(a, b).is_le() && order(b, c).is_le() {
            prop_assert!(order(a, c).is_le());
        }
    }

    #[test]
    fn patterns_and_ranges_never_panic(text in ".{0,30}") {
        let _ = Pattern::glob(&text);
        let _ = Pattern::regex(&text);
        let _ = Range::parse(&text);
        let _ = order(&text, "1.2.3");
    }
}
