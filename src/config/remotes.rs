//! `[remote.<key>]` tables: where the upstream is, what to log in with, how long its answers are good for.

use std::num::NonZeroU32;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::file;
use super::resolve::{Reader, span, within};
use crate::cache::{self, PublicKey, Rules};
use crate::globs::Globs;
use crate::repository::{Key, RemoteSettings, upstream_url};
use crate::secret::Secret;
use crate::upstream::{
    Allowance, CredentialConfig, ForeignLayers, SecretSource, Timeouts, UrlPattern,
};

/// The most requests under way at a time that may be configured for one upstream.
pub(super) const CONCURRENT_MAX: usize = 1024;
/// The most requests a second that may be configured for one upstream.
const REQUESTS_PER_SECOND_MAX: u32 = 1_000_000;

impl Reader<'_> {
    pub(super) fn remote(&mut self, key: Key, remote: file::Remote) -> Option<RemoteSettings> {
        let url = upstream_url(remote.url.get_ref());
        if let Err(remedy) = &url {
            self.problem(
                remote.url.span(),
                format!("remote.{key}.url is no registry's URL"),
                *remedy,
            );
        }
        let allowance = self.allowance(&key, &remote.limits);
        let concurrent = remote.limits.concurrent.unwrap_or(Spanned::new(0..0, 8));
        if !(1..=CONCURRENT_MAX).contains(concurrent.get_ref()) {
            self.problem(
                concurrent.span(),
                format!("remote.{key}.limits.concurrent is out of range"),
                format!("write a number from 1 to {CONCURRENT_MAX}"),
            );
        }
        let mut credentials = Vec::new();
        if let Some(pool) = remote.credentials {
            let at = pool.span();
            for credential in pool.into_inner().0 {
                credentials.extend(self.credential(&key, credential, at.clone()));
            }
        }
        let (defaults, timeouts) = (cache::Config::default(), Timeouts::default());
        let cache = cache::Config {
            tag_ttl: span(remote.tag_ttl, defaults.tag_ttl),
            negative_ttl: span(remote.negative_ttl, defaults.negative_ttl),
            stale_if_error: span(remote.stale_if_error, defaults.stale_if_error),
            deleted_upstream: match remote.deleted_upstream {
                Some(file::Deleted::Forget) => cache::DeletedUpstream::Forget,
                Some(file::Deleted::Keep) | None => cache::DeletedUpstream::Keep,
            },
            offline: remote.offline,
            admit: self.admit(&key, remote.admit),
        };
        let timeouts = Timeouts {
            connect: within(remote.timeouts.connect, timeouts.connect),
            tls: within(remote.timeouts.tls, timeouts.tls),
            headers: within(remote.timeouts.headers, timeouts.headers),
            idle: within(remote.timeouts.idle, timeouts.idle),
            ..timeouts
        };
        let allow_addresses = self.networks(
            &remote.allow_addresses,
            &format!("remote.{key}.allow_addresses"),
        );
        let foreign_layers = self.foreign_layers(&key, &remote.foreign_layers);
        Some(RemoteSettings {
            url: url.ok()?,
            serves: remote.serves.into_iter().map(Spanned::into_inner).collect(),
            ns: remote.ns,
            parent: None,
            cache,
            credentials,
            token_hosts: remote.token_hosts,
            allow_addresses,
            foreign_layers,
            ca: remote.ca.map(|path| self.path(&path)),
            concurrent: concurrent.into_inner(),
            allowance,
            timeouts,
            key,
        })
    }

    fn admit(&mut self, key: &Key, written: file::Admit) -> Rules {
        Rules {
            min_age: span(written.min_age, Duration::ZERO),
            allow: self.names(&format!("remote.{key}.admit.allow"), &written.allow),
            deny: self.names(&format!("remote.{key}.admit.deny"), &written.deny),
            max_size: written.max_size.map(|size| size.0),
            cosign_key: written
                .cosign_key
                .and_then(|path| self.public_key(key, &path)),
        }
    }

    /// Patterns of image names.
    fn names(&mut self, key: &str, written: &[Spanned<String>]) -> Globs {
        let remedy = "write it like \"library/*\" or \"team/**\": the name as upstream knows it, without tag or digest";
        for text in written {
            // Tags and digests have others of these, so a pattern that has one fits nothing and would protect from nothing.
            if text.get_ref().is_empty() || text.get_ref().contains([':', '@']) {
                let title = format!("{key}: `{}` is no pattern of image names", text.get_ref());
                self.problem(text.span(), title, remedy);
            }
        }
        self.patterns(written, "library/*")
    }

    fn public_key(&mut self, key: &Key, written: &Spanned<PathBuf>) -> Option<PublicKey> {
        let path = self.path(written.get_ref());
        let problem = match std::fs::read_to_string(&path) {
            Ok(pem) => match PublicKey::from_pem(pem.as_bytes()) {
                Ok(key) => return Some(key),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        self.problem(
            written.span(),
            format!(
                "remote.{key}.admit.cosign_key: {} cannot be used: {problem}",
                path.display()
            ),
            "name the public key that signatures are made for, as `cosign generate-key-pair` writes it to cosign.pub",
        );
        None
    }

    fn allowance(&mut self, key: &Key, limits: &file::RemoteLimits) -> Allowance {
        let requests_per_second = limits.requests_per_second.as_ref().and_then(|written| {
            let rate = NonZeroU32::new(*written.get_ref());
            let rate = rate.filter(|rate| rate.get() <= REQUESTS_PER_SECOND_MAX);
            if rate.is_none() {
                self.problem(
                    written.span(),
                    format!("remote.{key}.limits.requests_per_second is out of range"),
                    format!("write a number from 1 to {REQUESTS_PER_SECOND_MAX}"),
                );
            }
            rate
        });
        let name = format!("remote.{key}.limits.bandwidth");
        let bandwidth = self.bandwidth(limits.bandwidth.as_ref(), &name);
        Allowance {
            requests_per_second,
            bandwidth,
            keep_quota: limits.keep_quota.unwrap_or_default().into(),
        }
    }

    fn foreign_layers(&mut self, key: &Key, written: &[Spanned<String>]) -> ForeignLayers {
        let mut patterns = Vec::new();
        for text in written {
            match UrlPattern::parse(text.get_ref()) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.problem(
                    text.span(),
                    format!("remote.{key}.foreign_layers: `{}` {error}", text.get_ref()),
                    "write it like \"**/mcr.microsoft.com/**\"",
                ),
            }
        }
        ForeignLayers::new(patterns)
    }

    fn credential(
        &mut self,
        key: &Key,
        written: file::Credential,
        at: Range<usize>,
    ) -> Option<CredentialConfig> {
        match written {
            file::Credential {
                username: Some(username),
                password_file: Some(file),
                password_env: None,
                helper: None,
                docker_config: None,
            } => Some(CredentialConfig::Static {
                username,
                password: SecretSource::File(self.path(&file)),
            }),
            file::Credential {
                username: Some(username),
                password_file: None,
                password_env: Some(variable),
                helper: None,
                docker_config: None,
            } => {
                let value = self
                    .environment
                    .iter()
                    .find(|(name, _)| *name == variable)
                    .map(|(_, value)| value.clone());
                if value.is_none() {
                    self.problem(
                        at,
                        format!("remote.{key}.credentials: the environment has no {variable}"),
                        "set the variable, or use password_file",
                    );
                }
                Some(CredentialConfig::Static {
                    username,
                    password: SecretSource::Value(Secret::new(value?)),
                })
            }
            file::Credential {
                username: None,
                password_file: None,
                password_env: None,
                helper: Some(name),
                docker_config: None,
            } => Some(CredentialConfig::Helper { name }),
            file::Credential {
                username: None,
                password_file: None,
                password_env: None,
                helper: None,
                docker_config: Some(path),
            } => {
                let home = self
                    .environment
                    .iter()
                    .find(|(name, _)| name == "HOME")
                    .map(|(_, home)| PathBuf::from(home));
                let path = match (path.strip_prefix("~"), home) {
                    (Ok(rest), Some(home)) => home.join(rest),
                    _ => self.path(&path),
                };
                Some(CredentialConfig::DockerConfig { path })
            }
            _ => {
                self.problem(at, format!("remote.{key}.credentials is neither of its three forms"), "write { username, password_file } or { username, password_env }, { helper } or { docker_config }");
                None
            }
        }
    }
}
