//! Bringing images into the store, whole, and keeping them there, so that they are had however little upstream is.
//!
//! Everything is looked up first, then planned (each blob once, whoever needs it), then fetched; an image is kept as soon as it is complete.
//! What fails stops that image and no other. Run again, it asks for tags and fetches nothing: what is kept is not asked for.

mod bring;
mod plan;
mod report;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

pub use report::{Asking, Line, Outcome, Report};

use self::plan::Plan;
use super::asked::Asked;
use super::found::{Search, Sought, Trouble, Why};
use super::list::ListError;
use super::progress::Event;
use crate::cache;
use crate::repository::{Error, GatherError, Gathered};
use crate::store::{Store, StoreError};
use crate::upstream::Kind;

/// How many blobs are fetched at a time; what an upstream is asked for at a time is limited besides.
pub const AT_ONCE: usize = 6;
/// How often one piece waits because upstream says that it is asked too often.
pub const WAITS_MAX: u32 = 5;
/// The longest such wait; after a longer one somebody may want to run it again.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// What is to be brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Which images.
    pub asked: Asked,
    /// Only say what it would take.
    pub dry_run: bool,
}

/// Why nothing was brought.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// Nothing is asked for.
    #[error("no image is named: name some, or give a list with -f")]
    Nothing,
    /// The store failed, or has no room to keep it all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who brings what, and where.
#[derive(Debug)]
pub struct Sync<'a> {
    /// Where it is looked for.
    pub search: Search<'a>,
    /// Where it goes.
    pub store: &'a Store,
    /// Who wants it, for the audit record.
    pub who: &'a str,
}

impl Sync<'_> {
    /// Brings everything that is asked for.
    pub async fn run(&self, order: &Order) -> Result<Report, SyncError> {
        if order.asked.is_empty() {
            return Err(SyncError::Nothing);
        }
        let (sought, mut troubles) = self.search.find(&order.asked).await?;
        let (found, more) = self.gathered(sought).await;
        troubles.extend(more);
        let mut report = Report::begin(self.search.there, &found);
        for trouble in &troubles {
            self.search.progress.tell(trouble.event()).await;
            report.images.push(Line::failed(trouble));
        }
        let plan = Plan::of(self.store, found).await?;
        (report.blobs, report.bytes) = (plan.missing_blobs(), plan.missing_bytes());
        let images = u64::try_from(plan.images.len()).unwrap_or(u64::MAX);
        let told = Event::Plan {
            images,
            blobs: report.blobs,
            bytes: report.bytes,
        };
        self.search.progress.tell(told).await;
        // What does not fit is better not begun.
        self.store.check_kept_room(&plan.pieces()).await?;
        report.images.extend(if order.dry_run {
            self.outlook(&plan).await
        } else {
            self.brought(&plan).await
        });
        Ok(report)
    }

    /// What each is made of; those that upstream puts off are asked for again.
    async fn gathered(&self, sought: Vec<Sought>) -> (Vec<(Sought, Gathered)>, Vec<Trouble>) {
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        let mut left = sought;
        for waited in 0.. {
            let again = left.clone();
            let (gathered, troubles) = self.search.gather(left).await;
            found.extend(gathered);
            left = Vec::new();
            let mut longest: Option<(Duration, String)> = None;
            for trouble in troubles {
                let one = again
                    .iter()
                    .find(|one| one.image.to_string() == trouble.image);
                match (pause(&trouble.why), one) {
                    (Some(wait), Some(one)) if waited < WAITS_MAX => {
                        longest = longest.max(Some((wait, trouble.why.to_string())));
                        left.push(one.clone());
                    }
                    _ => failed.push(trouble),
                }
            }
            let Some((wait, told)) = longest else {
                break;
            };
            self.wait(wait, &told).await;
        }
        (found, failed)
    }

    /// Waits as upstream asks for, and says so.
    async fn wait(&self, wait: Duration, why: &str) {
        let told = Event::Waiting {
            seconds: wait.as_secs(),
            why: why.to_owned(),
        };
        self.search.progress.tell(told).await;
        sleep(wait).await;
    }
}

/// How long to wait before something is asked for again, where that is worth it.
fn pause(why: &Why) -> Option<Duration> {
    match why {
        Why::Tags(error)
        | Why::Gather(GatherError::Repository(error) | GatherError::Piece(_, error)) => {
            pause_of(error)
        }
        Why::Nowhere(_)
        | Why::LeftOut(_)
        | Why::NoImage(_)
        | Why::Pick(_)
        | Why::Gather(_)
        | Why::Lock(_) => None,
    }
}

/// Upstream asks for a pause, and not for a long one. What is kept of a quota is no pause: it is not for work in the background.
fn pause_of(error: &Error) -> Option<Duration> {
    match error {
        Error::Remote(cache::Error::Upstream(error)) if error.kind() == Kind::RateLimited => {
            error.retry_after().filter(|wait| *wait <= WAIT_MAX)
        }
        Error::Remote(_) | Error::Local(_) | Error::ReadOnly => None,
    }
}
