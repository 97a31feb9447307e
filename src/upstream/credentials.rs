//! What we log in with: nothing, a configured pair, `~/.docker/config.json`, or a `docker-credential-*` helper.
//!
//! Secrets are read when they are needed, so a rotated file is seen, and never logged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::endpoint::Endpoint;
use crate::secret::Secret;

/// How long a credential helper may take.
pub(super) const HELPER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a helper's answer is used before it is asked again.
pub(super) const HELPER_TTL: Duration = Duration::from_secs(300);
/// How long a refused credential is not tried again (RELIABILITY P25).
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(30);

/// Where a secret comes from.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// A file; read anew each time it is needed.
    File(PathBuf),
    /// The secret itself, from the environment.
    Value(Secret),
}

/// One configured credential.
#[derive(Debug, Clone)]
pub enum CredentialConfig {
    /// A user and a password.
    Static {
        /// The user.
        username: String,
        /// The password.
        password: SecretSource,
    },
    /// `docker-credential-<name>`.
    Helper {
        /// The part behind `docker-credential-`.
        name: String,
    },
    /// A Docker `config.json`: its `auths`, `credHelpers` and `credsStore`.
    DockerConfig {
        /// The file.
        path: PathBuf,
    },
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// A user and a password.
    Basic { username: String, password: Secret },
    /// A refresh token, which only a token service takes.
    Identity(Secret),
}

/// The credentials of one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    configured: Vec<CredentialConfig>,
    server: String,
    host: String,
    helped: Mutex<HashMap<String, (Instant, Credential)>>,
    refused: Mutex<HashMap<usize, Instant>>,
}

/// A credential from the pool, by its place there.
#[derive(Debug, Clone)]
pub(super) struct Chosen {
    pub(super) place: usize,
    pub(super) credential: Credential,
}

/// Why no credential can be had although some are configured. Safe to log.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CredentialError {
    #[error("upstream refused the configured credentials; they are not tried again for {} s", REFUSED_FOR.as_secs())]
    Refused,
    #[error("cannot read the secret or configuration file {0}")]
    File(PathBuf),
    #[error("docker-credential-{0} {1}")]
    Helper(String, &'static str),
    #[error("{0} has no entry for this registry")]
    NoEntry(PathBuf),
}

impl Pool {
    pub(super) fn new(configured: &[CredentialConfig], endpoint: &Endpoint) -> Self {
        let host = endpoint.url("/", &[]);
        let host = host.port().map_or_else(
            || endpoint.host().to_owned(),
            |port| format!("{}:{port}", endpoint.host()),
        );
        // Docker Hub's entry has a name of its own (PROTOCOL C6).
        let server = if host == "registry-1.docker.io" {
            "https://index.docker.io/v1/".to_owned()
        } else {
            host.clone()
        };
        Self {
            configured: configured.to_vec(),
            server,
            host,
            helped: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The first credential that has not been refused lately; `None` where none is configured.
    pub(super) async fn choose(&self) -> Result<Option<Chosen>, CredentialError> {
        if self.configured.is_empty() {
            return Ok(None);
        }
        let mut last = CredentialError::Refused;
        for (place, config) in self.configured.iter().enumerate() {
            let refused = self
                .refused
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&place)
                .is_some_and(|at| at.elapsed() < REFUSED_FOR);
            if refused {
                continue;
            }
            match self.read(config).await {
                Ok(credential) => return Ok(Some(Chosen { place, credential })),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A credential was refused: it rests, and a helper's answer is not believed any more.
    pub(super) fn refuse(&self, place: usize) {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(place, Instant::now());
        self.helped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    async fn read(&self, config: &CredentialConfig) -> Result<Credential, CredentialError> {
        match config {
            CredentialConfig::Static { username, password } => {
                let password = match password {
                    SecretSource::Value(secret) => secret.clone(),
                    SecretSource::File(path) => {
                        Secret::new(read_file(path).await?.trim_end_matches(['\r', '\n']))
                    }
                };
                Ok(Credential::Basic {
                    username: username.clone(),
                    password,
                })
            }
            CredentialConfig::Helper { name } => self.help(name).await,
            CredentialConfig::DockerConfig { path } => {
                let text = read_file(path).await?;
                let config: DockerConfig = serde_json::from_str(&text)
                    .map_err(|_malformed| CredentialError::File(path.clone()))?;
                let names = [self.server.as_str(), self.host.as_str()];
                if let Some(helper) = names.iter().find_map(|name| config.cred_helpers.get(*name)) {
                    return self.help(helper).await;
                }
                let entry = names.iter().find_map(|name| {
                    config.auths.iter().find(|(key, _)| {
                        key.trim_start_matches("https://").trim_end_matches('/')
                            == name.trim_start_matches("https://").trim_end_matches('/')
                    })
                });
                if let Some(credential) = entry.and_then(|(_, entry)| entry.credential()) {
                    return Ok(credential);
                }
                match &config.creds_store {
                    Some(helper) if !helper.is_empty() => self.help(helper).await,
                    _ => Err(CredentialError::NoEntry(path.clone())),
                }
            }
        }
    }

    async fn help(&self, name: &str) -> Result<Credential, CredentialError> {
        if let Some((asked, credential)) = self
            .helped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            && asked.elapsed() < HELPER_TTL
        {
            return Ok(credential.clone());
        }
        let failed = |what| CredentialError::Helper(name.to_owned(), what);
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err(failed("is no name of a helper"));
        }
        let asking = async {
            let mut child = tokio::process::Command::new(format!("docker-credential-{name}"))
                .arg("get")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|_missing| failed("cannot be run"))?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin
                    .write_all(self.server.as_bytes())
                    .await
                    .map_err(|_closed| failed("does not read its input"))?;
            }
            child
                .wait_with_output()
                .await
                .map_err(|_died| failed("died"))
        };
        let output = tokio::time::timeout(HELPER_PATIENCE, asking)
            .await
            .map_err(|_elapsed| failed("took too long"))??;
        if !output.status.success() {
            return Err(failed("failed, or has nothing for this registry"));
        }
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|_malformed| failed("did not answer as helpers do"))?;
        let secret = Secret::new(answer.secret);
        let credential = if answer.username == "<token>" {
            Credential::Identity(secret)
        } else {
            Credential::Basic {
                username: answer.username,
                password: secret,
            }
        };
        self.helped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), (Instant::now(), credential.clone()));
        Ok(credential)
    }
}

async fn read_file(path: &Path) -> Result<String, CredentialError> {
    let path: Arc<Path> = path.into();
    let wanted = Arc::clone(&path);
    let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(wanted)).await;
    text.ok()
        .and_then(Result::ok)
        .ok_or_else(|| CredentialError::File(path.to_path_buf()))
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: HashMap<String, String>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl DockerAuth {
    fn credential(&self) -> Option<Credential> {
        if !self.identitytoken.is_empty() {
            return Some(Credential::Identity(Secret::new(
                self.identitytoken.as_str(),
            )));
        }
        if !self.username.is_empty() {
            return Some(Credential::Basic {
                username: self.username.clone(),
                password: Secret::new(self.password.as_str()),
            });
        }
        let pair = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (username, password) = pair.split_once(':')?;
        Some(Credential::Basic {
            username: username.to_owned(),
            password: Secret::new(password.trim_end_matches('\0')),
        })
    }
}

/// The value of a Basic `Authorization`.
pub(super) fn basic(username: &str, password: &Secret) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{}", password.expose()))
    )
}
