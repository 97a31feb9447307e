//! Patterns of texts that come from outside, such as what an issuer calls a job: `*` is within a component, `**` over several. Pure.
//!
//! Components end at `/` and at `:`. `repo:org/*:ref:refs/heads/main` is so one repository of `org` and nothing that only looks like one.

/// What ends a component.
const SEPARATORS: &[u8] = b"/:";

/// Whether a text is what a pattern says.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let (start, rest) = match pattern.find('*') {
        Some(at) => pattern.split_at(at),
        None => return pattern == text,
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    let text = text.as_bytes();
    // Which beginnings of the text fit what was read of the pattern: the time is the product of both lengths, whatever stands in them.
    let mut reached = vec![false; text.len() + 1];
    if let Some(nothing) = reached.first_mut() {
        *nothing = true;
    }
    let mut left = rest.bytes().peekable();
    while let Some(wanted) = left.next() {
        let is_star = wanted == b'*';
        let is_wide = is_star && left.next_if_eq(&b'*').is_some();
        let mut before = false;
        let bytes = std::iter::once(None).chain(text.iter().map(Some));
        for (place, byte) in reached.iter_mut().zip(bytes) {
            let steps = byte.is_some_and(|byte| {
                if is_star {
                    is_wide || !SEPARATORS.contains(byte)
                } else {
                    *byte == wanted
                }
            });
            let was = *place;
            *place = (before && steps) || (is_star && was);
            // A star goes on from where it has come to, a letter from where it was.
            before = if is_star { *place } else { was };
        }
    }
    reached.last() == Some(&true)
}

/// The same for names with a prefix up to the first colon, which says whose names they are: no star stands for that.
pub(super) fn names(pattern: &str, name: &str) -> bool {
    match (pattern.split_once(':'), name.split_once(':')) {
        (Some((whose, pattern)), Some((prefix, name))) => whose == prefix && fits(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_ends_at_a_slash_and_at_a_colon() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "abc", true),
            ("*", "a/c", false),
            ("*", "a:c", false),
            ("**", "a:b/c", true),
            ("a*c", "abbc", true),
            ("a*c", "ac", true),
            ("a*c", "ab", false),
            ("a*b*c", "axbxbxc", true),
            ("refs/heads/*", "refs/heads/main", true),
            ("refs/heads/*", "refs/heads/a/b", false),
            ("refs/heads/**", "refs/heads/a/b", true),
            ("refs/**/main", "refs/heads/x/main", true),
            ("repo:org/*:ref:*", "repo:org/app:ref:main", true),
            ("repo:org/*:ref:*", "repo:org/app:x:ref:main", false),
            ("repo:org/*:ref:*", "repo:organ/app:ref:main", false),
            ("***", "a/b", true),
            ("*é", "né", true),
            ("?", "a", false),
            ("[a]", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
        // What takes others exponential time.
        assert!(!fits(&"*a".repeat(200), &"a".repeat(199)));
        assert!(fits(&"*a".repeat(200), &"a".repeat(200)));
    }

    #[test]
    fn no_star_stands_for_whose_a_name_is() {
        for (pattern, name, expected) in [
            ("oidc:a", "oidc:a", true),
            ("oidc:**", "oidc:repo:a/b", true),
            ("*:a", "oidc:a", false),
            ("**", "oidc:a", false),
            ("oidc:**", "other:a", false),
            ("oidc:a", "a", false),
            ("a", "a", false),
        ] {
            assert_eq!(names(pattern, name), expected, "{pattern} {name}");
        }
    }
}
