//! A mirror that is asked before the upstream: what it has costs the upstream nothing.
//!
//! It is an upstream like any other, with connections, a breaker and counters of its own, and never the only one: whatever it cannot or
//! will not answer, a 404 included, is asked of the upstream itself. A mirror says 404 of what it only may not fetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tracing::{info, warn};

use super::config::{BuildError, Config};
use super::error::{Error, Kind};
use super::fetch::Upstream;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// What stands behind a repository key in the metrics of its parent.
pub const PARENT_LABEL: &str = "@parent";

/// The parent of one upstream.
#[derive(Debug)]
pub(super) struct Guardian {
    upstream: Upstream,
    is_failing: AtomicBool,
}

impl Guardian {
    /// The parent of an upstream of this configuration, if it has one.
    pub(super) fn new(
        config: &Config,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, BuildError> {
        let Some(parent) = &config.parent else {
            return Ok(None);
        };
        // Credentials, certificates and limits of the upstream are none of the parent's business.
        let own = Config {
            ns: Some(parent.ns.clone()),
            credentials: parent.credentials.clone(),
            proxy: config.proxy.clone(),
            concurrent: config.concurrent,
            timeouts: config.timeouts,
            ..Config::new(
                format!("{}{PARENT_LABEL}", config.key),
                parent.url.clone(),
                config.instance.clone(),
            )
        };
        Ok(Some(Self {
            upstream: Upstream::itself(own, tasks, Arc::clone(metrics), true)?,
            is_failing: AtomicBool::new(false),
        }))
    }

    /// Whom to ask.
    pub(super) const fn asked(&self) -> &Upstream {
        &self.upstream
    }

    /// Its answer; none where the upstream is to be asked. It is said once when that begins, and once when it is over.
    pub(super) fn answer<T>(&self, told: Result<T, Error>) -> Option<T> {
        match told {
            Ok(answer) => {
                if self.is_failing.swap(false, Relaxed) {
                    info!(parent = self.upstream.host(), "the parent answers again");
                }
                Some(answer)
            }
            Err(error) => {
                if error.kind() != Kind::NotFound && !self.is_failing.swap(true, Relaxed) {
                    warn!(parent = self.upstream.host(), %error, "the parent gives no answer; the upstream is asked itself");
                }
                None
            }
        }
    }
}
