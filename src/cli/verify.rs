//! `roadstead verify`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use http::Method;
use serde::Deserialize;

use super::{FAILED, output, owner};
use crate::app;
use crate::config::Resolved;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Make the index anew, from the journal and the blobs, before anything is looked at; with no mirror running
    #[arg(long)]
    index: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Deserialize)]
struct Verified {
    good: u64,
    damaged: Vec<String>,
}

pub(super) fn run(mut config: Resolved, arguments: &Arguments) -> ExitCode {
    if let Some(data) = &arguments.data {
        config.storage.path.clone_from(data);
    }
    match super::block_on(verify(config, arguments.index)) {
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

/// By the mirror that runs, else here.
async fn verify(config: Resolved, anew: bool) -> anyhow::Result<Verified> {
    let verified = match owner::of(&config.storage.path).await? {
        Some(_) if anew => {
            bail!("a mirror runs on this store and uses its index; stop it for --index")
        }
        Some(owner) => owner.ask(Method::POST, "/admin/verify", None).await?,
        None => app::verify(config, anew).await?,
    };
    Ok(serde_json::from_value(verified)?)
}
