//! `roadstead sync`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::copy::{misused, push};
use super::images::Images;
use super::owner::{self, Here, Owner};
use super::progress::{Shown, bytes_shown};
use super::target::Target;
use crate::bundle::copy::Destination;
use crate::bundle::sync::{Asking, Order, Outcome, Report};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    images: Images,
    /// Push the images to this registry, under the names that they have here and behind what follows the host, and pin nothing
    #[arg(long, value_name = "REGISTRY[/PREFIX]", conflicts_with = "dry_run")]
    to: Option<String>,
    #[command(flatten)]
    target: Target,
    /// Say what it would take, and fetch nothing but manifests: of images that are not known yet each costs a pull where pulls are counted
    #[arg(long)]
    dry_run: bool,
    /// Print what goes on as JSON, a line for each event; the last one is the result
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments, environment: &[(String, String)]) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let asked = match arguments.images.read(environment) {
        Ok(asked) => asked,
        Err(error) => return misused(&format!("{error:#}")),
    };
    if let Some(to) = &arguments.to {
        return match Destination::below(to) {
            Ok(to) => {
                let target = (&arguments.target, environment);
                push(here, (asked, to), target, arguments.json)
            }
            Err(error) => misused(&error.to_string()),
        };
    }
    if arguments.target.is_named() {
        return misused("a login and the like are for --to REGISTRY");
    }
    let order = Order {
        asked,
        dry_run: arguments.dry_run,
    };
    let done = owner::with(here, async |owner| {
        sync(owner, &order, arguments.json).await
    });
    super::reported(
        super::block_on(done).map(|(report, lines)| (report.count(Outcome::Failed) == 0, lines)),
    )
}

async fn sync(owner: &Owner, order: &Order, json: bool) -> anyhow::Result<(Report, Vec<String>)> {
    let mut shown = Shown::new(json, "sync");
    let worked = owner
        .work("/admin/sync", order, |event| shown.take(event))
        .await;
    shown.finish();
    let result = worked?.result;
    let report: Report = serde_json::from_value(result.clone())?;
    let lines = if json {
        vec![result.to_string()]
    } else {
        lines(&report, order.dry_run)
    };
    Ok((report, lines))
}

/// The result for people. What failed was told when it did.
fn lines(report: &Report, dry_run: bool) -> Vec<String> {
    let images = report.images.iter();
    let images = images.filter(|line| line.outcome != Outcome::Failed);
    let mut lines: Vec<String> = images
        .map(|line| {
            let digest = line.digest.as_deref().unwrap_or_default();
            let (outcome, bytes) = (line.outcome.as_str(), bytes_shown(line.fetched));
            format!("{}\t{digest}\t{outcome}\t{bytes}", line.image)
        })
        .collect();
    lines.extend(report.upstreams.iter().filter_map(asked));
    let [fetched, unchanged, failed] = [Outcome::Fetched, Outcome::Unchanged, Outcome::Failed]
        .map(|outcome| report.count(outcome));
    let total = report.images.len();
    lines.push(if dry_run {
        let bytes = bytes_shown(report.bytes);
        format!(
            "{total} images: {fetched} to fetch, {unchanged} unchanged, {failed} failed; {} blobs, {bytes} would come",
            report.blobs
        )
    } else {
        let bytes = bytes_shown(report.fetched());
        format!(
            "{total} images: {fetched} fetched, {unchanged} unchanged, {failed} failed; {bytes} came"
        )
    });
    lines
}

/// What the look at the manifests has cost, where anything was asked for or is counted.
fn asked(asking: &Asking) -> Option<String> {
    let left: Vec<String> = asking.quotas.iter().filter_map(quota).collect();
    if asking.pulls == 0 && left.is_empty() {
        return None;
    }
    let (key, pulls) = (&asking.repository, asking.pulls);
    let left = if left.is_empty() {
        String::new()
    } else {
        format!("; {}", left.join(", "))
    };
    Some(format!("{key}: {pulls} manifests fetched{left}"))
}

fn quota(line: &Value) -> Option<String> {
    let number = |key: &str| line.get(key).and_then(Value::as_u64);
    let (remaining, limit) = (number("remaining")?, number("limit")?);
    let credential = line.get("credential").and_then(Value::as_str)?;
    Some(format!(
        "{remaining} of {limit} pulls left for {credential}"
    ))
}
