//! Keys from the environment: `ROADSTEAD__STORAGE__MAX_SIZE=20GiB` is `storage.max_size`.
//!
//! `__` parts the path; `_` in a part stands for itself, `-` and `.`, so that repository keys can be named. The value is read as TOML where
//! it is some, else as text. Pure: the environment is an argument.

use toml::{Table, Value};

/// What every variable begins with.
const PREFIX: &str = "ROADSTEAD__";

/// Puts the environment over `table`. Errors name the variable; `check` says whether a table can be read.
pub(super) fn apply(
    table: &mut Table,
    environment: &[(String, String)],
    check: impl Fn(&Table) -> Result<(), String>,
) -> Result<(), String> {
    let mut refused = None;
    for (variable, text) in environment {
        let Some(path) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let parts: Vec<&str> = path.split("__").collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!(
                "{variable}: a configuration key is written like {PREFIX}STORAGE__MAX_SIZE"
            ));
        }
        let with = |value: Value| {
            let mut changed = table.clone();
            set(&mut changed, &parts, value)
                .map(|()| changed)
                .map_err(|problem| format!("{variable}: {problem}"))
        };
        let typed = with(value(text))?;
        *table = match check(&typed) {
            Ok(()) => typed,
            Err(problem) => {
                // A name or a password may look like a number.
                let as_text = with(Value::String(text.clone()))?;
                if check(&as_text).is_ok() {
                    as_text
                } else {
                    // A later variable may complete it.
                    refused.get_or_insert(format!("{variable}: {problem}"));
                    typed
                }
            }
        };
    }
    match refused {
        Some(refused) if check(table).is_err() => Err(refused),
        _ => Ok(()),
    }
}

fn set(table: &mut Table, parts: &[&str], value: Value) -> Result<(), String> {
    let Some((first, rest)) = parts.split_first() else {
        return Ok(());
    };
    let wanted = first.to_ascii_lowercase();
    let fold = |key: &str| key.to_ascii_lowercase().replace(['-', '.'], "_");
    let matching: Vec<String> = table
        .keys()
        .filter(|key| fold(key) == wanted)
        .cloned()
        .collect();
    let key = match matching.as_slice() {
        [] => wanted,
        [one] => one.clone(),
        several => {
            return Err(format!(
                "it could mean any of {}; set it in the file",
                several.join(", ")
            ));
        }
    };
    if rest.is_empty() {
        table.insert(key, value);
        return Ok(());
    }
    match table
        .entry(key)
        .or_insert_with(|| Value::Table(Table::new()))
    {
        Value::Table(inner) => set(inner, rest, value),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => Err("a part of it is a value and no table".to_owned()),
    }
}

fn value(text: &str) -> Value {
    // Numbers, booleans, lists and tables are written as in the file; anything else is text.
    match text.parse::<Value>() {
        Ok(value @ (Value::Integer(_) | Value::Boolean(_) | Value::Array(_) | Value::Table(_))) => {
            value
        }
        _ => Value::String(text.to_owned()),
    }
}
