//! What is wrong with a list, shown where it is.

use crate::diagnosis::{Problem, report};

/// A list that cannot be used. Its text is the whole report: file, line, what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListError(String);

impl ListError {
    /// The report of problems in `text`, which came from `file`.
    pub(in crate::bundle) fn report(text: &str, file: &str, problems: &[Problem]) -> Self {
        Self(report(text, file, problems))
    }

    /// Something that has no place in a text.
    pub(in crate::bundle) fn plain(text: impl Into<String>) -> Self {
        Self(format!("error: {}", text.into()))
    }
}
