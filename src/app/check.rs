//! What is wrong with what a configuration names, found without listening, dialling or touching the store.

use std::sync::Arc;

use anyhow::Context as _;

use super::issuers::Issuers;
use super::syncs;
use crate::auth::Table;
use crate::config::Resolved;
use crate::server;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{CredentialConfig, ProxyConfig, SecretSource, Upstream};

/// What can be found wrong with a configuration without listening, dialling or touching the store. Answers warnings.
pub fn check(config: &Resolved, proxy: &ProxyConfig) -> anyhow::Result<Vec<String>> {
    let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
    server::check_certificates(&config.tls, config.clients.as_ref())
        .context("cannot set up server.tls")?;
    let mut warnings = Vec::new();
    if let Some(users) = config.auth.as_ref().and_then(|auth| auth.users.as_ref()) {
        let text = std::fs::read_to_string(users).with_context(|| {
            format!(
                "cannot read auth.users {}; make it with `roadstead user add NAME`",
                users.display()
            )
        })?;
        Table::parse(&text, users)?;
    }
    if let Some(auth) = &config.auth {
        let issuers = Issuers {
            proxy: proxy.clone(),
            instance: "check".to_owned(),
            tasks: tasks.clone(),
            metrics: Arc::clone(&metrics),
        };
        issuers.sources(&auth.oidc)?;
    }
    for sync in &config.syncs {
        let texts: Result<Vec<String>, String> =
            sync.lists.iter().map(|list| syncs::text(list)).collect();
        let read = texts.and_then(|texts| {
            let wanted = sync.asked(texts).wanted();
            wanted.map(drop).map_err(|error| error.to_string())
        });
        if let Err(error) = read {
            warnings.push(format!("sync `{}`: {error}", sync.name));
        }
    }
    for remote in config.remotes() {
        Upstream::new(
            remote.upstream(proxy, "check"),
            &tasks,
            Arc::clone(&metrics),
        )
        .with_context(|| format!("cannot set up remote.{}", remote.key))?;
        for credential in &remote.credentials {
            let path = match credential {
                CredentialConfig::Static {
                    password: SecretSource::File(path),
                    ..
                }
                | CredentialConfig::DockerConfig { path } => path,
                CredentialConfig::Static {
                    password: SecretSource::Value(_),
                    ..
                }
                | CredentialConfig::Helper { .. } => continue,
            };
            if let Err(error) = std::fs::File::open(path) {
                warnings.push(format!(
                    "remote.{}.credentials: {} cannot be read: {error}",
                    remote.key,
                    path.display()
                ));
            }
        }
    }
    Ok(warnings)
}
