//! `docker-credential-*` programs (docker/docker-credential-helpers): the server on standard input, JSON on standard output.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::login::Login;
use crate::secret::Secret;

/// How long a helper may take. Some ask a cloud's service.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most that a helper may say.
const OUTPUT_MAX: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Output {
    #[serde(rename = "Username", default)]
    username: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// Whether `name` can be the end of a program's name, and nothing else.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Asks `docker-credential-<name>`. `None`: it has nothing for this server. What it prints is never repeated: it may be a secret.
pub(super) async fn ask(name: &str, server: &str) -> Result<Option<Login>, String> {
    if !is_name(name) {
        return Err("the credential helper has an impossible name".to_owned());
    }
    run(&format!("docker-credential-{name}"), server).await
}

async fn run(program: &str, server: &str) -> Result<Option<Login>, String> {
    let run = async {
        let mut child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program} cannot be run ({})", error.kind()))?;
        if let Some(mut input) = child.stdin.take() {
            // A helper that does not read its input may still know the answer.
            let _ = input.write_all(server.as_bytes()).await;
        }
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(OUTPUT_MAX + 1).read_to_end(&mut output).await;
            read.map_err(|error| format!("{program} cannot be read ({})", error.kind()))?;
        }
        if output.len() as u64 > OUTPUT_MAX {
            return Err(format!("{program} says more than 64 KiB"));
        }
        let status = child
            .wait()
            .await
            .map_err(|error| format!("{program} failed ({})", error.kind()))?;
        Ok((status.success(), output))
    };
    let (succeeded, output) = timeout(PATIENCE, run)
        .await
        .map_err(|_elapsed| format!("{program} took too long"))??;
    if !succeeded {
        // The protocol's own words for "I have none".
        let text = String::from_utf8_lossy(&output);
        return if text.contains("credentials not found") {
            Ok(None)
        } else {
            Err(format!("{program} failed"))
        };
    }
    let Output { username, secret } = serde_json::from_slice(&output)
        .map_err(|_unreadable| format!("{program} does not answer as a credential helper"))?;
    Ok((!secret.is_empty()).then(|| Login::new(username, Secret::new(secret))))
}

#[cfg(test)]
mod tests;
