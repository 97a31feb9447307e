//! `roadstead serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::restore_left;
use super::{FAILED, output, owner};
use crate::app;
use crate::audit::AuditFile;
use crate::config::Resolved;
use crate::upstream::ProxyConfig;

/// After how many tasks a worker looks for new I/O: small requests get their turn beside large transfers (PERFORMANCE 2.5).
const EVENT_INTERVAL: u32 = 11;

#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    /// Address to listen on, instead of the configured ones; may be given several times
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(
    config: Resolved,
    arguments: Arguments,
    file: Option<PathBuf>,
    (proxy, audit): (ProxyConfig, AuditFile),
) -> ExitCode {
    let config = apply(config, &arguments);
    // Whoever has the directory looks after its own.
    if matches!(owner::at_once(&config.storage.path), Ok(None)) {
        restore_left(&config.storage.path);
    }
    let read_again: app::ReadAgain = Box::new(move || {
        let config = super::load(file.as_deref()).map_err(|error| error.to_string())?;
        Ok(apply(config, &arguments))
    });
    serve(config, proxy, audit, read_again)
}

/// What the command line says counts before what the file says.
fn apply(mut config: Resolved, arguments: &Arguments) -> Resolved {
    if !arguments.listen.is_empty() {
        config.listen.clone_from(&arguments.listen);
    }
    if let Some(data) = &arguments.data {
        config.storage.path.clone_from(data);
    }
    config
}

fn serve(
    config: Resolved,
    proxy: ProxyConfig,
    audit: AuditFile,
    read_again: app::ReadAgain,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let served = runtime.block_on(app::run(
            config,
            proxy,
            (audit, super::sockets()),
            app::Until::Signals(read_again),
        ));
        // Blocking reads of clients that have gone do not hold the process.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        served
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
