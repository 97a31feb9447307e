//! What ends a mirror in order, and what has it read its configuration again.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ReadAgain;
use super::issuers::Issuers;
use super::reload::reload;
use super::syncs::Syncs;
use crate::api::Api;
use crate::audit::AuditFile;
use crate::auth::Auth;
use crate::config::Resolved;
use crate::limits::Limits;
use crate::repository::Catalog;
use crate::server;
use crate::tasks::Tasks;

/// How often the files of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(10);

/// What signals act on.
pub(super) struct Running {
    pub(super) api: Arc<Api>,
    pub(super) tasks: Tasks,
    pub(super) shutdown: CancellationToken,
}

impl Running {
    /// SIGTERM and SIGINT: what is under way is finished first, unless a second one comes.
    pub(super) fn end_by_signals(&self) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let (api, shutdown) = (Arc::clone(&self.api), self.shutdown.clone());
        let stopping = self.tasks.stopping();
        self.tasks.spawn("signals", async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = stopping.cancelled() => return,
            }
            info!("stopping: requests under way are finished first; a second signal ends at once");
            api.drain();
            shutdown.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = stopping.cancelled() => return,
            }
            warn!("ended by a second signal");
            std::process::exit(1);
        });
        Ok(())
    }

    pub(super) fn end_when(&self, stop: CancellationToken) {
        let (api, shutdown) = (Arc::clone(&self.api), self.shutdown.clone());
        let stopping = self.tasks.stopping();
        self.tasks.spawn("end", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = stopping.cancelled() => return,
            }
            api.drain();
            shutdown.cancel();
        });
    }

    /// SIGHUP, and certificates that changed on disk.
    pub(super) fn reload_by_signals(&self, what: Reloading) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let auth = self.api.auth().cloned();
        let stopping = self.tasks.stopping();
        self.tasks.spawn("reload", async move {
            let mut look = tokio::time::interval(CERTIFICATES_EVERY);
            look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = look.tick() => match what.certificates.reload_changed().await {
                        Ok(true) => info!("certificates changed, and were read again"),
                        Ok(false) => {}
                        Err(error) => warn!(%error, "certificates changed, and cannot be used; the ones in use stay"),
                    },
                    _ = hangup.recv() => what.everything(auth.as_deref()).await,
                    () = stopping.cancelled() => return,
                }
            }
        });
        Ok(())
    }
}

/// What SIGHUP reads again.
pub(super) struct Reloading {
    pub(super) audit: AuditFile,
    pub(super) certificates: server::Reload,
    pub(super) catalog: Catalog,
    pub(super) issuers: Issuers,
    pub(super) limits: Arc<Limits>,
    pub(super) syncs: Arc<Syncs>,
    pub(super) config: Resolved,
    pub(super) read_again: ReadAgain,
}

impl Reloading {
    async fn everything(&self, auth: Option<&Auth>) {
        if let Err(error) = self.audit.reopen() {
            warn!(%error, "SIGHUP: audit.path cannot be opened again; lines go to the file that was open");
        }
        match self.certificates.reload().await {
            Ok(()) => info!("SIGHUP: certificates were read again"),
            Err(error) => {
                warn!(%error, "SIGHUP: these certificates cannot be used; the ones in use stay");
            }
        }
        let in_use = (auth, &self.issuers, &*self.limits, &self.syncs);
        reload(&self.catalog, in_use, &self.config, &self.read_again).await;
    }
}
