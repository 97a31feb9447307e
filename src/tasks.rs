//! Background tasks: named, traced, joined at shutdown. The one home of `tokio::spawn`.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug_span, warn};

/// A set of background tasks that end together. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts `future` in the background under `name`.
    #[expect(clippy::disallowed_methods, reason = "the one home of tokio::spawn")]
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&self, name: &'static str, future: F) {
        let _detached = tokio::spawn(
            self.tracker
                .track_future(future)
                .instrument(debug_span!("task", name)),
        );
    }

    /// Cancelled when the process begins to stop; long-running tasks select on it.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Asks every task to end and waits for them, at most `patience`.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.cancel();
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait())
            .await
            .is_err()
        {
            warn!(
                left = self.tracker.len(),
                "background tasks did not end in time"
            );
        }
    }
}
