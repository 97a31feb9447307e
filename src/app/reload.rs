//! What a hangup changes: all of it, or nothing.

use std::sync::Arc;

use tracing::{info, warn};

use super::issuers::Issuers;
use super::syncs::Syncs;
use super::{ReadAgain, file_settings};
use crate::audit;
use crate::auth::oidc::{self, Fetch};
use crate::auth::{self, Auth, Prepared};
use crate::config::Resolved;
use crate::limits::Limits;
use crate::repository::Catalog;

/// Takes the users, rules and repositories that the file has now. Anything wrong with it leaves everything as it is.
pub(super) async fn reload(
    catalog: &Catalog,
    (auth, issuers, limits, syncs): (Option<&Auth>, &Issuers, &Limits, &Arc<Syncs>),
    running: &Resolved,
    read_again: &ReadAgain,
) {
    let fresh = match read_again() {
        Ok(fresh) => fresh,
        Err(error) => {
            warn!("SIGHUP: this configuration cannot be used; the one in use stays\n{error}");
            configured("failed");
            return;
        }
    };
    for key in running.needs_restart(&fresh) {
        warn!(key, "SIGHUP: a change of this needs a restart");
    }
    // Everything that may be wrong is found before anything is taken: rules that are in force without their repositories would be others.
    let prepared = match (auth, &fresh.auth) {
        (Some(auth), Some(fresh)) => match prepare(issuers, fresh) {
            Ok((prepared, sources)) => Some((auth, prepared, sources)),
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "SIGHUP: these users or issuers cannot be used; users, rules and repositories in use stay"
                );
                configured("failed");
                return;
            }
        },
        _ => None,
    };
    if let Err(error) = catalog.reload(file_settings(&fresh)).await {
        warn!(%error, "SIGHUP: these repositories cannot be used; users, rules and repositories in use stay");
        configured("failed");
        return;
    }
    if let Some((auth, prepared, sources)) = prepared {
        auth.take(prepared);
        auth.trust(sources, &issuers.tasks);
    }
    limits.reload(fresh.client_limits);
    syncs.take(&fresh.syncs);
    configured("done");
    info!(
        "SIGHUP: the repositories of the configuration were read again, its limits and its lists"
    );
}

/// Reads users, and sets up what issuers need, of a configuration that is not in force yet.
fn prepare(
    issuers: &Issuers,
    fresh: &auth::Config,
) -> anyhow::Result<(Prepared, Vec<(oidc::Config, Fetch)>)> {
    let sources = issuers.sources(&fresh.oidc)?;
    Ok((Auth::prepare(fresh.clone())?, sources))
}

fn configured(outcome: &str) {
    info!(target: audit::TARGET, action = "configure", outcome, "the configuration was read again");
}
