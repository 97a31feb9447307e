//! `Link: <…>; rel="next"` (RFC 8288), by which lists are paged.
//!
//! The target is given out as it stands. Whether it may be followed (same origin, not seen before) is the caller's to judge.

use std::fmt::Write as _;

/// The target of the first link whose relation is `next`, over all `Link` headers. What follows a syntax error in a header is
/// not looked at.
pub fn next<'a>(headers: impl Iterator<Item = &'a str>) -> Option<String> {
    headers.into_iter().find_map(next_of)
}

/// The value of a `Link` header to the next page. What could end the target early is escaped.
pub fn render_next(path_and_query: &str) -> String {
    let mut value = String::with_capacity(path_and_query.len() + 16);
    value.push('<');
    for byte in path_and_query.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"') {
            value.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(value, "%{byte:02X}");
        }
    }
    value.push_str(">; rel=\"next\"");
    value
}

fn next_of(header: &str) -> Option<String> {
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, behind) = rest.strip_prefix('<')?.split_once('>')?;
        let (is_next, behind) = parameters(behind)?;
        if is_next && !target.is_empty() {
            return Some(target.to_owned());
        }
        rest = behind;
    }
}

/// Reads `; key=value` up to the next comma; says whether the relation is `next` and what comes behind. `None`: no syntax.
fn parameters(text: &str) -> Option<(bool, &str)> {
    let mut relation: Option<String> = None;
    let mut rest = text.trim_start_matches(OWS);
    while let Some(behind) = rest.strip_prefix(';') {
        let (key, behind) = token(behind.trim_start_matches(OWS));
        let behind = behind.trim_start_matches(OWS);
        let (value, behind) = match behind.strip_prefix('=') {
            Some(behind) => value(behind.trim_start_matches(OWS))?,
            None => (String::new(), behind),
        };
        // RFC 8288, 3.3: of several relations in one link, the first counts.
        if key.eq_ignore_ascii_case("rel") && relation.is_none() {
            relation = Some(value);
        }
        rest = behind.trim_start_matches(OWS);
    }
    if !rest.is_empty() && !rest.starts_with(',') {
        return None;
    }
    let is_next = relation.is_some_and(|relation| {
        relation
            .split_ascii_whitespace()
            .any(|word| word.eq_ignore_ascii_case("next"))
    });
    Some((is_next, rest))
}

/// A token or a quoted string, and what comes behind.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, behind) = token(text);
        return Some((token.to_owned(), behind));
    };
    let mut value = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => value.push(letters.next()?),
            letter => value.push(letter),
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.find([';', ',', '=', '"', ' ', '\t']);
    text.split_at_checked(end.unwrap_or(text.len()))
        .unwrap_or((text, ""))
}

const OWS: [char; 2] = [' ', '\t'];
