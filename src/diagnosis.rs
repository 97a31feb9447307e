//! What is wrong with a text that somebody wrote, shown where it is: file, line and remedy. All of it at once.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// One thing that is wrong.
#[derive(Debug)]
pub struct Problem {
    /// What is wrong, in one line.
    pub title: String,
    /// Where in the text, in bytes; `None` where it is not in the file.
    pub at: Option<Range<usize>>,
    /// What to do about it; may be empty.
    pub remedy: String,
}

/// The report of all problems in `text`, which came from `path`.
pub fn report(text: &str, path: &str, problems: &[Problem]) -> String {
    let renderer = Renderer::plain();
    let reports = problems.iter().map(|problem| match &problem.at {
        Some(at) => {
            let end = boundary(text, at.end);
            let span = boundary(text, at.start).min(end)..end;
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
    reports.collect::<Vec<_>>().join("\n")
}

/// The next place at which a character begins, since the renderer panics between two.
fn boundary(text: &str, at: usize) -> usize {
    let mut places = at..text.len();
    places
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len())
}

/// The problem that the TOML reader names.
pub fn of_toml(error: &toml::de::Error) -> Problem {
    let message = error.message();
    let first = message.lines().next().unwrap_or_default().to_owned();
    let mut names = message.split('`').skip(1).step_by(2);
    let likely = names.next().and_then(|unknown| nearest(unknown, names));
    Problem {
        title: first,
        at: error.span().or(Some(0..0)),
        remedy: likely.map_or_else(String::new, |likely| format!("did you mean `{likely}`?")),
    }
}

/// The name that is nearest to an unknown one, if one is near.
pub fn nearest<'a>(unknown: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let names = names.into_iter();
    let nearest = names.map(|name| (distance(unknown, name), name)).min()?;
    (nearest.0 <= 2.max(unknown.len() / 3)).then_some(nearest.1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_inside_a_character_or_behind_the_text_is_no_panic() {
        for at in [3..3, 2..3, 3..9, 9..12] {
            let problem = Problem {
                title: "wrong".to_owned(),
                at: Some(at),
                remedy: "write it right".to_owned(),
            };
            let report = report("{}é", "x", &[problem]);
            assert!(report.contains("x:1:") && report.contains("write it right"));
        }
    }
}
