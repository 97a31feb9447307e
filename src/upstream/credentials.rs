//! The credentials of one upstream: a pool in which the first that works is used, in the order that the quota gives them (`quota`).
//!
//! A slot is one configured credential (or none: anonymous). It remembers that its login was refused, so that a wrong password is
//! tried at most every 30 seconds and never costs the account (harbor#22569, RELIABILITY P25), and how long upstream asked it to wait.
//! A login that has not worked yet is tried by one request at a time.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::config::{BuildError, CredentialConfig, SecretSource};
use super::credential_helper;
use super::docker_config::{self, Found};
use super::error::{Error, Kind};
use super::limits::Class;
use super::login::{IDENTITY_USER, Login};
use crate::secret::Secret;

/// How long a refused login is not tried again.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// How long a helper's answer is kept.
const HELPER_FOR: Duration = Duration::from_secs(600);
/// The largest secret or configuration file that is read.
const FILE_MAX: u64 = 1024 * 1024;

/// What a Docker `config.json` has for a host, itself or by a helper that it names: user name (`<token>` for an identity token) and secret.
pub async fn docker_login(path: &Path, host: &str) -> Result<Option<(String, Secret)>, Error> {
    let slot = Slot {
        source: Some(CredentialConfig::DockerConfig {
            path: path.to_owned(),
        }),
        state: Mutex::default(),
        gate: tokio::sync::Mutex::new(()),
    };
    Ok(slot.login(host).await?.map(|login| match login {
        Login::Password { username, password } => (username, password),
        Login::Identity { token } => (IDENTITY_USER.to_owned(), token),
    }))
}

/// All slots of one upstream, the preferred one first.
#[derive(Debug)]
pub(super) struct Pool {
    slots: Vec<Slot>,
    host: String,
}

/// One credential.
#[derive(Debug)]
pub(super) struct Slot {
    source: Option<CredentialConfig>,
    state: Mutex<State>,
    gate: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    refused: Option<(Login, Instant)>,
    proven: Option<Login>,
    helped: Option<(Option<Login>, Instant)>,
    waits: [Option<Instant>; Class::COUNT],
}

impl Pool {
    /// `host` is how the upstream is called in a Docker configuration.
    pub(super) fn new(
        credentials: Vec<CredentialConfig>,
        host: String,
    ) -> Result<Self, BuildError> {
        for credential in &credentials {
            if let CredentialConfig::Helper { name } = credential
                && !credential_helper::is_name(name)
            {
                return Err(BuildError::Helper(name.clone()));
            }
        }
        let sources: Vec<_> = if credentials.is_empty() {
            vec![None]
        } else {
            credentials.into_iter().map(Some).collect()
        };
        let slots = sources
            .into_iter()
            .map(|source| Slot {
                source,
                state: Mutex::default(),
                gate: tokio::sync::Mutex::new(()),
            })
            .collect();
        Ok(Self { slots, host })
    }

    /// How many slots there are.
    pub(super) const fn len(&self) -> usize {
        self.slots.len()
    }

    /// What each slot is called where people can see it: never a secret, and no two the same.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for slot in &self.slots {
            let name = match &slot.source {
                None => "anonymous".to_owned(),
                Some(CredentialConfig::Static { username, .. })
                    if username.is_empty() || username == IDENTITY_USER =>
                {
                    "identity-token".to_owned()
                }
                Some(CredentialConfig::Static { username, .. }) => username.clone(),
                Some(CredentialConfig::Helper { name }) => format!("helper:{name}"),
                Some(CredentialConfig::DockerConfig { .. }) => "docker-config".to_owned(),
            };
            let same = |names: &[String], name: &str| names.iter().any(|one| one == name);
            let mut unique = name.clone();
            let mut number = 1;
            while same(&names, &unique) {
                number += 1;
                unique = format!("{name}#{number}");
            }
            names.push(unique);
        }
        names
    }

    /// The first of these slots that may be used for `class` now, its number and its login.
    pub(super) async fn pick(
        &self,
        class: Class,
        candidates: &[usize],
    ) -> Result<(usize, &Slot, Option<Login>), Error> {
        let mut waiting: Option<Duration> = None;
        let mut trouble = None;
        let slots = candidates
            .iter()
            .filter_map(|number| Some((*number, self.slots.get(*number)?)));
        for (number, slot) in slots {
            if let Some(left) = slot.wait_left(class, Instant::now()) {
                waiting = Some(waiting.map_or(left, |least| least.min(left)));
                continue;
            }
            match slot.login(&self.host).await {
                Ok(login) => match slot.refused_for(login.as_ref(), Instant::now()) {
                    None => return Ok((number, slot, login)),
                    Some(left) => trouble = trouble.or_else(|| Some(refused(&self.host, left))),
                },
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        if let Some(left) = waiting {
            let sentence = format!("{} asked us to slow down a moment ago", self.host);
            return Err(Error::new(Kind::RateLimited, sentence).with_retry_after(Some(left)));
        }
        Err(trouble.unwrap_or_else(|| {
            Error::new(
                Kind::Credentials,
                format!("{} has no credentials", self.host),
            )
        }))
    }
}

/// The error for a login that was refused and is not tried again for `left`.
pub(super) fn refused(host: &str, left: Duration) -> Error {
    let sentence = format!(
        "{host} refuses the configured credentials; they are tried again at most every 30 seconds"
    );
    Error::new(Kind::Credentials, sentence).with_retry_after(Some(left))
}

impl Slot {
    /// What this slot logs in with, read anew.
    async fn login(&self, host: &str) -> Result<Option<Login>, Error> {
        match &self.source {
            None => Ok(None),
            Some(CredentialConfig::Static { username, password }) => {
                let secret = match password {
                    SecretSource::Value(secret) => secret.clone(),
                    SecretSource::File(path) => {
                        let bytes = read(path)
                            .await
                            .map_err(|error| file_error(path, error.kind()))?;
                        let text = String::from_utf8(bytes)
                            .map_err(|_binary| file_error(path, "it is not text"))?;
                        Secret::new(text.trim_end_matches(['\r', '\n']))
                    }
                };
                Ok(Some(Login::new(username.clone(), secret)))
            }
            Some(CredentialConfig::Helper { name }) => self.helped(name, host).await,
            Some(CredentialConfig::DockerConfig { path }) => {
                let bytes = read(path)
                    .await
                    .map_err(|error| file_error(path, error.kind()))?;
                match docker_config::find(&bytes, host)
                    .map_err(|problem| file_error(path, problem))?
                {
                    Found::Login(login) => Ok(Some(login)),
                    Found::Helper(name) => self.helped(&name, host).await,
                    Found::Nothing => Ok(None),
                }
            }
        }
    }

    async fn helped(&self, name: &str, host: &str) -> Result<Option<Login>, Error> {
        let kept = self.lock().helped.clone();
        if let Some((login, at)) = kept
            && at.elapsed() < HELPER_FOR
        {
            return Ok(login);
        }
        let _one_at_a_time = self.gate.lock().await;
        let kept = self.lock().helped.clone();
        if let Some((login, at)) = kept
            && at.elapsed() < HELPER_FOR
        {
            return Ok(login);
        }
        let login = credential_helper::ask(name, docker_config::server(host))
            .await
            .map_err(|problem| Error::new(Kind::Credentials, problem))?;
        self.lock().helped = Some((login.clone(), Instant::now()));
        Ok(login)
    }

    /// Waits until nobody else tries this login, if it has not worked yet. An error if it has been refused meanwhile.
    pub(super) async fn turn(
        &self,
        login: &Login,
    ) -> Result<Option<tokio::sync::MutexGuard<'_, ()>>, Refused> {
        if self.lock().proven.as_ref() == Some(login) {
            return Ok(None);
        }
        let turn = self.gate.lock().await;
        if self.refused_for(Some(login), Instant::now()).is_some() {
            return Err(Refused);
        }
        // It has worked meanwhile: no need to queue.
        let is_proven = self.lock().proven.as_ref() == Some(login);
        Ok((!is_proven).then_some(turn))
    }

    /// The login works.
    pub(super) fn proved(&self, login: &Login) {
        let mut state = self.lock();
        if state.proven.as_ref() != Some(login) {
            state.proven = Some(login.clone());
        }
        state.refused = None;
    }

    /// The login does not work. A helper is asked for another one.
    pub(super) fn refuse(&self, login: &Login, host: &str) {
        warn!(host, "upstream refuses the configured credentials");
        let mut state = self.lock();
        state.refused = Some((login.clone(), Instant::now()));
        state.proven = None;
        state.helped = None;
    }

    /// Upstream asked for a pause of `wait` for requests of `class`.
    pub(super) fn wait(&self, class: Class, wait: Duration) {
        let mut state = self.lock();
        if let Some(until) = state.waits.get_mut(class.index()) {
            *until = Instant::now().checked_add(wait);
        }
    }

    fn wait_left(&self, class: Class, now: Instant) -> Option<Duration> {
        let until = (*self.lock().waits.get(class.index())?)?;
        until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }

    fn refused_for(&self, login: Option<&Login>, now: Instant) -> Option<Duration> {
        let state = self.lock();
        let (refused, at) = state.refused.as_ref()?;
        let left = REFUSED_FOR.checked_sub(now.saturating_duration_since(*at))?;
        // Another password is another chance: a corrected file counts at once.
        (login == Some(refused) && !left.is_zero()).then_some(left)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The login was refused just now, by an answer to somebody else.
#[derive(Debug)]
pub(super) struct Refused;

fn file_error(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::new(
        Kind::Credentials,
        format!(
            "the credentials in {} cannot be used: {problem}",
            path.display()
        ),
    )
}

async fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let path: PathBuf = path.to_owned();
    let read = move || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(FILE_MAX)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_stopped| Err(std::io::ErrorKind::Interrupted.into()))
}
