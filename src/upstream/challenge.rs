//! `WWW-Authenticate`, by its grammar (RFC 9110, 11.6.1): several challenges in a line, several lines. Pure.

/// The most bytes of one header that are looked at.
pub const CHALLENGE_MAX: usize = 4096;
/// The most challenges that are looked at.
const CHALLENGES_MAX: usize = 8;

/// One challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`, …
    pub scheme: String,
    /// Its parameters: names in lower case, values unescaped, in order.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter; `None` where it is missing or given twice.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self
            .parameters
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.as_str());
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }
}

/// Every challenge of one header's value; `None` where it does not fit the grammar.
pub fn parse(text: &str) -> Option<Vec<Challenge>> {
    if text.len() > CHALLENGE_MAX {
        return None;
    }
    let mut cursor = Cursor { rest: text };
    let mut challenges: Vec<Challenge> = Vec::new();
    loop {
        cursor.skip(|c| c == ',' || is_space(c));
        if cursor.rest.is_empty() {
            return Some(challenges);
        }
        let word = cursor.token()?;
        let spaced = cursor.skip(is_space);
        if cursor.eat('=') {
            // A parameter of the challenge that is being read.
            cursor.skip(is_space);
            let value = if cursor.eat('"') {
                cursor.quoted()?
            } else {
                cursor.token()?
            };
            challenges
                .last_mut()?
                .parameters
                .push((word.to_ascii_lowercase(), value));
            cursor.skip(is_space);
            if !(cursor.rest.is_empty() || cursor.rest.starts_with(',')) {
                return None;
            }
            continue;
        }
        if challenges.len() == CHALLENGES_MAX
            || !(spaced || cursor.rest.is_empty() || cursor.rest.starts_with(','))
        {
            return None;
        }
        challenges.push(Challenge {
            scheme: word.to_ascii_lowercase(),
            parameters: Vec::new(),
        });
        cursor.token68();
    }
}

struct Cursor<'a> {
    rest: &'a str,
}

impl Cursor<'_> {
    fn skip(&mut self, what: impl Fn(char) -> bool) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches(what);
        self.rest.len() < before
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest
            .strip_prefix(c)
            .map(|rest| self.rest = rest)
            .is_some()
    }

    fn token(&mut self) -> Option<String> {
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        (!token.is_empty()).then(|| token.to_owned())
    }

    /// Behind the opening quote.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.rest = self.rest.get(at + 1..)?;
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                c if c.is_control() && c != '\t' => return None,
                c => value.push(c),
            }
        }
        None
    }

    /// A lone token68 behind a scheme (`Negotiate YII=`): dropped, nobody here uses one.
    fn token68(&mut self) {
        let word = self
            .rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "-._~+/".contains(c)))
            .unwrap_or(self.rest.len());
        let Some((_, rest)) = self.rest.split_at_checked(word) else {
            return;
        };
        let rest = rest.trim_start_matches('=').trim_start_matches(is_space);
        if word > 0 && (rest.is_empty() || rest.starts_with(',')) {
            self.rest = rest;
        }
    }
}

const fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}
