//! Text to calls: `items.find({…}).include("…")`, with the place of everything. Pure; linear in the text, which is capped, as its depth is.
//!
//! Arguments are JSON; an object may have a key twice, as questions do that ask two things of one field.

use super::{DEPTH_MAX, QUESTION_MAX, Refused};

/// The most of a word that a refusal repeats.
const REPEATED_MAX: usize = 40;

/// Something and the byte at which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) at: usize,
    pub(super) it: T,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    List(Vec<At<Value>>),
    Object(Vec<(At<String>, At<Value>)>),
}

impl Value {
    /// What it is, for sentences.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// One call with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: At<String>,
    pub(super) arguments: Vec<At<Value>>,
}

/// `domain.call(…).call(…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) domain: At<String>,
    pub(super) calls: Vec<Call>,
}

/// Reads a whole question.
pub(super) fn parse(text: &str) -> Result<Chain, Refused> {
    if text.len() > QUESTION_MAX {
        let message = format!("a question has at most {QUESTION_MAX} bytes");
        return Err(Refused::new(text, QUESTION_MAX, message));
    }
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    let domain = reader.word()?;
    let mut calls = Vec::new();
    while reader.skip('.') {
        let name = reader.word()?;
        let arguments = reader.call_arguments()?;
        calls.push(Call { name, arguments });
    }
    // Some clients end it like a statement.
    reader.skip(';');
    match reader.peek() {
        None => Ok(Chain { domain, calls }),
        Some(_) => Err(reader.refuse("a '.' and the next call, or the end, is wanted here")),
    }
}

/// A word as a refusal repeats it.
pub(super) fn shown(word: &str) -> String {
    let mut shown: String = word.chars().take(REPEATED_MAX).collect();
    if shown.len() < word.len() {
        shown.push('…');
    }
    format!("`{shown}`")
}

#[derive(Debug)]
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn refuse(&self, message: impl Into<String>) -> Refused {
        Refused::new(self.text, self.at, message)
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next letter that is no space.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        let space = rest.len() - rest.trim_start().len();
        self.at += space;
        self.rest().chars().next()
    }

    fn skip(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn want(&mut self, wanted: char) -> Result<(), Refused> {
        if self.skip(wanted) {
            Ok(())
        } else {
            Err(self.refuse(format!("a '{wanted}' is wanted here")))
        }
    }

    fn word(&mut self) -> Result<At<String>, Refused> {
        self.peek();
        let rest = self.rest();
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if word.is_empty() {
            return Err(self.refuse("a word is wanted here, as in items.find({\"repo\": \"…\"})"));
        }
        let (at, it) = (self.at, word.to_owned());
        self.at += it.len();
        Ok(At { at, it })
    }

    fn call_arguments(&mut self) -> Result<Vec<At<Value>>, Refused> {
        self.want('(')?;
        self.separated(')', Self::value)
    }

    /// What stands between commas up to `end`.
    fn separated<T>(
        &mut self,
        end: char,
        mut one: impl FnMut(&mut Self) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        let mut found = Vec::new();
        if self.skip(end) {
            return Ok(found);
        }
        loop {
            found.push(one(self)?);
            if self.skip(end) {
                return Ok(found);
            }
            if !self.skip(',') {
                return Err(self.refuse(format!("a ',' or a '{end}' is wanted here")));
            }
        }
    }

    fn value(&mut self) -> Result<At<Value>, Refused> {
        let first = self.peek();
        let at = self.at;
        let it = match first {
            Some('"') => Value::Text(self.string()?),
            Some('{') => Value::Object(self.nested('}', Self::entry)?),
            Some('[') => Value::List(self.nested(']', Self::value)?),
            Some('-' | '0'..='9') => Value::Number(self.number()?),
            _ => {
                let message =
                    "a text in double quotes, a whole number, an object or an array is wanted here";
                return Err(self.refuse(message));
            }
        };
        Ok(At { at, it })
    }

    fn nested<T>(
        &mut self,
        end: char,
        one: impl FnMut(&mut Self) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        if self.depth == DEPTH_MAX {
            let message = format!("arrays and objects nest at most {DEPTH_MAX} deep");
            return Err(self.refuse(message));
        }
        self.depth += 1;
        self.at += 1;
        let found = self.separated(end, one)?;
        self.depth -= 1;
        Ok(found)
    }

    fn entry(&mut self) -> Result<(At<String>, At<Value>), Refused> {
        if self.peek() != Some('"') {
            return Err(self.refuse("a field or operator in double quotes is wanted here"));
        }
        let at = self.at;
        let it = self.string()?;
        self.want(':')?;
        Ok((At { at, it }, self.value()?))
    }

    fn number(&mut self) -> Result<i64, Refused> {
        let rest = self.rest();
        let end =
            rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"+-.".contains(letter));
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let number = word.parse();
        let length = word.len();
        let number =
            number.map_err(|_not_one| self.refuse("this is no whole number of 64 bits"))?;
        self.at += length;
        Ok(number)
    }

    fn string(&mut self) -> Result<String, Refused> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(letter) = self.rest().chars().next() else {
                return Err(self.refuse("the text is not closed by a double quote"));
            };
            match letter {
                '"' => {
                    self.at += 1;
                    return Ok(text);
                }
                '\\' => text.push(self.escape()?),
                letter if letter.is_control() => {
                    return Err(self.refuse("a control character does not stand in a text"));
                }
                letter => {
                    text.push(letter);
                    self.at += letter.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Refused> {
        let at = self.at;
        // Places are counted from the beginning of the text, so only where something is wrong.
        self.escaped().ok_or_else(|| {
            Refused::new(self.text, at, "this is no escape: \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\u with four hex digits are, and \\u0000 is not")
        })
    }

    fn escaped(&mut self) -> Option<char> {
        let letter = self.rest().chars().nth(1);
        if letter == Some('u') {
            let first = self.code_unit()?;
            let units = match first {
                0xd800..=0xdbff => [Some(first), self.code_unit()],
                _ => [Some(first), None],
            };
            let letter = char::decode_utf16(units.into_iter().flatten()).next();
            return letter?.ok().filter(|letter| *letter != '\0');
        }
        let letter = match letter {
            Some(letter @ ('"' | '\\' | '/')) => letter,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            _ => return None,
        };
        self.at += 2;
        Some(letter)
    }

    /// `\uXXXX`.
    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.rest().strip_prefix("\\u")?.get(..4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let unit = u16::from_str_radix(digits, 16).ok()?;
        self.at += 6;
        Some(unit)
    }
}
