//! `roadstead run`: a mirror beside one command, for CI jobs that have a directory to keep between them and nothing else.
//!
//! Nothing global is touched but what `--docker-daemon` names, and that comes back: see `daemon`.

mod clients;
mod command;
mod daemon;
mod figures;
mod summary;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use http::Method;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::{Host, Url, form_urlencoded};

use self::clients::Clients;
use self::command::Signals;
use self::daemon::{Daemon, Pointed};
use self::summary::{Before, Summary, Told};
use super::owner::{self, Interrupted, Owner};
use super::{FAILED, MISUSED, files, output};
use crate::app::{self, Ended, Last, Until};
use crate::audit::AuditFile;
use crate::clock;
use crate::config::{Resolved, parse_size};
use crate::repository::records::KEEP;
use crate::repository::{Settings, host_of, upstream_url};
use crate::upstream::{CredentialConfig, Parent, ProxyConfig};

pub(super) use self::daemon::restore_left;

/// The directory in the user's cache.
const CACHE: &str = "roadstead";

#[derive(Debug, Clone, Args)]
pub(super) struct Arguments {
    /// Data directory, to be kept from run to run [default: $`XDG_CACHE_HOME/roadstead`, ~/.cache/roadstead]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Another Roadstead, or a mirror that knows ?ns= and answers it with OCI-Namespace: asked before every upstream, which is asked itself where that fails
    #[arg(long, value_name = "URL")]
    parent: Option<String>,
    /// Write what came and went, as JSON
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Write the lock of what was pulled
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Address to listen on, which everybody who reaches it may pull from [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The most that the data directory keeps of cached content, such as 2GiB; what this run did not use goes first [default: `storage.max_size`]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Have the Docker daemon pull through the mirror meanwhile: its configuration is changed, and put back at the end
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = daemon::CONFIG)]
    docker_daemon: Option<PathBuf>,
    /// Where the Docker daemon has its process id
    #[arg(long, value_name = "FILE", default_value = daemon::PIDFILE)]
    docker_pidfile: PathBuf,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "write a size like 2GiB or 500MB".to_owned())
}

/// Runs the command beside a mirror.
pub(super) fn run(
    mut config: Resolved,
    arguments: &Arguments,
    (proxy, audit): (ProxyConfig, AuditFile),
    environment: &[(String, String)],
) -> ExitCode {
    let prepared = prepare(&mut config, arguments, environment);
    if let Err(error) = prepared {
        output::error(&format!("error: {error:#}"));
        return ExitCode::from(MISUSED);
    }
    let sidecar = Sidecar {
        arguments,
        config,
        environment,
    };
    match super::block_on(sidecar.run(proxy, audit)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Makes the configuration one of a mirror that is there for one command on this machine.
fn prepare(
    config: &mut Resolved,
    arguments: &Arguments,
    environment: &[(String, String)],
) -> anyhow::Result<()> {
    let variable = |name: &str| {
        let mut found = environment.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    };
    let data = match &arguments.data {
        Some(data) => data.clone(),
        None => cache(variable("XDG_CACHE_HOME"), variable("HOME"))
            .context("neither XDG_CACHE_HOME nor HOME says where to keep anything; name a directory with --data")?,
    };
    config.storage.path = std::path::absolute(&data)
        .with_context(|| format!("--data {} is no directory", data.display()))?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.listen = vec![arguments.listen.unwrap_or(loopback)];
    config.admin_listen = None;
    config.tls.clear();
    config.clients = None;
    config.external_url = None;
    config.binds.retain_mut(|bind| {
        bind.listen = None;
        bind.host.is_some()
    });
    if config.records.keep.is_zero() {
        // Without it nobody could say what was pulled.
        config.records.keep = KEEP;
    }
    if let Some(text) = &arguments.parent {
        let home = variable("HOME").map(|home| Path::new(home).join(".docker"));
        let logins = variable("DOCKER_CONFIG").map(PathBuf::from).or(home);
        adopt(config, text, logins)?;
    }
    for file in [&arguments.summary, &arguments.lock].into_iter().flatten() {
        if !files::parent(file).is_dir() {
            bail!(
                "{} cannot be written: its directory is not there",
                file.display()
            );
        }
    }
    Ok(())
}

/// The usual place (XDG Base Directory).
fn cache(xdg: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
    let absolute = |text: &&str| Path::new(text).is_absolute();
    let own = xdg.filter(absolute).map(PathBuf::from);
    let usual = || {
        home.filter(absolute)
            .map(|home| Path::new(home).join(".cache"))
    };
    own.or_else(usual).map(|cache| cache.join(CACHE))
}

/// Gives every remote a parent, with what `docker login` keeps for it.
fn adopt(config: &mut Resolved, text: &str, logins: Option<PathBuf>) -> anyhow::Result<()> {
    // The text may hold a password, and is not repeated.
    let url = upstream_url(text).map_err(|_remedy| {
        anyhow::anyhow!("--parent is a URL like https://mirror.example.com; it has no user and password in it: `docker login` to the parent instead")
    })?;
    if url.scheme() != "https" && !is_loopback(&url) {
        bail!("--parent: use https; without it anybody on the way could say what a tag means");
    }
    let credentials: Vec<_> = logins
        .map(|directory| directory.join("config.json"))
        .filter(|path| path.is_file())
        .map(|path| CredentialConfig::DockerConfig { path })
        .into_iter()
        .collect();
    let all = config.repositories.clone();
    for (key, settings) in &mut config.repositories {
        if let (Settings::Remote(remote), Some(ns)) = (settings, host_of(&all, key)) {
            remote.parent = Some(Parent {
                url: url.clone(),
                ns,
                credentials: credentials.clone(),
            });
        }
    }
    Ok(())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Everything that the run has to go by.
struct Sidecar<'a> {
    arguments: &'a Arguments,
    config: Resolved,
    environment: &'a [(String, String)],
}

impl Sidecar<'_> {
    async fn run(self, proxy: ProxyConfig, audit: AuditFile) -> anyhow::Result<u8> {
        let data = &self.config.storage.path;
        if let Some(owner) = owner::at_once(data)? {
            bail!(
                "the data directory {} is in use by process {}; point clients at the mirror that runs there, or name another directory with --data",
                data.display(),
                owner.pid()
            );
        }
        restore_left(data);
        let mut signals = Signals::catch()?;
        let stop = CancellationToken::new();
        let ((ready, is_ready), (told, hears)) = (oneshot::channel(), oneshot::channel());
        let until = Until::Told(app::Told {
            ready,
            stop: stop.clone(),
            last: Some(Last {
                max_size: self.max_size(),
                told,
            }),
        });
        let mirror = app::run(self.config.clone(), proxy, (audit, super::sockets()), until);
        let work = async {
            // Where it cannot start, that is the error that counts.
            let _stops_in_the_end = stop.clone().drop_guard();
            let addresses = tokio::select! {
                addresses = is_ready => addresses?,
                _ = signals.next() => return Err(Interrupted.into()),
            };
            let listens = addresses.first().context("the mirror listens nowhere")?;
            self.beside(*listens, &mut signals, (stop.clone(), hears))
                .await
        };
        let (ran, worked) = tokio::join!(Box::pin(mirror), Box::pin(work));
        match (ran, worked) {
            // The command's own end comes before what became of the mirror.
            (Err(error), Ok(code)) => {
                output::warning(&format!("the mirror ended with an error: {error:#}"));
                Ok(code)
            }
            (ran, worked) => ran.and(worked),
        }
    }

    /// The most that stays; the limit while it runs is the configuration's.
    fn max_size(&self) -> u64 {
        let most = self.config.storage.max_size;
        self.arguments.max_size.map_or(most, |own| own.min(most))
    }

    async fn beside(
        &self,
        listens: SocketAddr,
        signals: &mut Signals,
        (stop, hears): (CancellationToken, oneshot::Receiver<Ended>),
    ) -> anyhow::Result<u8> {
        let data = &self.config.storage.path;
        let owner = owner::of(data).await?;
        let owner = owner.context("the mirror takes no commands")?;
        let path = std::env::var_os("PATH");
        let clients = Clients::point(&self.config, listens, path.as_deref())
            .context("cannot write the clients' files")?;
        let before = Before::of(pulled(&owner, "/admin/pulled").await?);
        let pointed = self.point_daemon(&clients)?;
        let (begun, since) = (Instant::now(), clock::now());
        let environment = clients.environment(data, path.as_deref());
        let ran = command::run(&self.arguments.command, &environment, signals).await;
        let seconds = begun.elapsed().as_secs_f64();
        let code = ran.unwrap_or_else(|(code, problem)| {
            output::error(&format!("error: {problem}"));
            code
        });
        if let Some(pointed) = pointed {
            pointed.restore();
        }
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("since", &since.to_string())
            .append_pair("lock", "true")
            .finish();
        let told = pulled(&owner, &format!("/admin/pulled?{query}")).await;
        let told = told.unwrap_or_else(|error| {
            output::warning(&format!("what was pulled is not known: {error:#}"));
            Told::default()
        });
        if let Some(file) = &self.arguments.lock {
            written(files::replace(file, told.lock.as_bytes()));
        }
        stop.cancel();
        let ended = hears.await.ok();
        let summary = Summary::new((code, seconds), told, &before, ended.as_ref());
        for line in summary.lines() {
            output::error(&line);
        }
        if let Some(file) = &self.arguments.summary {
            written(
                summary
                    .to_json()
                    .map_err(anyhow::Error::from)
                    .and_then(|text| files::replace(file, &text)),
            );
        }
        Ok(code)
    }

    fn point_daemon(&self, clients: &Clients) -> anyhow::Result<Option<Pointed>> {
        let Some(config) = &self.arguments.docker_daemon else {
            return Ok(None);
        };
        let mut hosts = self.environment.iter();
        let host = hosts.find(|(name, _)| name == "DOCKER_HOST");
        let host = host.map(|(_, value)| value.as_str());
        let daemon = Daemon::new(config, &self.arguments.docker_pidfile, host)?;
        let pointed = daemon.point(self.config.storage.path.clone(), clients.address())?;
        Ok(Some(pointed))
    }
}

/// The command is over, and its exit code is ours, so that this can only be said.
fn written(done: anyhow::Result<()>) {
    if let Err(error) = done {
        output::error(&format!("error: {error:#}"));
    }
}

async fn pulled(owner: &Owner, target: &str) -> anyhow::Result<Told> {
    let told = owner.ask(Method::GET, target, None).await?;
    Ok(serde_json::from_value(told)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_usual_cache_is_the_users() {
        for (xdg, home, expected) in [
            (Some("/x"), Some("/home/a"), Some("/x/roadstead")),
            (None, Some("/home/a"), Some("/home/a/.cache/roadstead")),
            (
                Some("relative"),
                Some("/home/a"),
                Some("/home/a/.cache/roadstead"),
            ),
            (Some(""), None, None),
            (None, None, None),
        ] {
            assert_eq!(cache(xdg, home).as_deref(), expected.map(Path::new));
        }
    }

    #[test]
    fn every_remote_has_the_parent_under_the_host_that_it_is_known_by() {
        let mut config = config::load(None, None, &[]).unwrap();
        adopt(&mut config, "http://127.0.0.1:5000", None).unwrap();
        let ns: Vec<_> = config
            .remotes()
            .map(|remote| remote.parent.as_ref().unwrap().ns.as_str())
            .collect();
        assert_eq!(ns.len(), 7);
        assert!(
            ns.contains(&"docker.io") && ns.contains(&"ghcr.io"),
            "{ns:?}"
        );
    }

    #[test]
    fn a_parent_is_reached_safely_and_its_password_stays_out() {
        let mut config = config::load(None, None, &[]).unwrap();
        for (text, problem) in [
            ("https://me:s3cret-canary@mirror.example", "docker login"),
            ("mirror.example", "a URL like"),
            ("http://mirror.example:5000", "use https"),
            ("http://10.0.0.1:5000", "use https"),
        ] {
            let error = adopt(&mut config, text, None).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!error.contains("s3cret-canary"), "{error}");
        }
        for text in [
            "https://mirror.example/base",
            "http://localhost:1",
            "http://[::1]:1",
        ] {
            adopt(&mut config, text, None).unwrap();
        }
    }
}
