//! The tasks behind a store. They hold it weakly, so that a store which is dropped is gone, lock and all.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::parts;
use super::shared::Shared;
use super::unsettled::Unsettled;
use crate::clock;
use crate::oci::Digest;
use crate::tasks::Tasks;

/// How long a commit waits for its sync at most.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// How often last uses are written down.
const USES_INTERVAL: Duration = Duration::from_secs(10);
/// How often parts that nobody takes up again are looked for.
const PARTS_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Starts them.
pub(super) fn start(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    damage: mpsc::UnboundedReceiver<(Digest, &'static str)>,
) {
    let weak = || Arc::downgrade(shared);
    let stopping = tasks.stopping();
    let unsettled = Arc::clone(&shared.unsettled);
    tasks.spawn("store-sync", sync(weak(), unsettled, stopping.clone()));
    tasks.spawn(
        "store-uses",
        every(USES_INTERVAL, weak(), stopping.clone(), Shared::flush_uses),
    );
    tasks.spawn(
        "store-parts",
        every(PARTS_INTERVAL, weak(), stopping.clone(), drop_stale_parts),
    );
    tasks.spawn("store-damage", quarantine(weak(), damage, stopping.clone()));
    tasks.spawn("store-reconcile", reconcile(weak(), stopping));
}

async fn sync(store: Weak<Shared>, unsettled: Arc<Unsettled>, stopping: CancellationToken) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = unsettled.woken() => {}
            () = tokio::time::sleep(SYNC_INTERVAL) => {}
        }
        let Some(shared) = store.upgrade() else {
            return;
        };
        run(move || {
            // A round that failed has said so and told whoever waits.
            let _told = shared.sync_round();
        })
        .await;
    }
}

async fn every(
    interval: Duration,
    store: Weak<Shared>,
    stopping: CancellationToken,
    work: fn(&Shared),
) {
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let Some(shared) = store.upgrade() else {
            return;
        };
        run(move || work(&shared)).await;
    }
}

async fn quarantine(
    store: Weak<Shared>,
    mut damage: mpsc::UnboundedReceiver<(Digest, &'static str)>,
    stopping: CancellationToken,
) {
    loop {
        let report = tokio::select! {
            () = stopping.cancelled() => return,
            report = damage.recv() => report,
        };
        let (Some((digest, why)), Some(shared)) = (report, store.upgrade()) else {
            return;
        };
        run(move || {
            if let Err(error) = shared.quarantine(&digest, why) {
                warn!(%digest, why, %error, "a damaged blob cannot be quarantined");
            }
        })
        .await;
    }
}

/// Brings files, rows and the limit together.
async fn reconcile(store: Weak<Shared>, stopping: CancellationToken) {
    run(move || {
        // Held through: a store that is dropped meanwhile stays until the next shard.
        let Some(shared) = store.upgrade() else {
            return;
        };
        if !shared.settled.get() {
            shared.reconcile(|| stopping.is_cancelled() || Arc::strong_count(&shared) == 1);
        }
        if !shared.settled.get() {
            return;
        }
        // The limit may be lower than it was.
        if shared.reserve(0).is_err() {
            warn!("the store holds more than its limit, and nothing of it may go");
        }
    })
    .await;
}

fn drop_stale_parts(shared: &Shared) {
    let now = clock::now();
    for (digest, waiting) in shared.parts.waiting() {
        if parts::is_stale(waiting.since, now) {
            let bytes = shared.drop_part(&digest);
            info!(%digest, bytes, "a part that nobody took up again was removed");
        }
    }
}

/// Runs blocking work to its end.
async fn run(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = spawn_blocking(work).await {
        warn!(%error, "background work of the store broke off");
    }
}
