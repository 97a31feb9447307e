//! `roadstead user add|remove|list`: the users file.

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::owner::Here;
use super::token::{self, Command};
use super::{FAILED, MISUSED, output};
use crate::auth::{Table, hash, is_user_name};

/// The least letters of a new password.
const PASSWORD_MIN: usize = 8;
/// The most bytes that bcrypt looks at.
const PASSWORD_MAX: usize = 72;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Adds a user, or gives one another password, read from standard input
    Add {
        /// The user's name
        name: String,
    },
    /// Removes a user
    Remove {
        /// The user's name
        name: String,
    },
    /// Lists the users
    List,
}

pub(super) fn run(here: &Here, arguments: &Arguments) -> ExitCode {
    let Some(path) = here
        .config
        .auth
        .as_ref()
        .and_then(|auth| auth.users.as_ref())
    else {
        output::error(
            "error: the configuration names no users file; write [auth] users = \"users.htpasswd\"",
        );
        return ExitCode::from(MISUSED);
    };
    let done = match &arguments.action {
        Action::Add { name } => add(path, name),
        Action::Remove { name } => {
            let revoked =
                || super::block_on(revoke(here, name)).map_err(|error| format!("{error:#}"));
            remove(path, name).and_then(|()| revoked())
        }
        Action::List => list(path),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("error: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn add(path: &Path, name: &str) -> Result<(), String> {
    if !is_user_name(name) {
        return Err(format!(
            "`{name}` is no user name: letters, digits and . _ - @ +, and not the word anonymous"
        ));
    }
    // A file that is broken is better known before a password was typed.
    read(path)?;
    if io::stdin().is_terminal() {
        output::line("type the password, which is shown, and Enter; or pipe it in");
    }
    let mut password = String::new();
    io::stdin()
        .lock()
        .read_line(&mut password)
        .map_err(|error| format!("cannot read the password: {error}"))?;
    let password = password.trim_end_matches(['\n', '\r']);
    if password.chars().count() < PASSWORD_MIN || password.len() > PASSWORD_MAX {
        return Err(format!(
            "a password has at least {PASSWORD_MIN} letters and at most {PASSWORD_MAX} bytes"
        ));
    }
    let hash = hash(password).map_err(|error| error.to_string())?;
    let line = format!("{name}:{hash}");
    let _alone = alone(path)?;
    let text = read(path)?;
    let is_known = text.lines().any(|line| is_of(line, name));
    let mut lines: Vec<&str> = Vec::new();
    for old in text.lines() {
        lines.push(if is_of(old, name) { &line } else { old });
    }
    if !is_known {
        lines.push(&line);
    }
    write(path, &lines)?;
    output::line(&format!(
        "{name} {}",
        if is_known {
            "has another password"
        } else {
            "was added"
        }
    ));
    Ok(())
}

fn remove(path: &Path, name: &str) -> Result<(), String> {
    let _alone = alone(path)?;
    let text = read(path)?;
    let lines: Vec<&str> = text.lines().filter(|line| !is_of(line, name)).collect();
    if lines.len() == text.lines().count() {
        return Err(format!("{} has no user {name}", path.display()));
    }
    write(path, &lines)?;
    output::line(&format!("{name} was removed"));
    Ok(())
}

/// Revokes the API tokens of a user who is gone: whoever is given the name next would have them.
async fn revoke(here: &Here, name: &str) -> anyhow::Result<()> {
    if !here.config.storage.path.exists() {
        return Ok(());
    }
    let failed = || {
        format!(
            "{name} was removed, but API tokens in that name could not be revoked; they count again if somebody is given the name"
        )
    };
    let command = |command| token::command(here.clone(), command);
    let told = command(Command::List).await.with_context(failed)?;
    let tokens = told.get("tokens").and_then(Value::as_array);
    let text = |one: &Value, field: &str| Some(one.get(field)?.as_str()?.to_owned());
    let all = tokens.into_iter().flatten();
    for one in all.filter(|one| text(one, "user").as_deref() == Some(name)) {
        let Some(token) = text(one, "name") else {
            continue;
        };
        let revoked = command(Command::Revoke(token.clone())).await;
        revoked.with_context(failed)?;
        output::line(&format!("its API token {token} was revoked"));
    }
    Ok(())
}

fn list(path: &Path) -> Result<(), String> {
    let text = read(path)?;
    let table = Table::parse(&text, path).map_err(|error| error.to_string())?;
    for name in table.names() {
        output::line(name);
    }
    Ok(())
}

fn is_of(line: &str, name: &str) -> bool {
    line.split_once(':').is_some_and(|(user, _)| user == name)
}

/// The file's text; of one that is not there yet, none. One that is broken is not written over.
fn read(path: &Path) -> Result<String, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    Table::parse(&text, path).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Waits until nobody else changes the file: of two that read and write it at once, one would be lost.
fn alone(path: &Path) -> Result<fs::File, String> {
    let folder = folder(path);
    let locked = || -> io::Result<fs::File> {
        let held = fs::File::open(folder)?;
        held.lock()?;
        Ok(held)
    };
    locked().map_err(|error| format!("cannot lock {}: {error}", folder.display()))
}

fn folder(path: &Path) -> &Path {
    let parent = path.parent();
    let named = parent.filter(|parent| !parent.as_os_str().is_empty());
    named.unwrap_or_else(|| Path::new("."))
}

/// Beside, synced, renamed: whoever reads meanwhile sees all users before or after. The file keeps its owner and its rights.
fn write(path: &Path, lines: &[&str]) -> Result<(), String> {
    let before = fs::metadata(path).ok();
    let mode = before.as_ref().map_or(0o600, |found| found.mode() & 0o777);
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = || -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(mode);
        let mut file = options.open(&beside)?;
        if let Some(before) = &before {
            // Whoever runs the mirror must be able to read what root has changed.
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        for line in lines {
            writeln!(file, "{line}")?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder(path))?.sync_all()
    };
    written().map_err(|error| format!("cannot write {}: {error}", path.display()))
}
