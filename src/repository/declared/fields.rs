//! Fields of JSON by what they are.

use std::time::Duration;

use serde_json::{Map, Value};

/// The longest time that a field can say.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A field that cannot be what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Which.
    pub field: String,
    /// Why, and what is allowed.
    pub problem: String,
}

pub(super) fn wrong(field: &str, problem: impl Into<String>) -> FieldError {
    FieldError {
        field: field.to_owned(),
        problem: problem.into(),
    }
}

/// Fields by what they are.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A text; an empty one is as good as none.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, FieldError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(wrong(field, "it is a text")),
        }
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool, FieldError> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(wrong(field, "it is true or false")),
        }
    }

    pub(super) fn number(&self, field: &str, most: u64) -> Result<Option<u64>, FieldError> {
        let value = match self.0.get(field) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let number = value.as_u64().filter(|number| *number <= most);
        let problem = || wrong(field, format!("it is a number from 0 to {most}"));
        number.map(Some).ok_or_else(problem)
    }

    pub(super) fn time(
        &self,
        field: &str,
        unit: impl Fn(u64) -> Duration,
    ) -> Result<Option<Duration>, FieldError> {
        let time = self.number(field, u64::MAX)?.map(unit);
        if time.is_some_and(|time| time > TIME_MAX) {
            return Err(wrong(field, "it is at most ten years"));
        }
        Ok(time)
    }

    pub(super) fn list(&self, field: &str) -> Result<Vec<&'a str>, FieldError> {
        let list = match self.0.get(field) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong(field, "it is a list of texts")),
        };
        let texts = list.iter().map(|one| one.as_str());
        let texts = texts.collect::<Option<Vec<&str>>>();
        texts.ok_or_else(|| wrong(field, "it is a list of texts"))
    }
}
