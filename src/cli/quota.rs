//! `roadstead quota`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{FAILED, output};
use crate::clock;
use crate::config::Resolved;
use crate::repository::{QuotaLine, RemoteSettings, quotas_written};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print JSON, as `GET /admin/quota` answers it
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(config: &Resolved, arguments: &Arguments) -> ExitCode {
    let data = arguments.data.as_ref().unwrap_or(&config.storage.path);
    let remotes: Vec<&RemoteSettings> = config.remotes().collect();
    match quotas_written(data, &remotes, clock::now()) {
        Ok(lines) if arguments.json => {
            let quotas: Vec<_> = lines.iter().map(QuotaLine::to_json).collect();
            output::line(&json!({ "quotas": quotas }).to_string());
            ExitCode::SUCCESS
        }
        Ok(lines) => {
            for one in &lines {
                output::line(&line(one));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let error = anyhow::Error::from(error).context("cannot read the index");
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn line(one: &QuotaLine) -> String {
    let kept = match one.keep {
        Some(0) => "none kept".to_owned(),
        Some(keep) => format!("{keep} kept"),
        None => "not in the configuration file".to_owned(),
    };
    let (Some(quota), Some(seen)) = (&one.account.quota, one.account.seen) else {
        return format!("{}\t-\tnothing told yet\t{kept}", one.repository);
    };
    let window = quota
        .window
        .map_or_else(String::new, |window| format!(" in {} s", window.as_secs()));
    let age = if one.account.is_current {
        ""
    } else {
        ", and does not count any more"
    };
    format!(
        "{}\t{}\t{} of {} left{window}\t{kept}\ttold at {seen}{age}",
        one.repository, one.account.credential, quota.remaining, quota.limit
    )
}
