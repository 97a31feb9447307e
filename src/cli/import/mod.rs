//! `roadstead import`

mod bundle;
mod report;
mod sending;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use tokio::runtime::Handle;

use self::bundle::Bundle;
use self::report::{Report, lines};
use self::sending::{Asked, Sending};
use super::owner::{self, Here, Owner};
use super::progress::Shown;
use super::{FAILED, inventory, output};
use crate::bundle::archive::reader::Options;
use crate::bundle::import::Order;
use crate::bundle::progress::{Event, Progress};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Bundles: files, any one of their volumes, directories with an OCI image layout, or archives of docker save, skopeo, podman; - reads a
    /// bundle from standard input
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    /// The repository that gets the images, instead of the remotes that serve their hosts
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// Leave tags that are there already what they are
    #[arg(long)]
    keep_tags: bool,
    /// The bundles must be signed with the private half of this public key
    #[arg(long, value_name = "KEY")]
    verify_key: Option<PathBuf>,
    /// What to call an image that the archive gives no name, such as docker.io/library/app:1
    #[arg(long, value_name = "IMAGE")]
    name: Option<String>,
    /// Read all of it, say whether it is whole, what would come and what would be missing, and take nothing in
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let done = super::block_on(async {
        // All that can be wrong with the files is found before anybody is asked for anything.
        let bundles = bundle::open(arguments).await?;
        owner::with(here, async |owner| import(owner, bundles, arguments).await).await
    });
    match done {
        Ok(report) => {
            let lines = if arguments.json {
                vec![report.to_string()]
            } else {
                lines(&report, arguments.dry_run)
            };
            for line in lines {
                output::line(&line);
            }
            if Report::is_whole(&report) {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FAILED)
            }
        }
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn import(
    owner: &Owner,
    bundles: Vec<Bundle>,
    arguments: &Arguments,
) -> anyhow::Result<Value> {
    let contents = bundles.iter().map(|bundle| {
        let text = bundle.contents.to_json()?;
        Ok(String::from_utf8(text)?)
    });
    let order = Order {
        contents: contents.collect::<anyhow::Result<_>>()?,
        to: arguments.to.clone(),
        keep_tags: arguments.keep_tags,
    };
    let mut shown = Shown::new(arguments.json, "look");
    let asked = owner
        .work("/admin/import", &order, |event| shown.take(event))
        .await;
    shown.finish();
    // While this is open nothing of it is evicted.
    let asked = asked?;
    let Asked { wanted } = if arguments.dry_run {
        // Nothing is sent; all of it is read to its end and verified.
        Asked::default()
    } else {
        serde_json::from_value(asked.result.clone())?
    };
    let what = if arguments.dry_run { "read" } else { "import" };
    let mut shown = Shown::new(arguments.json, what);
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    shown.take(&Event::Plan {
        images: bundles
            .iter()
            .map(|bundle| count(bundle.contents.images().len()))
            .sum(),
        blobs: count(wanted.len()),
        bytes: wanted.iter().map(|one| one.size).sum(),
    });
    let (progress, mut told) = Progress::new();
    let key = arguments.verify_key.as_deref();
    let sending = Sending {
        owner: owner.clone(),
        runtime: Handle::current(),
        wanted: wanted
            .into_iter()
            .map(|one| (one.digest.clone(), one))
            .collect(),
        options: Options {
            verify_key: key.map(inventory::public_key).transpose()?,
            ..Options::default()
        },
        progress,
        alive: owner::Alive::default(),
    };
    let _alive = sending.alive.guard();
    let sent = tokio::task::spawn_blocking(move || sending.all(bundles));
    while let Some(event) = told.recv().await {
        shown.take(&event);
    }
    let sent = sent
        .await
        .map_err(anyhow::Error::from)
        .and_then(|sent| sent);
    if let Err(error) = sent {
        shown.finish();
        return Err(error);
    }
    if arguments.dry_run {
        shown.finish();
        return Ok(asked.result.clone());
    }
    let committed = owner
        .work("/admin/import/commit", &order, |event| shown.take(event))
        .await;
    shown.finish();
    Ok(committed?.result)
}
