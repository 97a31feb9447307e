//! How a registry is reached that images are pushed to.

use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::bundle::copy::{Account, Destination};
use crate::secret::Secret;
use crate::upstream::docker_login;

#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// User name at the other registry [default: the credentials of the remote with that host, else what `docker login` has kept]
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    username: Option<String>,
    /// Read its password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Speak to the other registry without TLS, which is usual on this machine alone
    #[arg(long)]
    plain_http: bool,
    /// Another host whose token service may see the login; may be given several times
    #[arg(long, value_name = "HOST")]
    token_host: Vec<String>,
}

impl Target {
    /// Whether anything is said of it.
    pub(super) const fn is_named(&self) -> bool {
        self.username.is_some() || self.plain_http || !self.token_host.is_empty()
    }

    /// The destination, with all that is needed to push there.
    pub(super) async fn complete(
        &self,
        mut to: Destination,
        environment: &[(String, String)],
    ) -> anyhow::Result<Destination> {
        to.plain_http = self.plain_http;
        to.token_hosts.clone_from(&self.token_host);
        to.login = match &self.username {
            Some(username) => Some(Account {
                username: username.clone(),
                password: password()?,
                is_explicit: true,
            }),
            None => kept(&to.registry, environment).await?,
        };
        Ok(to)
    }
}

/// The first line of standard input.
fn password() -> anyhow::Result<Secret> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.context("cannot read the password from standard input")?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        bail!("there is no password on standard input");
    }
    Ok(Secret::new(password))
}

/// What `docker login` has kept.
async fn kept(host: &str, environment: &[(String, String)]) -> anyhow::Result<Option<Account>> {
    let variable = |name: &str| {
        let found = environment
            .iter()
            .find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    };
    let directory =
        variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(Path::new(".docker"))));
    let Some(file) = directory.map(|directory| directory.join("config.json")) else {
        return Ok(None);
    };
    if !file.is_file() {
        return Ok(None);
    }
    let login = docker_login(&file, host).await?;
    Ok(login.map(|(username, password)| Account {
        username,
        password,
        is_explicit: false,
    }))
}
