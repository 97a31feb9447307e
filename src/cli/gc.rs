//! `roadstead gc`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{FAILED, output};
use crate::app::{self, Gone};
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

pub(super) fn run(mut config: Resolved, arguments: &Arguments) -> ExitCode {
    if let Some(data) = &arguments.data {
        config.storage.path.clone_from(data);
    }
    if let Some(grace) = arguments.grace {
        config.collection.grace = Duration::from_secs(grace);
    }
    let collected = super::block_on(app::collect(config, arguments.dry_run));
    match collected {
        Ok(collected) => {
            let mut bytes = 0;
            for Gone { repository, what } in &collected {
                bytes += what.size;
                output::line(&format!(
                    "{repository}/{}@{}\t{}\t{} bytes",
                    what.name,
                    what.digest,
                    what.reason.as_str(),
                    what.size
                ));
            }
            let done = if arguments.dry_run {
                "would go"
            } else {
                "gone"
            };
            output::line(&format!("{} {done}, {bytes} bytes", collected.len()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
