//! The command line. The only place that reads the environment and ends the process.

mod check;
mod copy;
mod explain;
mod export;
mod files;
mod gc;
mod images;
mod import;
mod inventory;
mod lock;
mod log;
mod missing;
mod output;
mod owner;
mod pin;
mod progress;
mod quota;
mod run;
mod serve;
mod sync;
mod target;
mod token;
mod user;
mod verify;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::log::LogFormat;
use self::owner::Here;

use crate::app;
use crate::audit::AuditFile;
use crate::config::{self, ConfigError, Resolved};
use crate::upstream::ProxyConfig;

/// Exit code of a command that failed.
const FAILED: u8 = 1;
/// Exit code of wrong usage or configuration.
const MISUSED: u8 = 2;
/// How long a command waits at its end for its threads: they may have files to take away, but one that waits for standard input would wait
/// for ever.
const LINGER: Duration = Duration::from_secs(2);

/// Pull-through caching mirror for container registries.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, about)]
struct Cli {
    /// Configuration file [default: $`ROADSTEAD_CONFIG`, ./mirror.toml, /etc/roadstead/mirror.toml, else the built-in configuration]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log is written to standard error [default: text on a terminal, json otherwise]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter such as "`info,roadstead::upstream=debug`" [default: info for serve, else warn]
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the mirror
    Serve(serve::Arguments),
    /// Run a command beside a mirror of its own, as CI jobs do; its exit code is the command's
    Run(run::Arguments),
    /// Validate the configuration and print how names route
    Check,
    /// Remove what nothing refers to from the local repositories, whether or not a mirror runs
    Gc(gc::Arguments),
    /// Bring images into the store, whole, and keep them there
    Sync(sync::Arguments),
    /// Push an image to another registry
    Copy(copy::Arguments),
    /// Write down which digests images have now, so that the same content is fetched later
    Lock(lock::Arguments),
    /// Write images into a bundle: an OCI image layout that can be carried across an air gap
    Export(export::Arguments),
    /// Verify bundles and take their images in
    Import(import::Arguments),
    /// Write what this store has, so that the other side leaves it out of the next bundle
    Inventory(inventory::Arguments),
    /// Explain where an image leads, who may pull it, and what a pull would do now
    Explain(explain::Arguments),
    /// List the images that clients asked for and did not get, because no upstream could be asked
    Missing(missing::Arguments),
    /// Show what is left of the upstreams' pull quotas, as they last told
    Quota(quota::Arguments),
    /// Fetch images whole and keep them, whatever else is evicted
    Pin(pin::PinArguments),
    /// Let pinned images be evicted again
    Unpin(pin::UnpinArguments),
    /// List what is pinned
    Pins(pin::ListArguments),
    /// Hash every blob, whether or not a mirror runs; what is damaged is moved aside
    Verify(verify::Arguments),
    /// Add, remove and list users; passwords are read from standard input
    User(user::Arguments),
    /// Make, list and revoke API tokens, which programs log in with
    Token(token::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Runs the command line; the whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let audit = AuditFile::default();
    let usual = if matches!(cli.command, Command::Serve(_)) {
        "info"
    } else {
        "warn"
    };
    let level = cli.log_level.as_deref().unwrap_or(usual);
    if let Err(problem) = log::start(level, cli.log_format, audit.clone()) {
        output::error(&problem);
        return ExitCode::from(MISUSED);
    }
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "roadstead", &mut script);
            output::bytes(&script);
            ExitCode::SUCCESS
        }
        Command::Check => with_config(&cli, |resolved, _proxy| {
            check::run(&resolved);
            ExitCode::SUCCESS
        }),
        Command::Serve(arguments) => with_config(&cli, |resolved, proxy| {
            serve::run(
                resolved,
                arguments.clone(),
                cli.config.clone(),
                (proxy, audit),
            )
        }),
        Command::Run(arguments) => with_config(&cli, |resolved, proxy| {
            run::run(resolved, arguments, (proxy, audit), &environment())
        }),
        // The users file need not be there yet.
        Command::User(arguments) => loaded(&cli, audit, |here| user::run(&here, arguments)),
        Command::Gc(arguments) => loaded(&cli, audit, |here| gc::run(here, arguments)),
        Command::Explain(arguments) => loaded(&cli, audit, |here| explain::run(here, arguments)),
        Command::Export(arguments) => loaded(&cli, audit, |here| {
            export::run(here, arguments, &environment())
        }),
        Command::Import(arguments) => loaded(&cli, audit, |here| import::run(here, arguments)),
        Command::Sync(arguments) => loaded(&cli, audit, |here| {
            sync::run(here, arguments, &environment())
        }),
        Command::Copy(arguments) => loaded(&cli, audit, |here| {
            copy::run(here, arguments, &environment())
        }),
        Command::Lock(arguments) => loaded(&cli, audit, |here| {
            lock::run(here, arguments, &environment())
        }),
        Command::Inventory(arguments) => {
            loaded(&cli, audit, |here| inventory::run(here, arguments))
        }
        Command::Quota(arguments) => {
            loaded(&cli, audit, |here| quota::run(&here.config, arguments))
        }
        Command::Missing(arguments) => loaded(&cli, audit, |here| missing::run(here, arguments)),
        Command::Pin(arguments) => loaded(&cli, audit, |here| pin::pin(here, arguments)),
        Command::Unpin(arguments) => loaded(&cli, audit, |here| pin::unpin(here, arguments)),
        Command::Pins(arguments) => loaded(&cli, audit, |here| pin::list(here, arguments)),
        Command::Token(arguments) => loaded(&cli, audit, |here| token::run(here, arguments)),
        Command::Verify(arguments) => {
            with_config(&cli, |resolved, _proxy| verify::run(resolved, arguments))
        }
    }
}

/// Without a look at what the configuration names: a mirror that runs on what was good before must take commands all the same.
fn loaded(cli: &Cli, audit: AuditFile, run: impl FnOnce(Here) -> ExitCode) -> ExitCode {
    match load(cli.config.as_deref()) {
        Ok(config) => run(Here {
            config,
            proxy: proxy(&environment()),
            audit,
        }),
        Err(error) => {
            output::error(&error.to_string());
            ExitCode::from(MISUSED)
        }
    }
}

fn with_config(cli: &Cli, run: impl FnOnce(Resolved, ProxyConfig) -> ExitCode) -> ExitCode {
    let proxy = proxy(&environment());
    let checked = load(cli.config.as_deref()).and_then(|resolved| {
        let warnings =
            app::check(&resolved, &proxy).map_err(|error| format!("error: {error:#}"))?;
        Ok((resolved, warnings))
    });
    match checked {
        Ok((resolved, warnings)) => {
            for warning in resolved.warnings.iter().chain(&warnings) {
                output::warning(warning);
            }
            run(resolved, proxy)
        }
        Err(error) => {
            output::error(&error.to_string());
            ExitCode::from(MISUSED)
        }
    }
}

/// Prints what a command has done, all of it or not.
fn reported(done: anyhow::Result<(bool, Vec<String>)>) -> ExitCode {
    match done {
        Ok((true, lines)) => told(Ok(lines)),
        Ok((false, lines)) => {
            told(Ok(lines));
            ExitCode::from(FAILED)
        }
        Err(error) => told(Err(error)),
    }
}

/// Prints what a command has found out, or why it has not.
fn told(told: anyhow::Result<Vec<String>>) -> ExitCode {
    match told {
        Ok(lines) => {
            for line in &lines {
                output::line(line);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Runs a command's work to its end.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(LINGER);
    done
}

/// Where sockets go that cannot lie in the data directory.
fn sockets() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    own.filter(|own| own.is_absolute() && own.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}

/// What the environment says of proxies.
fn proxy(environment: &[(String, String)]) -> ProxyConfig {
    let variable = |names: [&str; 2]| {
        environment
            .iter()
            .find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty())
            .map(|(_, value)| value.clone())
    };
    ProxyConfig {
        https: variable(["HTTPS_PROXY", "https_proxy"]),
        http: variable(["HTTP_PROXY", "http_proxy"]),
        no: variable(["NO_PROXY", "no_proxy"]),
    }
}

/// The configuration: from where it is named, else where it is looked for, else built in.
fn load(named: Option<&Path>) -> Result<Resolved, Box<dyn std::error::Error>> {
    let environment = environment();
    let from_environment = environment
        .iter()
        .find(|(name, value)| name == "ROADSTEAD_CONFIG" && !value.is_empty())
        .map(|(_, path)| PathBuf::from(path));
    let path = match named.map(Path::to_owned).or(from_environment) {
        Some(path) => Some(path),
        None => ["mirror.toml", "/etc/roadstead/mirror.toml"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists()),
    };
    let text = match &path {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
            format!(
                "error: cannot read the configuration {}: {error}",
                path.display()
            )
        })?),
        None => None,
    };
    config::load(text.as_deref(), path.as_deref(), &environment)
        .map_err(|error: ConfigError| error.into())
}

/// The environment; what is no UTF-8 can be no setting of ours.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
