//! What an import came to, for people.

use serde::Deserialize;
use serde_json::Value;

use super::sending::Wanted;
use crate::cli::progress::bytes_shown;

/// What was done, as `POST /admin/import/commit` answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    images: Vec<Line>,
    #[serde(default)]
    wanted: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    image: String,
    digest: String,
    repository: String,
    /// Whether an earlier bundle named it, of which something was missing.
    #[serde(default)]
    earlier: bool,
    bytes: u64,
    outcome: Option<String>,
    error: Option<String>,
    waits_for: Vec<Piece>,
}

#[derive(Debug, Deserialize)]
struct Piece {
    digest: String,
    size: u64,
}

impl Report {
    /// Whether every image of these bundles is there.
    pub(super) fn is_whole(report: &Value) -> bool {
        Self::deserialize(report).is_ok_and(|report| {
            report
                .images
                .iter()
                .filter(|one| !one.earlier)
                .all(|one| one.error.is_none() && one.waits_for.is_empty())
        })
    }
}

pub(super) fn lines(report: &Value, dry_run: bool) -> Vec<String> {
    let Ok(Report { images, wanted }) = Report::deserialize(report) else {
        return vec![report.to_string()];
    };
    let mut lines = Vec::new();
    let still = |one: &Line| one.earlier && !one.waits_for.is_empty();
    let strangers = images.iter().filter(|one| still(one)).count();
    let images: Vec<Line> = images.into_iter().filter(|one| !still(one)).collect();
    for one in &images {
        let waits = !one.waits_for.is_empty();
        let outcome = match (&one.outcome, &one.error) {
            (_, Some(error)) => format!("failed: {error}"),
            (Some(outcome), None) if !waits => outcome.clone(),
            _ if waits => {
                let bytes = one.waits_for.iter().map(|piece| piece.size).sum();
                format!(
                    "waits for {} blobs, {}",
                    one.waits_for.len(),
                    bytes_shown(bytes)
                )
            }
            _ => "complete".to_owned(),
        };
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{outcome}",
            one.image,
            one.digest,
            one.repository,
            bytes_shown(one.bytes)
        ));
        if one.earlier
            && let Some(line) = lines.last_mut()
        {
            line.push_str(" (it had waited since an earlier bundle)");
        }
    }
    let mut missing: Vec<(&str, u64)> = images
        .iter()
        .flat_map(|one| &one.waits_for)
        .map(|piece| (piece.digest.as_str(), piece.size))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        lines.push(format!(
            "missing: {} blobs, {}; a bundle that carries them completes these images, in whatever order bundles come",
            missing.len(),
            bytes_shown(missing.iter().map(|(_, size)| size).sum())
        ));
        lines.extend(
            missing
                .iter()
                .map(|(digest, size)| format!("  {digest}\t{size} bytes")),
        );
    }
    if strangers > 0 {
        lines.push(format!(
            "{strangers} images of earlier bundles still wait for others; --json says for what"
        ));
    }
    if dry_run {
        let bytes = wanted.iter().map(|one| one.size).sum();
        lines.push(format!(
            "{} blobs, {} would come",
            wanted.len(),
            bytes_shown(bytes)
        ));
    }
    lines
}
