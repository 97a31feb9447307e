//! `roadstead verify`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, output};
use crate::app;
use crate::config::Resolved;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Make the index anew, from the journal and the blobs, before anything is looked at
    #[arg(long)]
    index: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(mut config: Resolved, arguments: &Arguments) -> ExitCode {
    if let Some(data) = &arguments.data {
        config.storage.path.clone_from(data);
    }
    let verified = super::block_on(app::verify(config, arguments.index));
    match verified {
        Ok(verified) => {
            for digest in &verified.damaged {
                output::line(&format!("{digest}\tdamaged, moved to quarantine/"));
            }
            output::line(&format!(
                "{} blobs are what their digests say, {} are not",
                verified.good,
                verified.damaged.len()
            ));
            if verified.damaged.is_empty() {
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
