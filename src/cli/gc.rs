//! `roadstead gc`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::owner::{self, Here};
use super::{FAILED, output};

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

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    match super::block_on(collect(here, arguments)) {
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

async fn collect(here: Here, arguments: &Arguments) -> anyhow::Result<Vec<Gone>> {
    let mut target = format!("/admin/gc?dry_run={}", arguments.dry_run);
    if let Some(grace) = arguments.grace {
        target.push_str("&grace=");
        target.push_str(&grace.to_string());
    }
    let gone = owner::ask(here, Method::POST, &target, None).await?;
    let Collected { collected } = serde_json::from_value(gone)?;
    Ok(collected)
}
