//! Calls to a question: which items, what of them, in which order, how many. Pure; `now` is an argument.

use crate::clock::Wall;
use crate::store::index::items::{Condition, NumberField, Operator, SortField, TextField};

use super::syntax::{self, At, Call, Value, shown};
use super::{COMPARISONS_MAX, ITEMS_MAX, Refused};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) find: Condition,
    pub(super) fields: Vec<Field>,
    pub(super) properties: Shown,
    pub(super) sort: Vec<(SortField, bool)>,
    pub(super) offset: u64,
    pub(super) limit: u64,
}

/// A field of an item, as answers have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Repo,
    Path,
    Name,
    Type,
    Size,
    Created,
    CreatedBy,
    Modified,
    ModifiedBy,
    Updated,
    Sha256,
    Depth,
    /// Asked for by clients, and not there: we hash by SHA-256 alone.
    Nothing,
}

/// Which properties are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    None,
    All,
    These(Vec<String>),
}

/// What an answer has where nothing else is asked for.
const DEFAULT: [Field; 10] = [
    Field::Repo,
    Field::Path,
    Field::Name,
    Field::Type,
    Field::Size,
    Field::Created,
    Field::CreatedBy,
    Field::Modified,
    Field::ModifiedBy,
    Field::Updated,
];

const ALLOWED: &str = "repo, path, name, type, size, created, modified, updated, sha256, depth, @<property>, property.key, property.value";
const OPERATORS: &str =
    "$eq, $ne, $match, $nmatch, $gt, $gte, $lt, $lte, and of dates $before and $last";
const CALLS: &str = ".include(…), .sort(…), .offset(…) and .limit(…)";

/// Reads a question.
pub(super) fn parse(text: &str, now: Wall) -> Result<Question, Refused> {
    let chain = syntax::parse(text)?;
    let mut asked = Asked {
        text,
        now,
        comparisons: 0,
        names_type: false,
    };
    if chain.domain.it != "items" {
        let domain = shown(&chain.domain.it);
        let message = format!("{domain} is not searched here; items.find(…) is");
        return Err(asked.refuse(&chain.domain, message));
    }
    let mut calls = chain.calls.iter();
    let find = match calls.next() {
        Some(call) if call.name.it == "find" => asked.find(call)?,
        Some(call) => {
            let message = format!("{} is no call here; items.find(…) is", shown(&call.name.it));
            return Err(asked.refuse(&call.name, message));
        }
        None => return Err(asked.refuse(&chain.domain, "items.find(…) is wanted")),
    };
    let mut question = Question {
        find,
        fields: DEFAULT.to_vec(),
        properties: Shown::None,
        sort: Vec::new(),
        offset: 0,
        limit: ITEMS_MAX,
    };
    let mut seen: Vec<&str> = Vec::new();
    for call in calls {
        let name = call.name.it.as_str();
        if seen.contains(&name) {
            return Err(asked.refuse(&call.name, format!("{} stands twice", shown(name))));
        }
        seen.push(name);
        match name {
            "include" => (question.fields, question.properties) = asked.include(call)?,
            "sort" => question.sort = asked.sort(call)?,
            "offset" => question.offset = asked.amount(call)?,
            "limit" => question.limit = asked.amount(call)?.min(ITEMS_MAX),
            _ => {
                let message = format!("{} is no call here; there are {CALLS}", shown(name));
                return Err(asked.refuse(&call.name, message));
            }
        }
    }
    Ok(question)
}

/// How a field is compared: by what kind of value.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text(TextField),
    Number(NumberField),
    Time(NumberField),
}

fn kind(field: &str) -> Option<Kind> {
    Some(match field {
        "repo" => Kind::Text(TextField::Repo),
        "path" => Kind::Text(TextField::Path),
        "name" => Kind::Text(TextField::Name),
        "type" => Kind::Text(TextField::Type),
        "sha256" => Kind::Text(TextField::Sha256),
        "size" => Kind::Number(NumberField::Size),
        "depth" => Kind::Number(NumberField::Depth),
        "created" | "modified" => Kind::Time(NumberField::Moved),
        "updated" => Kind::Time(NumberField::Checked),
        _ => return None,
    })
}

fn operator(word: &str) -> Option<Operator> {
    Some(match word {
        "$eq" => Operator::Equal,
        "$ne" => Operator::NotEqual,
        "$match" => Operator::Match,
        "$nmatch" => Operator::NoMatch,
        "$gt" => Operator::Greater,
        "$gte" => Operator::GreaterOrEqual,
        "$lt" => Operator::Less,
        "$lte" => Operator::LessOrEqual,
        _ => return None,
    })
}

#[derive(Debug)]
struct Asked<'a> {
    text: &'a str,
    now: Wall,
    comparisons: usize,
    names_type: bool,
}

impl Asked<'_> {
    fn refuse<T>(&self, place: &At<T>, message: impl Into<String>) -> Refused {
        Refused::new(self.text, place.at, message)
    }

    fn find(&mut self, call: &Call) -> Result<Condition, Refused> {
        let mut all = Vec::new();
        for argument in &call.arguments {
            all.push(self.object(argument)?);
        }
        // Folders are found where they are asked for.
        if !self.names_type {
            let file = "file".to_owned();
            all.push(Condition::Text(TextField::Type, Operator::Equal, file));
        }
        Ok(all_of(all))
    }

    /// `{…}`: all that stands in it.
    fn object(&mut self, value: &At<Value>) -> Result<Condition, Refused> {
        let Value::Object(entries) = &value.it else {
            let message = format!(
                "{} where an object of conditions is wanted",
                value.it.kind()
            );
            return Err(self.refuse(value, message));
        };
        let mut all = Vec::new();
        for (key, value) in entries {
            all.push(self.entry(key, value)?);
        }
        Ok(all_of(all))
    }

    fn entry(&mut self, key: &At<String>, value: &At<Value>) -> Result<Condition, Refused> {
        match (key.it.as_str(), &value.it) {
            ("$and" | "$or", Value::List(list)) => {
                let several: Result<Vec<_>, _> = list.iter().map(|one| self.object(one)).collect();
                let several = several?;
                if several.is_empty() {
                    return Err(self.refuse(value, format!("{} of nothing", key.it)));
                }
                Ok(if key.it == "$and" {
                    all_of(several)
                } else {
                    any_of(several)
                })
            }
            ("$and" | "$or", other) => {
                let message = format!(
                    "{} where {} wants an array of objects",
                    other.kind(),
                    key.it
                );
                Err(self.refuse(value, message))
            }
            (word, _) if word.starts_with('$') => {
                let message = format!(
                    "{} does not stand here; $and, $or or a field does",
                    shown(word)
                );
                Err(self.refuse(key, message))
            }
            (_, Value::Object(operators)) => {
                let mut all = Vec::new();
                for (word, value) in operators {
                    all.push(self.compare(key, Some(word), value)?);
                }
                if all.is_empty() {
                    let message = format!("an operator is wanted here: {OPERATORS}");
                    return Err(self.refuse(value, message));
                }
                Ok(all_of(all))
            }
            _ => self.compare(key, None, value),
        }
    }

    fn compare(
        &mut self,
        field: &At<String>,
        word: Option<&At<String>>,
        value: &At<Value>,
    ) -> Result<Condition, Refused> {
        self.comparisons += 1;
        if self.comparisons > COMPARISONS_MAX {
            let message = format!("a question has at most {COMPARISONS_MAX} comparisons");
            return Err(self.refuse(field, message));
        }
        let kind = kind(&field.it);
        if let (Some(Kind::Time(time)), Some(word)) = (kind, word)
            && matches!(word.it.as_str(), "$before" | "$last")
        {
            let before = if word.it == "$before" {
                Operator::Less
            } else {
                Operator::Greater
            };
            return Ok(Condition::Number(time, before, self.ago(value)?));
        }
        let operator = match word {
            None => Operator::Equal,
            Some(word) => operator(&word.it).ok_or_else(|| {
                let message = format!(
                    "{} is no operator here; there are {OPERATORS}",
                    shown(&word.it)
                );
                self.refuse(word, message)
            })?,
        };
        let is_pattern = matches!(operator, Operator::Match | Operator::NoMatch);
        match kind {
            Some(Kind::Number(_) | Kind::Time(_)) if is_pattern => {
                let message = format!("{} is no text, and patterns are for texts", field.it);
                Err(self.refuse(word.unwrap_or(field), message))
            }
            Some(Kind::Number(number)) => {
                Ok(Condition::Number(number, operator, self.number(value)?))
            }
            Some(Kind::Time(time)) => Ok(Condition::Number(time, operator, self.time(value)?)),
            Some(Kind::Text(text)) => {
                self.names_type |= text == TextField::Type;
                Ok(Condition::Text(text, operator, self.a_text(value)?))
            }
            None => self.property(field, operator, value),
        }
    }

    fn property(
        &self,
        field: &At<String>,
        operator: Operator,
        value: &At<Value>,
    ) -> Result<Condition, Refused> {
        let text = self.a_text(value)?;
        match (field.it.as_str(), field.it.strip_prefix('@')) {
            ("property.key", _) => Ok(Condition::PropertyKey(operator, text)),
            ("property.value" | "@*", _) => Ok(Condition::PropertyValue(operator, text)),
            (_, Some(key)) if !key.is_empty() => {
                Ok(Condition::Property(key.to_owned(), operator, text))
            }
            (other, _) => {
                let message = format!("{} is no field here; there are {ALLOWED}", shown(other));
                Err(self.refuse(field, message))
            }
        }
    }

    fn a_text(&self, value: &At<Value>) -> Result<String, Refused> {
        match &value.it {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other @ (Value::List(_) | Value::Object(_)) => {
                let message = format!("{} where a text is wanted", other.kind());
                Err(self.refuse(value, message))
            }
        }
    }

    fn number(&self, value: &At<Value>) -> Result<i64, Refused> {
        let number = match &value.it {
            Value::Number(number) => Some(*number),
            Value::Text(text) => text.parse().ok(),
            Value::List(_) | Value::Object(_) => None,
        };
        number.ok_or_else(|| self.refuse(value, "a whole number is wanted here"))
    }

    fn time(&self, value: &At<Value>) -> Result<i64, Refused> {
        let time = match &value.it {
            Value::Text(text) => Wall::parse(text).map(Wall::as_ms),
            Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        };
        time.ok_or_else(|| {
            let message = "a date is wanted here, such as 2026-11-21T10:00:00.000Z or 2026-11-21";
            self.refuse(value, message)
        })
    }

    /// A point in time so long ago, such as `7d`.
    fn ago(&self, value: &At<Value>) -> Result<i64, Refused> {
        let ago = match &value.it {
            Value::Text(text) => duration_ms(text),
            Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        };
        let ago = ago.ok_or_else(|| {
            let message = "a length of time is wanted here, such as 7d: a number and ms, s, minutes, h, d, w, mo or y";
            self.refuse(value, message)
        })?;
        Ok(self.now.as_ms().saturating_sub(ago))
    }

    fn amount(&self, call: &Call) -> Result<u64, Refused> {
        let amount = match call.arguments.as_slice() {
            [one] => self
                .number(one)
                .ok()
                .and_then(|number| u64::try_from(number).ok()),
            _ => None,
        };
        amount.ok_or_else(|| {
            let message = format!("{} takes one whole number, 0 or more", call.name.it);
            self.refuse(&call.name, message)
        })
    }

    /// Fields and properties; where properties alone are asked for, they come with the usual fields.
    fn include(&self, call: &Call) -> Result<(Vec<Field>, Shown), Refused> {
        let (mut fields, mut keys, mut all) = (Vec::new(), Vec::new(), false);
        for argument in &call.arguments {
            let Value::Text(text) = &argument.it else {
                let message = format!("{} where the name of a field is wanted", argument.it.kind());
                return Err(self.refuse(argument, message));
            };
            match (text.as_str(), text.strip_prefix('@')) {
                ("*", _) => fields.extend(DEFAULT.into_iter().chain([Field::Sha256, Field::Depth])),
                ("property" | "property.*" | "property.key" | "property.value" | "@*", _) => {
                    all = true;
                }
                (_, Some(key)) if !key.is_empty() => keys.push(key.to_owned()),
                (text, _) => fields.push(self.field(argument, text)?),
            }
        }
        if call.arguments.is_empty() {
            return Err(self.refuse(&call.name, "include names fields"));
        }
        let properties = match (all, keys.is_empty()) {
            (true, _) => Shown::All,
            (false, false) => Shown::These(keys),
            (false, true) => Shown::None,
        };
        if fields.is_empty() {
            fields = DEFAULT.to_vec();
        }
        Ok((fields, properties))
    }

    fn field(&self, place: &At<Value>, text: &str) -> Result<Field, Refused> {
        Ok(match text {
            "repo" => Field::Repo,
            "path" => Field::Path,
            "name" => Field::Name,
            "type" => Field::Type,
            "size" => Field::Size,
            "created" => Field::Created,
            "created_by" => Field::CreatedBy,
            "modified" => Field::Modified,
            "modified_by" => Field::ModifiedBy,
            "updated" => Field::Updated,
            "sha256" => Field::Sha256,
            "depth" => Field::Depth,
            "id" | "actual_md5" | "actual_sha1" | "original_md5" | "original_sha1"
            | "virtual_repos" => Field::Nothing,
            other => {
                let message = format!(
                    "{} is not shown here; there are *, repo, path, name, type, size, created, created_by, modified, modified_by, updated, sha256, depth, property, property.* and @<property>",
                    shown(other)
                );
                return Err(self.refuse(place, message));
            }
        })
    }

    fn sort(&self, call: &Call) -> Result<Vec<(SortField, bool)>, Refused> {
        let wrong = |place: &At<Value>| {
            let message = "sort takes {\"$asc\": [\"<field>\", …]} or {\"$desc\": […]}";
            self.refuse(place, message)
        };
        let [argument] = call.arguments.as_slice() else {
            let message = "sort takes one object: {\"$asc\": [\"<field>\", …]} or {\"$desc\": […]}";
            return Err(self.refuse(&call.name, message));
        };
        let Value::Object(entries) = &argument.it else {
            return Err(wrong(argument));
        };
        let mut sort: Vec<(SortField, bool)> = Vec::new();
        for (direction, fields) in entries {
            let descending = match direction.it.as_str() {
                "$asc" => false,
                "$desc" => true,
                other => {
                    let message = format!("{} is no order; $asc and $desc are", shown(other));
                    return Err(self.refuse(direction, message));
                }
            };
            let Value::List(fields) = &fields.it else {
                return Err(wrong(fields));
            };
            for field in fields {
                let found = self.sort_field(field)?;
                // What is named again decides nothing any more.
                if !sort.iter().any(|(known, _)| *known == found) {
                    sort.push((found, descending));
                }
            }
        }
        Ok(sort)
    }

    fn sort_field(&self, field: &At<Value>) -> Result<SortField, Refused> {
        let name = if let Value::Text(name) = &field.it {
            name.as_str()
        } else {
            field.it.kind()
        };
        match kind(name) {
            Some(Kind::Text(text)) => Ok(SortField::Text(text)),
            Some(Kind::Number(number) | Kind::Time(number)) => Ok(SortField::Number(number)),
            None => {
                let message = format!(
                    "{} is nothing to sort by; repo, path, name, type, size, created, modified, updated, sha256 and depth are",
                    shown(name)
                );
                Err(self.refuse(field, message))
            }
        }
    }
}

/// All of these, said as simply as it goes.
fn all_of(conditions: Vec<Condition>) -> Condition {
    let mut flat = Vec::new();
    for condition in conditions {
        if let Condition::All(more) = condition {
            flat.extend(more);
        } else {
            flat.push(condition);
        }
    }
    match <[Condition; 1]>::try_from(flat) {
        Ok([one]) => one,
        Err(several) => Condition::All(several),
    }
}

fn any_of(conditions: Vec<Condition>) -> Condition {
    match <[Condition; 1]>::try_from(conditions) {
        Ok([one]) => one,
        Err(several) => Condition::Any(several),
    }
}

/// `7d`, `2w`, `1mo`, in milliseconds.
fn duration_ms(text: &str) -> Option<i64> {
    const SECOND: i64 = 1000;
    const DAY: i64 = 24 * 60 * 60 * SECOND;
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    let unit = match unit.trim_start() {
        "ms" | "millis" | "mills" => 1,
        "s" | "seconds" => SECOND,
        "mi" | "minutes" => 60 * SECOND,
        "h" | "hours" => 60 * 60 * SECOND,
        "d" | "days" => DAY,
        "w" | "weeks" => 7 * DAY,
        "mo" | "months" => 30 * DAY,
        "y" | "years" => 365 * DAY,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}
