//! `roadstead token create|list|revoke`: API tokens.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::owner::{self, Here};
use super::{FAILED, output};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Data directory, instead of the configured one
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a token and prints it, this once
    Create {
        /// What the token is called
        name: String,
        /// The user whose rights it has
        #[arg(long, value_name = "NAME")]
        user: String,
        /// What may be done with it, as far as the user may: pull, push, delete, promote, admin [default: all]
        #[arg(long, value_name = "RIGHTS", value_delimiter = ',')]
        may: Vec<String>,
        /// Where: KEY, KEY/PATTERN of image names, or "*"; may be given several times [default: everywhere]
        #[arg(long, value_name = "PLACE")]
        on: Vec<String>,
        /// For how long it counts, such as 12h or 30d, or never [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = lasts)]
        expires: Option<Lasts>,
    },
    /// Lists the tokens
    List {
        /// Print JSON, as `GET /admin/tokens` answers it
        #[arg(long)]
        json: bool,
    },
    /// Revokes a token; it counts for nothing from then on
    Revoke {
        /// What the token is called
        name: String,
    },
}

/// For how long a token counts.
#[derive(Debug, Clone, Copy)]
enum Lasts {
    For(Duration),
    Ever,
}

fn lasts(text: &str) -> Result<Lasts, String> {
    if text == "never" {
        return Ok(Lasts::Ever);
    }
    config::parse_span(text)
        .filter(|span| span.as_secs() > 0)
        .map(Lasts::For)
        .ok_or_else(|| "write 30s, 12h, 30d, or never".to_owned())
}

/// What `GET /admin/tokens` answers.
#[derive(Debug, Deserialize)]
struct Tokens {
    tokens: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    name: String,
    user: String,
    may: Vec<String>,
    on: Vec<String>,
    created: String,
    expires: Option<String>,
    expired: bool,
    last_used: Option<String>,
}

/// What `POST /admin/tokens` answers.
#[derive(Debug, Deserialize)]
struct Made {
    token: String,
    expires: Option<String>,
}

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    match super::block_on(act(here, &arguments.action)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

async fn act(here: Here, action: &Action) -> anyhow::Result<()> {
    match action {
        Action::Create {
            name,
            user,
            may,
            on,
            expires,
        } => {
            let mut sent = json!({ "name": name, "user": user });
            if let Some(sent) = sent.as_object_mut() {
                let given = |list: &Vec<String>| (!list.is_empty()).then(|| json!(list));
                sent.extend(given(may).map(|may| ("may".to_owned(), may)));
                sent.extend(given(on).map(|on| ("on".to_owned(), on)));
                let lasts = expires.map(|expires| match expires {
                    Lasts::For(span) => json!(span.as_secs()),
                    Lasts::Ever => json!("never"),
                });
                sent.extend(lasts.map(|lasts| ("expires_in".to_owned(), lasts)));
            }
            let made = command(here, Command::Create(sent)).await?;
            let made: Made = serde_json::from_value(made)?;
            // Nothing else goes there, so that it can be piped on.
            output::line(&made.token);
            let end = made.expires.map_or_else(
                || "until it is revoked".to_owned(),
                |end| format!("until {end}"),
            );
            output::error(&format!(
                "{name} counts {end}; it is not shown again. Use it as the password of {user}, or as a Bearer token"
            ));
        }
        Action::List { json: true } => {
            let told = command(here, Command::List).await?;
            output::line(&told.to_string());
        }
        Action::List { json: false } => {
            let told = command(here, Command::List).await?;
            let Tokens { tokens } = serde_json::from_value(told)?;
            for one in &tokens {
                output::line(&line(one));
            }
        }
        Action::Revoke { name } => {
            command(here, Command::Revoke(name.clone())).await?;
            output::line(&format!("{name} was revoked"));
        }
    }
    Ok(())
}

fn line(one: &Line) -> String {
    let end = match &one.expires {
        None => "never expires".to_owned(),
        Some(end) if one.expired => format!("expired {end}"),
        Some(end) => format!("expires {end}"),
    };
    let used = one.last_used.as_deref();
    format!(
        "{}\t{}\t{} on {}\tcreated {}\t{end}\t{}",
        one.name,
        one.user,
        one.may.join(","),
        one.on.join(","),
        one.created,
        used.map_or_else(|| "never used".to_owned(), |day| format!("used {day}"))
    )
}

/// What is done with tokens.
pub(super) enum Command {
    /// One is made, as `POST /admin/tokens` takes it.
    Create(Value),
    /// All are told.
    List,
    /// One is revoked.
    Revoke(String),
}

pub(super) async fn command(here: Here, command: Command) -> anyhow::Result<Value> {
    if here.config.auth.is_none() {
        bail!(
            "the configuration has no [auth], so there are no users and no tokens of theirs; write [auth] users = \"users.htpasswd\""
        );
    }
    match command {
        Command::Create(sent) => owner::ask(here, Method::POST, "/admin/tokens", Some(&sent)).await,
        Command::List => owner::ask(here, Method::GET, "/admin/tokens", None).await,
        Command::Revoke(name) => {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if name.is_empty() || !name.bytes().all(fits) {
                bail!("there is no token `{name}`");
            }
            let target = format!("/admin/tokens/{name}");
            owner::ask(here, Method::DELETE, &target, None).await
        }
    }
}
