//! Strict JSON: what stands between bytes from a stranger and a `Value`.
//!
//! Two readers must not see two documents in the same bytes, so what parsers disagree about is refused: a key that stands
//! twice, a key that only a case-folding parser (Go's) takes for a known one, a byte order mark, bytes behind the value. Time
//! and memory are linear in the input and capped: depth and number of values are counted before the first allocation.
//! `null` is read as "absent", since Go writes an empty list that way. Knows nothing about manifests.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may nest.
pub const JSON_DEPTH_MAX: usize = 32;

/// How many values a document may hold.
///
/// A value costs some tens of bytes of memory and as little as two of input, so the cap on input bytes alone would let 4 MiB
/// become more than 100. A thousand layers with a hundred annotations each still fit.
pub const JSON_VALUES_MAX: usize = 131_072;

/// Why a document was refused, as a short sentence that quotes nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

impl Malformed {
    pub(super) const fn new(sentence: &'static str) -> Self {
        Self(sentence)
    }

    /// The sentence.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Parses one JSON value that fills all of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, Malformed> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(Malformed("it begins with a byte order mark"));
    }
    scan(bytes)?;
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Malformed("it is not UTF-8"));
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|error| {
        // Only `Strict` raises an error about the data; all others are about the text.
        Malformed(match error.classify() {
            serde_json::error::Category::Data => "a key stands twice in one object",
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => "it is not JSON",
        })
    })
}

/// Counts depth and values in one pass, without allocating. Text that is no JSON passes here and fails in the parser.
fn scan(bytes: &[u8]) -> Result<(), Malformed> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > JSON_DEPTH_MAX {
            return Err(Malformed("it is nested too deep"));
        }
        if values > JSON_VALUES_MAX {
            return Err(Malformed("it holds too many values"));
        }
    }
    Ok(())
}

/// Builds a `Value` as `serde_json` does, but refuses a key that stands twice, where `serde_json` keeps the last.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom("duplicate key"));
            }
            let value = entries.next_value_seed(Self)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// The fields of an object, taken out one at a time; what is left over is unknown and tolerated.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Opens an object of which the keys `known` will be read.
    pub(super) fn open(value: Value, known: &[&str]) -> Result<Self, Malformed> {
        let Value::Object(object) = value else {
            return Err(Malformed("an object is wanted where something else stands"));
        };
        let alike = |key: &String| known.iter().any(|name| key != name && folds_to(key, name));
        if object.keys().any(alike) {
            return Err(Malformed("a key differs from a known one in its case only"));
        }
        Ok(Self(object))
    }

    /// The value of `key`; `null` is as good as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    /// The text of `key`; an empty one is as good as absent, as Go's `omitempty` has it.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Malformed> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok((!text.is_empty()).then_some(text)),
            Some(_) => Err(NOT_TEXT),
        }
    }

    /// The array of `key`; `None` when it is absent.
    pub(super) fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>, Malformed> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(Malformed("an array is wanted where something else stands")),
        }
    }

    /// The array of texts of `key`.
    pub(super) fn texts(&mut self, key: &str) -> Result<Vec<String>, Malformed> {
        let list = self.list(key)?.unwrap_or_default();
        list.into_iter().map(into_text).collect()
    }

    /// The object of texts of `key`.
    pub(super) fn text_map(&mut self, key: &str) -> Result<BTreeMap<String, String>, Malformed> {
        match self.take(key) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(object)) => object
                .into_iter()
                .map(|(key, value)| Ok((key, into_text(value)?)))
                .collect(),
            Some(_) => Err(Malformed("an object is wanted where something else stands")),
        }
    }
}

const NOT_TEXT: Malformed = Malformed("a text is wanted where something else stands");

fn into_text(value: Value) -> Result<String, Malformed> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(NOT_TEXT)
        }
    }
}

/// Whether Go's `encoding/json` takes `key` for the field `name`: it folds ASCII case and the two letters outside ASCII that
/// Unicode folds into it.
fn folds_to(key: &str, name: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}
