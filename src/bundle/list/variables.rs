//! Variables in Compose files: `$NAME`, `${NAME:-default}` and their kin (Compose specification, "Interpolation").

use std::collections::BTreeMap;

/// How deep defaults may hold variables of their own.
const DEPTH_MAX: usize = 16;
/// The most bytes that one text may become.
const LENGTH_MAX: usize = 4 * 1024;

/// Why a text cannot be filled in: what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unresolved {
    pub(super) title: String,
    pub(super) remedy: String,
}

/// Fills the variables of a text in.
pub(super) fn fill_in(
    text: &str,
    variables: &BTreeMap<String, String>,
) -> Result<String, Unresolved> {
    fill(text, variables, 0)
}

fn wrong(title: impl Into<String>, remedy: impl Into<String>) -> Unresolved {
    Unresolved {
        title: title.into(),
        remedy: remedy.into(),
    }
}

fn fill(
    text: &str,
    variables: &BTreeMap<String, String>,
    depth: usize,
) -> Result<String, Unresolved> {
    if depth > DEPTH_MAX {
        let title = format!("variables nest more than {DEPTH_MAX} deep");
        return Err(wrong(title, "write the value out"));
    }
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            filled.push('$');
            after
        } else if let Some(inside) = after.strip_prefix('{') {
            let (inside, after) = braced(inside).ok_or_else(|| {
                wrong(
                    format!("`${{` without its `}}` in `{text}`"),
                    "close it, or write $$ for a dollar",
                )
            })?;
            filled.push_str(&value(inside, variables, depth)?);
            after
        } else {
            let (name, after) = name(after);
            if name.is_empty() {
                let title = format!("`$` without a name in `{text}`");
                return Err(wrong(title, "write $$ for a dollar"));
            }
            filled.push_str(variables.get(name).ok_or_else(|| unknown(name))?);
            after
        };
        if filled.len() > LENGTH_MAX {
            return Err(wrong(
                "this becomes too long to be an image",
                "write the image out",
            ));
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// What stands in `${…}`.
fn value(
    inside: &str,
    variables: &BTreeMap<String, String>,
    depth: usize,
) -> Result<String, Unresolved> {
    let (name, modifier) = name(inside);
    if name.is_empty() {
        return Err(wrong(
            format!("`${{{inside}}}` names no variable"),
            "write ${NAME}",
        ));
    }
    let set = variables.get(name);
    let (counts, kind) = match modifier.strip_prefix(':') {
        Some(kind) => (set.filter(|value| !value.is_empty()), kind),
        None => (set, modifier),
    };
    let mut kind = kind.chars();
    match (kind.next(), counts) {
        (None, _) if modifier.is_empty() => set.cloned().ok_or_else(|| unknown(name)),
        (Some('-' | '?'), Some(value)) => Ok(value.clone()),
        (Some('-'), None) | (Some('+'), Some(_)) => fill(kind.as_str(), variables, depth + 1),
        (Some('?'), None) => {
            let message = kind.as_str();
            let remedy = format!("set it: {message}");
            Err(wrong(format!("the variable `{name}` is required"), remedy))
        }
        (Some('+'), None) => Ok(String::new()),
        _ => Err(wrong(
            format!("`${{{inside}}}` is not understood"),
            "write ${NAME}, ${NAME:-default} or ${NAME:?message}",
        )),
    }
}

fn unknown(name: &str) -> Unresolved {
    wrong(
        format!("the variable `{name}` has no value"),
        format!("set it, or write a default: ${{{name}:-…}}"),
    )
}

/// The name that a text begins with, and the rest.
fn name(text: &str) -> (&str, &str) {
    let is_part = |(at, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit())
    };
    let end = text
        .char_indices()
        .find(|part| !is_part(*part))
        .map_or(text.len(), |(at, _)| at);
    text.split_at(end)
}

/// What stands before the brace that closes, and what behind it.
fn braced(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => {
                let (inside, after) = text.split_at(at);
                return Some((inside, after.strip_prefix('}').unwrap_or(after)));
            }
            '}' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    None
}
