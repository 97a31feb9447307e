//! `[[sync]]`: lists that are brought in the background for as long as the mirror runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::bundle::found::Search;
use crate::bundle::list::LIST_MAX;
use crate::bundle::progress::{Event, Progress};
use crate::bundle::sync::schedule::{Scheduled, Schedules, is_success};
use crate::bundle::sync::{Order, Outcome, Report, Sync};
use crate::clock;
use crate::repository::Catalog;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, SyncLabels, SyncOutcomeLabels};
use crate::upstream::Hops;

/// Within how long after the start the first runs begin, so that those of many mirrors, and of many lists, do not begin at once.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// By which part of the time between two runs it is put off, at most.
const JITTER: u32 = 10;

/// Whoever brings the lists.
#[derive(Debug)]
pub(super) struct Syncs {
    pub(super) catalog: Catalog,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) schedules: Schedules,
    pub(super) tasks: Tasks,
    pub(super) running: Mutex<BTreeMap<String, (Scheduled, CancellationToken)>>,
}

impl Syncs {
    /// From now on these are brought. One that is told the same goes on as it was; another ends, with the run that is under way.
    pub(super) fn take(self: &Arc<Self>, all: &[Scheduled]) {
        self.schedules.set(all);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, (one, stop)| {
            let stays = all.contains(one);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for one in all {
            if running.contains_key(&one.name) {
                continue;
            }
            let stop = self.tasks.stopping().child_token();
            running.insert(one.name.clone(), (one.clone(), stop.clone()));
            let (syncs, one) = (Arc::clone(self), one.clone());
            self.tasks.spawn("sync", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = syncs.again_and_again(&one) => {}
                }
            });
        }
    }

    async fn again_and_again(&self, one: &Scheduled) {
        sleep(fraction(FIRST_WITHIN)).await;
        loop {
            self.schedules.begin(&one.name, clock::now());
            let result = self.once(one).await;
            self.note(&one.name, &result);
            self.schedules.end(&one.name, result, clock::now());
            sleep(one.every + fraction(one.every / JITTER)).await;
        }
    }

    async fn once(&self, one: &Scheduled) -> Result<Report, String> {
        let lists = one.lists.clone();
        let texts = tokio::task::spawn_blocking(move || texts(&lists)).await;
        let texts = texts.map_err(|error| error.to_string())??;
        let order = Order {
            asked: one.asked(texts),
            dry_run: false,
        };
        let (progress, mut told) = Progress::new();
        let run = async move {
            let (there, hops) = (self.catalog.current(), Hops::none());
            let sync = Sync {
                search: Search {
                    there: &there,
                    hops: &hops,
                    pulled: &[],
                    progress: &progress,
                },
                store: &self.store,
                who: &format!("(sync {})", one.name),
            };
            sync.run(&order).await.map_err(|error| error.to_string())
        };
        let log = async {
            while let Some(event) = told.recv().await {
                tell(&one.name, &event);
            }
        };
        let (result, ()) = tokio::join!(Box::pin(run), log);
        result
    }

    fn note(&self, name: &str, result: &Result<Report, String>) {
        match result {
            Ok(report) => {
                let [fetched, unchanged, failed] =
                    [Outcome::Fetched, Outcome::Unchanged, Outcome::Failed].map(|outcome| {
                        let labels = SyncOutcomeLabels {
                            name: name.to_owned(),
                            outcome: outcome.as_str(),
                        };
                        let count = report.count(outcome);
                        let counter = self.metrics.sync_images.get_or_create(&labels);
                        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
                        count
                    });
                let bytes = report.fetched();
                info!(
                    name,
                    fetched, unchanged, failed, bytes, "the lists were brought"
                );
            }
            Err(error) => warn!(
                name,
                error, "the lists could not be brought; they are tried again"
            ),
        }
        if is_success(result) {
            let labels = SyncLabels {
                name: name.to_owned(),
            };
            let now = clock::now().as_ms() / 1000;
            let last = self.metrics.sync_last_success.get_or_create(&labels);
            last.set(now);
        }
    }
}

fn tell(name: &str, event: &Event) {
    match event {
        Event::Trouble {
            image,
            source,
            error,
        } => warn!(name, image, source, error, "an image could not be brought"),
        Event::Waiting { seconds, why } => info!(name, seconds, why, "waiting for an upstream"),
        Event::Image { image, digest, .. } => debug!(name, image, digest, "an image is kept"),
        Event::Plan { .. }
        | Event::Looking { .. }
        | Event::Blob { .. }
        | Event::Done { .. }
        | Event::Failed { .. } => {}
    }
}

/// What stands in the lists. Blocks.
fn texts(lists: &[PathBuf]) -> Result<Vec<String>, String> {
    lists.iter().map(|path| text(path)).collect()
}

/// What stands in one. Blocks.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let most = u64::try_from(LIST_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text))
        .map_err(|error| format!("cannot read the list {}: {error}", path.display()))?;
    Ok(text)
}

/// Some part of `whole`, another one each time.
fn fraction(whole: Duration) -> Duration {
    let [first, second, ..] = *uuid::Uuid::new_v4().as_bytes();
    whole * u32::from(u16::from_be_bytes([first, second])) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_spread() {
        let day = Duration::from_secs(86_400);
        let all: std::collections::BTreeSet<Duration> = (0..100).map(|_| fraction(day)).collect();
        assert!(all.len() > 50 && all.iter().all(|part| *part <= day));
    }
}
