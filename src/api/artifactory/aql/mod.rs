//! The part of the Artifactory Query Language that asks for items (PROTOCOL E10).
//!
//! [`syntax`] reads the text, [`question`] says what it means: both are pure, and refuse what they do not know with its place and what is
//! allowed there. [`answer`] asks the index and shows what it found.

mod answer;
mod question;
mod syntax;

#[cfg(test)]
mod tests;

use std::fmt;

/// The longest question, in bytes.
const QUESTION_MAX: usize = 64 * 1024;
/// How deep arrays and objects may nest.
const DEPTH_MAX: usize = 16;
/// The most comparisons in one question.
const COMPARISONS_MAX: usize = 100;
/// The most items in one answer.
const ITEMS_MAX: u64 = 10_000;

/// Why a question is refused, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    line: usize,
    column: usize,
    message: String,
}

impl Refused {
    /// `at`: a byte of `text`.
    fn new(text: &str, at: usize, message: impl Into<String>) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let last = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: last.chars().count() + 1,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(f, "AQL, line {line}, column {column}: {message}")
    }
}
