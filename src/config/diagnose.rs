//! What is wrong with a configuration, shown where it is: file, line, key and remedy. All of it at once.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// A configuration that cannot be used. Its text is the whole report.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) title: String,
    /// Where in the text; `None` where it is not in the file.
    pub(super) at: Option<Range<usize>>,
    pub(super) remedy: String,
}

impl ConfigError {
    /// Something that has no place in a file.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self(format!("error: {}", text.into()))
    }

    /// The report of all problems in `text`, which came from `path`.
    pub(super) fn report(text: &str, path: &str, problems: &[Problem]) -> Self {
        let renderer = Renderer::plain();
        let reports = problems.iter().map(|problem| match &problem.at {
            Some(at) => {
                let end = at.end.min(text.len());
                let span = at.start.min(end)..end;
                let snippet = Snippet::source(text).path(path).annotation(
                    AnnotationKind::Primary
                        .span(span)
                        .label(problem.remedy.as_str()),
                );
                renderer.render(&[Level::ERROR
                    .primary_title(problem.title.as_str())
                    .element(snippet)])
            }
            None => format!("error: {}: {}", problem.title, problem.remedy),
        });
        Self(reports.collect::<Vec<_>>().join("\n"))
    }

    /// The report of what the TOML reader refused.
    pub(super) fn from_toml(text: &str, path: &str, error: &toml::de::Error) -> Self {
        let message = error.message();
        let first = message.lines().next().unwrap_or_default().to_owned();
        let remedy = suggestion(message)
            .map_or_else(String::new, |likely| format!("did you mean `{likely}`?"));
        Self::report(
            text,
            path,
            &[Problem {
                title: first,
                at: error.span().or(Some(0..0)),
                remedy,
            }],
        )
    }
}

/// The expected name that is nearest to an unknown one, out of the reader's own words.
fn suggestion(message: &str) -> Option<String> {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let nearest = names.map(|name| (distance(unknown, name), name)).min()?;
    (nearest.0 <= 2.max(unknown.len() / 3)).then(|| nearest.1.to_owned())
}

/// The edit distance (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(x != *y))
                .min(left + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = cost;
            left = cost;
        }
    }
    row.last().copied().unwrap_or(0)
}
