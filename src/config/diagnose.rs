//! A configuration that cannot be used, and the report of why.

pub(super) use crate::diagnosis::Problem;
use crate::diagnosis::{of_toml, report};

/// A configuration that cannot be used. Its text is the whole report.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// Something that has no place in a file.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self(format!("error: {}", text.into()))
    }

    /// The report of all problems in `text`, which came from `path`.
    pub(super) fn report(text: &str, path: &str, problems: &[Problem]) -> Self {
        Self(report(text, path, problems))
    }

    /// The report of what the TOML reader refused.
    pub(super) fn from_toml(text: &str, path: &str, error: &toml::de::Error) -> Self {
        Self::report(text, path, &[of_toml(error)])
    }
}
