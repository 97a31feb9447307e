//! Docker's `config.json`, as far as it tells how to log in (docker/cli, `cli/config/configfile`).
//!
//! Pure. The order is Docker's: a helper for this very registry, then the general helper, then what stands in the file.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::login::Login;
use crate::secret::Secret;

/// The key of Docker Hub, whatever host serves it.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// `auth` is written with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where the file says to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// It stands in the file.
    Login(Login),
    /// `docker-credential-<name>` has it.
    Helper(String),
    /// Nowhere: the registry is used anonymously.
    Nothing,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    #[serde(rename = "auth")]
    pair: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// Whether `host` is one of the names of Docker Hub.
fn is_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}

/// What a helper is asked for: the key under which `docker login` keeps the credentials of `host`.
pub(super) fn server(host: &str) -> &str {
    if is_hub(host) { HUB_KEY } else { host }
}

/// Looks `host` (with its port, if it is not the usual one) up in the text of a `config.json`.
pub(super) fn find(text: &[u8], host: &str) -> Result<Found, &'static str> {
    let file: File =
        serde_json::from_slice(text).map_err(|_unreadable| "it is not a Docker config.json")?;
    if let Some((_, helper)) = file.helpers.iter().find(|(key, _)| means(key, host)) {
        return Ok(Found::Helper(helper.clone()));
    }
    let entry = file.auths.into_iter().find(|(key, _)| means(key, host));
    match entry {
        Some((_, entry)) => match login(entry)? {
            Some(login) => Ok(Found::Login(login)),
            // An empty entry is how `docker login` notes that the helper has it.
            None if !file.store.is_empty() => Ok(Found::Helper(file.store)),
            None => Ok(Found::Nothing),
        },
        None if !file.store.is_empty() => Ok(Found::Helper(file.store)),
        None => Ok(Found::Nothing),
    }
}

/// Whether a key of the file means `host`: keys are hosts, or URLs of old.
fn means(key: &str, host: &str) -> bool {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let bare = bare
        .strip_suffix("/v1/")
        .or_else(|| bare.strip_suffix("/v1"))
        .or_else(|| bare.strip_suffix("/v2/"))
        .or_else(|| bare.strip_suffix("/v2"))
        .or_else(|| bare.strip_suffix('/'))
        .unwrap_or(bare);
    bare.eq_ignore_ascii_case(host) || (is_hub(bare) && is_hub(host))
}

fn login(entry: Auth) -> Result<Option<Login>, &'static str> {
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Login::Identity {
            token: Secret::new(entry.identitytoken),
        }));
    }
    let (username, password) = if entry.pair.is_empty() {
        (entry.username, entry.password)
    } else {
        let wrong = "an auth entry in it is not base64 of user:password";
        let decoded = LENIENT
            .decode(entry.pair.trim())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or(wrong)?;
        let (username, password) = decoded.split_once(':').ok_or(wrong)?;
        (
            username.to_owned(),
            password.trim_end_matches('\0').to_owned(),
        )
    };
    if password.is_empty() {
        return Ok(None);
    }
    Ok(Some(Login::new(username, Secret::new(password))))
}

#[cfg(test)]
mod tests;
