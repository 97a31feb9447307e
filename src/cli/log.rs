//! The log on standard error, and the audit lines beside it.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::audit::{self, AuditFile};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

/// From now on there is a log. Audit lines go to `audit` as well, whatever `level` says.
pub(super) fn start(
    level: &str,
    format: Option<LogFormat>,
    audit: AuditFile,
) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(level).map_err(|error| format!("error: --log-level: {error}"))?;
    let terminal = std::io::stderr().is_terminal();
    let is_json = format.map_or(!terminal, |format| format == LogFormat::Json);
    let log = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal && !is_json);
    let log = if is_json {
        let log = log.json();
        log.with_current_span(false).with_span_list(false).boxed()
    } else {
        log.boxed()
    };
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_level(false)
        .with_target(false)
        .with_writer(audit)
        .with_filter(Targets::new().with_target(audit::TARGET, tracing::Level::INFO));
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .with(lines)
        .try_init()
        .map_err(|error| format!("error: cannot start the log: {error}"))
}
