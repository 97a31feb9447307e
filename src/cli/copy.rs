//! `roadstead copy`, and `sync --to`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::owner::{self, Here, Owner};
use super::progress::{Shown, bytes_shown};
use super::target::Target;
use super::{MISUSED, output};
use crate::bundle::asked::Asked;
use crate::bundle::copy::{Destination, Order, Outcome, Report};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image, as a pull through this mirror names it
    #[arg(value_name = "SRC")]
    from: String,
    /// What it is to be called at the other registry, such as registry.example.com/team/app:1 [default tag: the same]
    #[arg(value_name = "DST")]
    to: String,
    /// Only this platform: the image itself is pushed, without the index
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// With signatures, SBOMs and attestations
    #[arg(long)]
    with_referrers: bool,
    #[command(flatten)]
    target: Target,
    /// Print what goes on as JSON, a line for each event; the last one is the result
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments, environment: &[(String, String)]) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let asked = Asked {
        images: vec![arguments.from.clone()],
        platforms: arguments.platform.iter().cloned().collect(),
        with_referrers: arguments.with_referrers,
        ..Asked::default()
    };
    let to = match (asked.wanted(), Destination::image(&arguments.to)) {
        (Ok(_), Ok(to)) => to,
        (Err(error), _) => return misused(&error.to_string()),
        (_, Err(error)) => return misused(&error.to_string()),
    };
    let target = (&arguments.target, environment);
    push(here, (asked, to), target, arguments.json)
}

pub(super) fn misused(error: &str) -> ExitCode {
    output::error(&format!("error: {error}"));
    ExitCode::from(MISUSED)
}

/// Pushes what is asked for, and says how it went.
pub(super) fn push(
    here: Here,
    (asked, to): (Asked, Destination),
    (target, environment): (&Target, &[(String, String)]),
    json: bool,
) -> ExitCode {
    let done = super::block_on(async {
        let to = target.complete(to, environment).await?;
        let order = Order { asked, to };
        owner::with(here, async |owner| copy(owner, &order, json).await).await
    });
    super::reported(done.map(|(report, lines)| (report.count(Outcome::Failed) == 0, lines)))
}

async fn copy(owner: &Owner, order: &Order, json: bool) -> anyhow::Result<(Report, Vec<String>)> {
    let mut shown = Shown::new(json, "copy");
    let worked = owner
        .work("/admin/copy", order, |event| shown.take(event))
        .await;
    shown.finish();
    let result = worked?.result;
    let report: Report = serde_json::from_value(result.clone())?;
    let lines = if json {
        vec![result.to_string()]
    } else {
        lines(&report)
    };
    Ok((report, lines))
}

/// The result for people. What failed was told when it did.
fn lines(report: &Report) -> Vec<String> {
    let images = report.images.iter();
    let images = images.filter(|line| line.outcome != Outcome::Failed);
    let mut lines: Vec<String> = images
        .map(|line| {
            let to = line.to.as_deref().unwrap_or_default();
            let digest = line.digest.as_deref().unwrap_or_default();
            let (outcome, sent) = (line.outcome.as_str(), &line.sent);
            let bytes = bytes_shown(sent.bytes);
            format!(
                "{to}\t{digest}\t{outcome}\t{bytes} pushed, {} mounted, {} there",
                sent.mounted, sent.present
            )
        })
        .collect();
    let [copied, unchanged, failed] =
        [Outcome::Copied, Outcome::Unchanged, Outcome::Failed].map(|outcome| report.count(outcome));
    let total = report.images.len();
    lines.push(format!(
        "{total} images: {copied} copied, {unchanged} unchanged, {failed} failed"
    ));
    lines
}
