//! One comparison as SQL, with its values apart. Pure.

use rusqlite::types::Value as Sql;

use super::Operator;

/// A piece of SQL and the values of its `?`, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fragment {
    pub(super) text: String,
    pub(super) values: Vec<Sql>,
}

/// A condition of a row; what does not depend on the row is known before SQL is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Clause {
    /// Every row meets it.
    Always,
    /// No row meets it.
    Never,
    /// This decides.
    Sql(Fragment),
}

impl Clause {
    pub(super) fn new(text: impl Into<String>, values: impl IntoIterator<Item = Sql>) -> Self {
        Self::Sql(Fragment {
            text: text.into(),
            values: values.into_iter().collect(),
        })
    }

    /// Of something that is known without looking.
    pub(super) const fn known(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }

    pub(super) fn all(clauses: impl IntoIterator<Item = Self>) -> Self {
        Self::join(clauses, " AND ", &Self::Always, &Self::Never)
    }

    pub(super) fn any(clauses: impl IntoIterator<Item = Self>) -> Self {
        Self::join(clauses, " OR ", &Self::Never, &Self::Always)
    }

    /// `neutral` changes nothing, `final_word` decides alone.
    fn join(
        clauses: impl IntoIterator<Item = Self>,
        between: &str,
        neutral: &Self,
        final_word: &Self,
    ) -> Self {
        let (mut texts, mut values) = (Vec::new(), Vec::new());
        for clause in clauses {
            match clause {
                Self::Sql(fragment) => {
                    texts.push(fragment.text);
                    values.extend(fragment.values);
                }
                known if known == *final_word => return known,
                Self::Always | Self::Never => {}
            }
        }
        match texts.len() {
            0 => neutral.clone(),
            1 => Self::new(texts.concat(), values),
            _ => Self::new(format!("({})", texts.join(between)), values),
        }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Sql(Fragment { text, values }) => Self::new(format!("NOT ({text})"), values),
        }
    }

    /// The other way round where that is asked for.
    pub(super) fn negated_if(self, negated: bool) -> Self {
        if negated { self.negated() } else { self }
    }

    /// The condition, put into more SQL.
    pub(super) fn within(self, before: &str, after: &str) -> Self {
        match self {
            Self::Sql(Fragment { text, values }) => {
                Self::new(format!("{before}{text}{after}"), values)
            }
            Self::Always => Self::new(format!("{before}1{after}"), []),
            Self::Never => Self::Never,
        }
    }
}

impl Operator {
    /// What it negates, and whether it does.
    pub(super) const fn positive(self) -> (Self, bool) {
        match self {
            Self::NotEqual => (Self::Equal, true),
            Self::NoMatch => (Self::Match, true),
            Self::Equal
            | Self::Match
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::Less
            | Self::LessOrEqual => (self, false),
        }
    }

    const fn symbol(self) -> &'static str {
        match self {
            Self::Equal | Self::Match => "=",
            Self::NotEqual | Self::NoMatch => "<>",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
        }
    }

    /// Whether it holds for a text that is known.
    pub(super) fn holds(self, actual: &str, value: &str) -> bool {
        match self {
            Self::Equal => actual == value,
            Self::NotEqual => actual != value,
            Self::Match => matches(value, actual),
            Self::NoMatch => !matches(value, actual),
            Self::Greater => actual > value,
            Self::GreaterOrEqual => actual >= value,
            Self::Less => actual < value,
            Self::LessOrEqual => actual <= value,
        }
    }
}

/// A column that holds a text, compared.
pub(super) fn text(column: &str, operator: Operator, value: &str) -> Clause {
    let (operator, negated) = operator.positive();
    let clause = if operator == Operator::Match && is_pattern(value) {
        pattern(column, value)
    } else {
        compare(column, operator, Sql::Text(value.to_owned()))
    };
    clause.negated_if(negated)
}

/// A column that holds a number, compared.
pub(super) fn number(column: &str, operator: Operator, value: i64) -> Clause {
    compare(column, operator, Sql::Integer(value))
}

fn compare(column: &str, operator: Operator, value: Sql) -> Clause {
    Clause::new(format!("{column} {} ?", operator.symbol()), [value])
}

fn pattern(column: &str, pattern: &str) -> Clause {
    if pattern.bytes().all(|byte| byte == b'*') {
        return Clause::Always;
    }
    let prefix = literal_prefix(pattern);
    let range = starts_with(column, prefix);
    if pattern.strip_prefix(prefix) == Some("*") {
        return range;
    }
    // Brackets mean something to GLOB and nothing here.
    let glob = Sql::Text(pattern.replace('[', "[[]"));
    Clause::all([range, Clause::new(format!("{column} GLOB ?"), [glob])])
}

/// A column begins with this, said so that an index can find it.
pub(super) fn starts_with(column: &str, prefix: &str) -> Clause {
    if prefix.is_empty() {
        return Clause::Always;
    }
    let from = Clause::new(format!("{column} >= ?"), [Sql::Text(prefix.to_owned())]);
    let to = after_prefix(prefix).map_or(Clause::Always, |end| {
        Clause::new(format!("{column} < ?"), [Sql::Text(end)])
    });
    Clause::all([from, to])
}

pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// What stands before the first wildcard.
pub(super) fn literal_prefix(pattern: &str) -> &str {
    pattern.split(['*', '?']).next().unwrap_or_default()
}

/// The least text behind all that begin with `prefix`, in the order of their bytes.
pub(super) fn after_prefix(prefix: &str) -> Option<String> {
    let mut letters: Vec<char> = prefix.chars().collect();
    while let Some(last) = letters.pop() {
        // Behind the last letter before the surrogates comes the first one after them.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            letters.push(next);
            return Some(letters.into_iter().collect());
        }
    }
    None
}

/// Whether a pattern of `*` and `?` fits all of a text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut here) = (0, 0);
    // Where to go on from when what follows the last `*` does not fit.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(letter) = text.get(here) {
        match pattern.get(at) {
            Some('*') => {
                retry = Some((at + 1, here));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == letter => {
                at += 1;
                here += 1;
            }
            Some(_) | None => {
                let Some((after, from)) = retry else {
                    return false;
                };
                retry = Some((after, from + 1));
                (at, here) = (after, from + 1);
            }
        }
    }
    pattern.iter().skip(at).all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    fn sql(clause: &Clause) -> String {
        match clause {
            Clause::Sql(fragment) => format!("{} {:?}", fragment.text, fragment.values),
            Clause::Always | Clause::Never => format!("{clause:?}"),
        }
    }

    #[test]
    fn comparisons_as_sql() {
        use Operator::*;
        let table = [
            (Equal, "a", r#"c = ? [Text("a")]"#),
            (NotEqual, "a", r#"NOT (c = ?) [Text("a")]"#),
            (Match, "a", r#"c = ? [Text("a")]"#),
            (Match, "**", "Always"),
            (NoMatch, "*", "Never"),
            (Match, "a*", r#"(c >= ? AND c < ?) [Text("a"), Text("b")]"#),
            (
                Match,
                "a[*b",
                r#"((c >= ? AND c < ?) AND c GLOB ?) [Text("a["), Text("a\\"), Text("a[[]*b")]"#,
            ),
            (Match, "?a", r#"c GLOB ? [Text("?a")]"#),
            (LessOrEqual, "a*", r#"c <= ? [Text("a*")]"#),
        ];
        for (operator, value, expected) in table {
            assert_eq!(sql(&text("c", operator, value)), expected, "{value}");
        }
        assert_eq!(after_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }

    #[test]
    fn what_is_known_needs_no_sql() {
        let one = || Clause::new("a = ?", [Sql::Integer(1)]);
        assert_eq!(Clause::all([]), Clause::Always);
        assert_eq!(Clause::any([]), Clause::Never);
        assert_eq!(Clause::all([one(), Clause::Never]), Clause::Never);
        assert_eq!(Clause::any([one(), Clause::Always]), Clause::Always);
        assert_eq!(Clause::all([Clause::Always, one()]), one());
        assert_eq!(Clause::Never.negated(), Clause::Always);
    }

    proptest! {
        #[test]
        fn the_database_and_we_read_patterns_alike(pattern in "[ab*?\\[\\]^]{0,8}", subject in "[ab\\[\\]^]{0,8}") {
            let connection = Connection::open_in_memory().unwrap();
            let ours = Operator::Match.holds(&subject, &pattern);
            let theirs = match text("?1", Operator::Match, &pattern) {
                Clause::Always => true,
                Clause::Never => false,
                Clause::Sql(fragment) => {
                    // The subject stands for the column.
                    let mut number = 1;
                    let text: String = fragment.text.replace("?1", "\u{1}").chars().map(|letter| match letter {
                        '?' => { number += 1; format!("?{number}") }
                        '\u{1}' => "?1".to_owned(),
                        other => other.to_string(),
                    }).collect();
                    let values = std::iter::once(Sql::Text(subject.clone())).chain(fragment.values);
                    connection
                        .query_row(&format!("SELECT {text}"), rusqlite::params_from_iter(values), |row| row.get(0))
                        .unwrap()
                }
            };
            prop_assert_eq!(ours, theirs);
        }
    }
}
