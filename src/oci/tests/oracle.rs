//! A tiny regular-expression matcher that walks the patterns of the specification as they are printed there. It shares no idea
//! with the parsers that it judges: it keeps the set of all positions that a pattern can end at.

use std::collections::BTreeSet;

/// A pattern.
#[derive(Clone)]
pub(super) enum Re {
    Class(fn(u8) -> bool),
    Text(&'static str),
    Seq(Vec<Re>),
    Any(Vec<Re>),
    /// At least so many times, at most so many.
    Times(Box<Re>, usize, usize),
}

pub(super) fn many(re: Re) -> Re {
    Re::Times(Box::new(re), 0, usize::MAX)
}

pub(super) fn some(re: Re) -> Re {
    Re::Times(Box::new(re), 1, usize::MAX)
}

impl Re {
    /// Whether the pattern matches the whole text.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.ends(text.as_bytes(), &BTreeSet::from([0]))
            .contains(&text.len())
    }

    fn ends(&self, text: &[u8], starts: &BTreeSet<usize>) -> BTreeSet<usize> {
        match self {
            Self::Class(fits) => starts
                .iter()
                .filter(|at| text.get(**at).is_some_and(|byte| fits(*byte)))
                .map(|at| at + 1)
                .collect(),
            Self::Text(literal) => starts
                .iter()
                .filter(|at| text[**at..].starts_with(literal.as_bytes()))
                .map(|at| at + literal.len())
                .collect(),
            Self::Seq(parts) => parts
                .iter()
                .fold(starts.clone(), |at, part| part.ends(text, &at)),
            Self::Any(parts) => parts
                .iter()
                .flat_map(|part| part.ends(text, starts))
                .collect(),
            Self::Times(part, least, most) => {
                let mut reached = BTreeSet::new();
                let mut at = starts.clone();
                for round in 0..=*most {
                    if round >= *least {
                        let before = reached.len();
                        reached.extend(&at);
                        if reached.len() == before {
                            break;
                        }
                    }
                    if at.is_empty() {
                        break;
                    }
                    at = part.ends(text, &at);
                }
                reached
            }
        }
    }
}

#[test]
fn the_oracle_itself() {
    let re = Re::Seq(vec![
        some(Re::Text("a")),
        Re::Any(vec![Re::Text("_"), Re::Text("__")]),
        Re::Times(Box::new(Re::Class(|byte| byte.is_ascii_digit())), 1, 2),
    ]);
    for text in ["a_1", "aa__22"] {
        assert!(re.matches(text), "{text}");
    }
    for text in ["", "a", "_1", "a___1", "a_123", "a_1b"] {
        assert!(!re.matches(text), "{text}");
    }
}
