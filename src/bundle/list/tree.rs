//! What YAML and TOML have in common: scalars, sequences and mappings, each with its place in the text.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnosis::{Problem, nearest, of_toml};

/// One value and where it stands, in bytes.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Range<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    /// As it is written, so that the tag `1.10` stays what it is.
    Text(String),
    Number(String),
    Bool(bool),
    Sequence(Vec<Rc<Node>>),
    Mapping(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_at: Range<usize>,
    pub(super) value: Rc<Node>,
}

impl Node {
    /// A problem with this value.
    pub(super) fn problem(&self, title: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem {
            title: title.into(),
            at: Some(self.at.clone()),
            remedy: remedy.into(),
        }
    }

    /// Its entries; none where it is no mapping.
    pub(super) fn entries(&self) -> &[Entry] {
        if let Kind::Mapping(entries) = &self.kind {
            entries
        } else {
            &[]
        }
    }

    /// Its items; none where it is no sequence.
    pub(super) fn items(&self) -> &[Rc<Self>] {
        if let Kind::Sequence(items) = &self.kind {
            items
        } else {
            &[]
        }
    }

    /// The value under a key.
    pub(super) fn get(&self, key: &str) -> Option<&Rc<Self>> {
        let mut entries = self.entries().iter();
        entries
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value)
    }

    /// A text; a number counts as one, as `tags: [1.27, 17]` is meant in YAML.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) | Kind::Number(text) => Some(text),
            Kind::Null | Kind::Bool(_) | Kind::Sequence(_) | Kind::Mapping(_) => None,
        }
    }

    /// A text, or what to do about it that it is none.
    pub(super) fn expect_text(&self, what: &str) -> Result<&str, Problem> {
        self.text().ok_or_else(|| {
            self.problem(
                format!("{what} is {}, not a text", self.name()),
                "write a text here, in quotes if need be",
            )
        })
    }

    pub(super) fn expect_bool(&self, what: &str) -> Result<bool, Problem> {
        match &self.kind {
            Kind::Bool(value) => Ok(*value),
            Kind::Null | Kind::Text(_) | Kind::Number(_) | Kind::Sequence(_) | Kind::Mapping(_) => {
                Err(self.problem(
                    format!("{what} is {}, not true or false", self.name()),
                    "write true or false here",
                ))
            }
        }
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn expect_texts(&self, what: &str) -> Result<Vec<(&str, &Self)>, Problem> {
        match &self.kind {
            Kind::Sequence(items) => items
                .iter()
                .map(|item| Ok((item.expect_text(what)?, &**item)))
                .collect(),
            Kind::Null | Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Mapping(_) => {
                Ok(vec![(self.expect_text(what)?, self)])
            }
        }
    }

    /// A mapping with no key twice and none but `known` ones.
    pub(super) fn expect_keys(&self, what: &str, known: &[&str]) -> Result<&[Entry], Problem> {
        let Kind::Mapping(entries) = &self.kind else {
            return Err(self.problem(
                format!("{what} is {}, not a table of keys and values", self.name()),
                format!("write some of these keys here: {}", known.join(", ")),
            ));
        };
        let mut seen = HashSet::new();
        for entry in entries {
            let wrong = |title: String, remedy: String| Problem {
                title,
                at: Some(entry.key_at.clone()),
                remedy,
            };
            if !known.contains(&entry.key.as_str()) {
                let remedy = nearest(&entry.key, known.iter().copied()).map_or_else(
                    || format!("the keys here are {}", known.join(", ")),
                    |likely| format!("did you mean `{likely}`?"),
                );
                return Err(wrong(
                    format!("unknown key `{}` in {what}", entry.key),
                    remedy,
                ));
            }
            if !seen.insert(entry.key.as_str()) {
                let title = format!("`{}` stands twice in {what}", entry.key);
                return Err(wrong(title, "leave one of them out".to_owned()));
            }
        }
        Ok(entries)
    }

    /// What it is, for a sentence.
    pub(super) const fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "nothing",
            Kind::Text(_) => "a text",
            Kind::Number(_) => "a number",
            Kind::Bool(_) => "true or false",
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a table",
        }
    }
}

/// Reads TOML. The library bounds how deep it nests.
pub(super) fn from_toml(text: &str) -> Result<Node, Problem> {
    let table = DeTable::parse(text).map_err(|error| of_toml(&error))?;
    let at = table.span();
    Ok(Node {
        at,
        kind: of_table(table.get_ref()),
    })
}

fn of_table(table: &DeTable<'_>) -> Kind {
    let entries = table.iter().map(|(key, value)| Entry {
        key: key.get_ref().to_string(),
        key_at: key.span(),
        value: Rc::new(of_value(value)),
    });
    Kind::Mapping(entries.collect())
}

fn of_value(value: &Spanned<DeValue<'_>>) -> Node {
    let kind = match value.get_ref() {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Integer(number) => Kind::Number(number.as_str().to_owned()),
        DeValue::Float(number) => Kind::Number(number.as_str().to_owned()),
        DeValue::Boolean(value) => Kind::Bool(*value),
        DeValue::Datetime(time) => Kind::Text(time.to_string()),
        DeValue::Array(items) => {
            Kind::Sequence(items.iter().map(|item| Rc::new(of_value(item))).collect())
        }
        DeValue::Table(table) => of_table(table),
    };
    Node {
        at: value.span(),
        kind,
    }
}
