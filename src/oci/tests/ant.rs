use proptest::prelude::*;

use crate::oci::ant::{Glob, PATTERN_MAX, Pattern, PatternError};

#[test]
fn artifactorys_own_examples() {
    for (pattern, path, fits) in [
        ("**", "", true),
        ("**", "https:/mcr.microsoft.com/v2/x", true),
        ("**/*", "a", true),
        ("**/*", "a/b/c", true),
        ("**/*", "", false),
        ("org/apache/**", "org/apache/maven/parent/1/1.pom", true),
        ("org/apache/**", "org/apache", true),
        ("org/apache/**", "org/apachex/a", false),
        (
            "com/acme/**",
            "com/acme/project-x/core/1.0/nit-1.0.jar",
            true,
        ),
        (
            "com/acme/exp-project/**",
            "com/acme/exp-project/core/1.1/san-1.1.jar",
            true,
        ),
        (
            "com/acme/exp-project/**",
            "com/acme/project-x/core/1.0/nit-1.0.jar",
            false,
        ),
        ("x/y/**/z/*", "x/y/z/1", true),
        ("x/y/**/z/*", "x/y/a/b/z/1", true),
        ("x/y/**/z/*", "x/y/a/z/1/2", false),
        ("x/y/**/z/*", "x/y/a/z/b/z/2", true),
        ("image/**", "image/layer", true),
        ("**/*.txt", "a/b/readme.txt", true),
        ("**/*.txt", "a/b/readme.txt/c", false),
        ("**/.svn/**", "a/.svn/entries", true),
        (
            "**/mcr.microsoft.com/**",
            "https:/mcr.microsoft.com/v2/windows/blobs/x",
            true,
        ),
        (
            "**/mcr.microsoft.com/**",
            "https:/mcrxmicrosoft.com/v2",
            false,
        ),
        (
            "**/go.microsoft.com/**",
            "https:/go.microsoft.com/fwlink/",
            true,
        ),
        ("**/*microsoft*/**", "https:/download.microsoft.com/x", true),
        ("**/github.com/**", "https:/github.com", true),
    ] {
        assert_eq!(
            Pattern::parse(pattern).unwrap().matches(path),
            fits,
            "{pattern} {path}"
        );
    }
}

#[test]
fn one_character_and_one_segment() {
    for (pattern, path, fits) in [
        ("a?c", "abc", true),
        ("a?c", "aéc", true),
        ("a?c", "ac", false),
        ("a?c", "a/c", false),
        ("a*", "a", true),
        ("a*", "abc", true),
        ("a*", "a/b", false),
        ("*/b", "a/b", true),
        ("*/b", "b", false),
        ("a/**/b", "a/b", true),
        ("a/**/**/b", "a/x/y/b", true),
        ("a/", "a/b/c", true),
        ("a/", "a", true),
        ("/a//b", "a/b", true),
        ("a", "a//", true),
        ("", "", true),
        ("", "a", false),
        ("a.c", "abc", false),
        ("[ab]", "a", false),
        ("A", "a", false),
    ] {
        assert_eq!(
            Pattern::parse(pattern).unwrap().matches(path),
            fits,
            "{pattern} {path}"
        );
    }
}

#[test]
fn what_is_no_pattern() {
    for text in ["**github.com**", "a/**.txt", "***", "x/b**"] {
        assert_eq!(Pattern::parse(text), Err(PatternError::Stars), "{text}");
    }
    let long = "a".repeat(PATTERN_MAX + 1);
    assert_eq!(Pattern::parse(&long), Err(PatternError::TooLong));
    assert_eq!(Glob::parse(&long), Err(PatternError::TooLong));
}

/// Patterns on which a matcher that tries everything does not come to an end.
#[test]
fn hostile_patterns_end_soon() {
    let tail = Pattern::parse(&format!("{}b", "**/a/".repeat(200))).unwrap();
    assert!(!tail.matches(&"a/".repeat(8000)));
    let within = Glob::parse(&format!("{}b", "*a".repeat(500))).unwrap();
    assert!(!within.matches(&"a".repeat(16_000)));
    let both = Pattern::parse(&format!("{}x", "**/*a*a*a*b/".repeat(80))).unwrap();
    assert!(!both.matches(&"aaaaaaa/".repeat(2000)));
}

/// The definition, taken word for word.
fn says(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            says(rest, path)
                || path
                    .split_first()
                    .is_some_and(|(_, tail)| says(pattern, tail))
        }
        (Some((one, rest)), Some((text, tail))) => {
            let (one, text): (Vec<char>, Vec<char>) =
                (one.chars().collect(), text.chars().collect());
            says_within(&one, &text) && says(rest, tail)
        }
        _ => false,
    }
}

fn says_within(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            says_within(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(_, tail)| says_within(pattern, tail))
        }
        (Some((one, rest)), Some((c, tail))) => {
            (*one == '?' || one == c) && says_within(rest, tail)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_definition(
        pattern in prop::collection::vec("\\*\\*|[ab?]{0,2}\\*?[ab?]{1,2}\\*?|\\*", 0..6),
        path in prop::collection::vec("[ab]{1,4}", 0..6),
    ) {
        let found = Pattern::parse(&pattern.join("/")).unwrap().matches(&path.join("/"));
        let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        prop_assert_eq!(found, says(&pattern, &path));
    }
}
