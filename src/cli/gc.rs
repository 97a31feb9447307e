//! `roadstead gc`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::{FAILED, output, owner};
use crate::app;
use crate::config::Resolved;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Leave what was pushed less than so many seconds ago, instead of the configured `collect_grace`
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u64>,
}

/// What `POST /admin/gc` answers.
#[derive(Debug, Deserialize)]
struct Collected {
    collected: Vec<Gone>,
}

/// What went, or would go.
#[derive(Debug, Deserialize)]
struct Gone {
    repository: String,
    image: String,
    digest: String,
    size: u64,
    reason: String,
}

pub(super) fn run(mut config: Resolved, arguments: &Arguments) -> ExitCode {
    if let Some(data) = &arguments.data {
        config.storage.path.clone_from(data);
    }
    if let Some(grace) = arguments.grace {
        config.collection.grace = Duration::from_secs(grace);
    }
    match super::block_on(collect(config, arguments)) {
        Ok(gone) => {
            for one in &gone {
                output::line(&format!(
                    "{}/{}@{}\t{}\t{} bytes",
                    one.repository, one.image, one.digest, one.reason, one.size
                ));
            }
            let done = if arguments.dry_run {
                "would go"
            } else {
                "gone"
            };
            let bytes: u64 = gone.iter().map(|one| one.size).sum();
            output::line(&format!("{} {done}, {bytes} bytes", gone.len()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// By the mirror that runs, else here.
async fn collect(config: Resolved, arguments: &Arguments) -> anyhow::Result<Vec<Gone>> {
    let gone = match owner::of(&config.storage.path).await? {
        Some(owner) => {
            let mut target = format!("/admin/gc?dry_run={}", arguments.dry_run);
            if let Some(grace) = arguments.grace {
                target.push_str("&grace=");
                target.push_str(&grace.to_string());
            }
            owner.ask(Method::POST, &target, None).await?
        }
        None => app::collect(config, arguments.dry_run).await?,
    };
    let Collected { collected } = serde_json::from_value(gone)?;
    Ok(collected)
}
