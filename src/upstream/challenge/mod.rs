//! `WWW-Authenticate` as registries write it (RFC 9110, 11.6.1; distribution-spec has no word on it, Docker's token specification has).
//!
//! Pure. Reads several challenges in one header line and several lines, token68, quoted strings with escapes. A syntax error ends
//! the line that it is in and spoils the challenge that it is in; what came before it counts. Never panics, looks at 4 KiB at most.

/// The most bytes of all challenges together that are read (RELIABILITY P38).
pub(super) const CHALLENGE_MAX: usize = 4096;
/// The most challenges that are read.
const CHALLENGES_MAX: usize = 16;

/// How an upstream wants us to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Ask `realm` for a token.
    Bearer {
        /// URL of the token service, unparsed.
        realm: String,
        /// What the token service calls the registry.
        service: Option<String>,
    },
    /// Send user name and password.
    Basic,
    /// Something that is not spoken here.
    Other,
}

/// The challenges in header lines, in their order.
pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut left = CHALLENGE_MAX;
    for line in lines {
        let Some(rest) = left.checked_sub(line.len()) else {
            break;
        };
        left = rest;
        if let Ok(line) = std::str::from_utf8(line) {
            parse_line(line, &mut found);
        }
    }
    found
}

fn parse_line(line: &str, found: &mut Vec<Challenge>) {
    let mut reader = Reader(line);
    while found.len() < CHALLENGES_MAX {
        reader.skip_commas();
        let Some(scheme) = reader.token() else { return };
        match reader.parameters() {
            Some(parameters) => {
                if let Some(challenge) = understand(scheme, parameters) {
                    found.push(challenge);
                }
            }
            None => return,
        }
    }
}

/// What a challenge means. A Bearer challenge without a realm means nothing; of a parameter given twice neither counts for sure, so the
/// challenge does not count.
fn understand(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Some(Challenge::Other);
    }
    let (mut realm, mut service) = (None, None);
    for (key, value) in parameters {
        let slot = match key.as_str() {
            "realm" => &mut realm,
            "service" => &mut service,
            _ => continue,
        };
        if slot.replace(value).is_some() {
            return None;
        }
    }
    Some(Challenge::Bearer {
        realm: realm.filter(|realm| !realm.is_empty())?,
        service: service.filter(|service| !service.is_empty()),
    })
}

struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn skip_commas(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self
            .0
            .find(|c: char| !is_token_char(c))
            .unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// What follows a scheme: nothing, a token68, or parameters up to the end or the next scheme. `None`: a syntax error.
    fn parameters(&mut self) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        if !self.0.is_empty() && !self.0.starts_with([' ', '\t', ',']) {
            return None;
        }
        self.skip_space();
        if self.token68() {
            return Some(found);
        }
        loop {
            // A token that no `=` follows is the next scheme.
            let before = self.0;
            self.skip_commas();
            let Some(key) = self.token() else {
                return self.0.is_empty().then_some(found);
            };
            self.skip_space();
            let Some(rest) = self.0.strip_prefix('=') else {
                self.0 = before;
                // Directly behind a scheme only a comma can lead to another one.
                let parted = before.trim_start_matches([' ', '\t']).starts_with(',');
                return parted.then_some(found);
            };
            self.0 = rest;
            self.skip_space();
            let value = self.value()?;
            found.push((key.to_ascii_lowercase(), value));
            self.skip_space();
            if !self.0.is_empty() && !self.0.starts_with(',') {
                return None;
            }
        }
    }

    /// Takes a token68 (`dG9rZW4=`), which stands alone behind its scheme.
    fn token68(&mut self) -> bool {
        let body =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/');
        let bare = self.0.trim_start_matches(body);
        let behind = bare.trim_start_matches('=').trim_start_matches([' ', '\t']);
        let taken = bare.len() < self.0.len() && (behind.is_empty() || behind.starts_with(','));
        if taken {
            self.0 = behind;
        }
        taken
    }

    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else {
            return self.token().map(str::to_owned);
        };
        let mut value = String::new();
        let mut letters = quoted.chars();
        loop {
            match letters.next()? {
                '"' => break,
                '\\' => value.push(letters.next().filter(|c| !is_control(*c))?),
                letter if is_control(letter) => return None,
                letter => value.push(letter),
            }
        }
        self.0 = letters.as_str();
        Some(value)
    }
}

fn is_control(letter: char) -> bool {
    letter.is_control() && letter != '\t'
}

const fn is_token_char(letter: char) -> bool {
    letter.is_ascii_alphanumeric()
        || matches!(
            letter,
            '!' | '#'
                | '$'
                | '%'
                | '&'
                | '\''
                | '*'
                | '+'
                | '-'
                | '.'
                | '^'
                | '_'
                | '`'
                | '|'
                | '~'
        )
}

#[cfg(test)]
mod tests;
