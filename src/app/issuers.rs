//! How the keys of issuers are fetched: like an upstream's answers, under the same guard.

use std::sync::Arc;

use anyhow::Context as _;

use crate::auth::oidc::{self, Fetch};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{self, Documents, ProxyConfig, Timeouts};

/// What issuers of tokens are asked with.
pub(super) struct Issuers {
    pub(super) proxy: ProxyConfig,
    pub(super) instance: String,
    pub(super) tasks: Tasks,
    pub(super) metrics: Arc<Metrics>,
}

impl Issuers {
    /// Each issuer with what fetches its keys, like an upstream's answers.
    pub(super) fn sources(
        &self,
        told: &[oidc::Config],
    ) -> anyhow::Result<Vec<(oidc::Config, Fetch)>> {
        let source = |told: &oidc::Config| {
            let url = url::Url::parse(&told.issuer)?;
            let config = upstream::Config {
                allow_addresses: told.allow_addresses.clone(),
                ca: told.ca.clone(),
                proxy: self.proxy.clone(),
                concurrent: 1,
                timeouts: Timeouts {
                    connect: oidc::PATIENCE,
                    tls: oidc::PATIENCE,
                    headers: oidc::PATIENCE,
                    idle: oidc::PATIENCE,
                    ..Timeouts::default()
                },
                ..upstream::Config::new("auth.oidc", url, self.instance.clone())
            };
            let documents = Documents::new(config, &self.tasks, Arc::clone(&self.metrics))?;
            let documents = Arc::new(documents);
            let fetch = Fetch::new(move |url, max| {
                let documents = Arc::clone(&documents);
                async move {
                    let document = documents.get(&url, max).await;
                    document.map_err(|error| error.to_string())
                }
            });
            anyhow::Ok((told.clone(), fetch))
        };
        told.iter()
            .map(|told| {
                source(told).with_context(|| format!("cannot set up auth.oidc {}", told.issuer))
            })
            .collect()
    }
}
