//! `roadstead quota`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::owner;
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

/// What `GET /admin/quota` answers.
#[derive(Debug, Deserialize)]
struct Quotas {
    quotas: Vec<Line>,
}

/// One credential of one remote, as `GET /admin/quota` tells it.
#[derive(Debug, Deserialize)]
struct Line {
    repository: String,
    credential: String,
    limit: Option<u64>,
    remaining: Option<u64>,
    window_seconds: Option<u64>,
    seen: Option<String>,
    current: bool,
    keep_quota: Option<u64>,
}

pub(super) fn run(config: &Resolved, arguments: &Arguments) -> ExitCode {
    let data = arguments.data.as_ref().unwrap_or(&config.storage.path);
    let told = super::block_on(quotas(config, data)).and_then(|told| {
        if arguments.json {
            return Ok(vec![told.to_string()]);
        }
        let Quotas { quotas } = serde_json::from_value(told)?;
        Ok(quotas.iter().map(line).collect())
    });
    super::told(told)
}

/// What the mirror knows that runs, else what the last one wrote down.
async fn quotas(config: &Resolved, data: &Path) -> anyhow::Result<Value> {
    if let Some(owner) = owner::at_once(data)? {
        return owner.ask(Method::GET, "/admin/quota", None).await;
    }
    let remotes: Vec<&RemoteSettings> = config.remotes().collect();
    let lines = quotas_written(data, &remotes, clock::now());
    let lines = lines.context("cannot read the index")?;
    let quotas: Vec<_> = lines.iter().map(QuotaLine::to_json).collect();
    Ok(json!({ "quotas": quotas }))
}

fn line(one: &Line) -> String {
    let kept = match one.keep_quota {
        Some(0) => "none kept".to_owned(),
        Some(keep) => format!("{keep} kept"),
        None => "not in the configuration file".to_owned(),
    };
    let (Some(limit), Some(remaining), Some(seen)) = (one.limit, one.remaining, &one.seen) else {
        return format!("{}\t-\tnothing told yet\t{kept}", one.repository);
    };
    let window = one
        .window_seconds
        .map_or_else(String::new, |seconds| format!(" in {seconds} s"));
    let age = if one.current {
        ""
    } else {
        ", and does not count any more"
    };
    format!(
        "{}\t{}\t{remaining} of {limit} left{window}\t{kept}\ttold at {seen}{age}",
        one.repository, one.credential
    )
}
