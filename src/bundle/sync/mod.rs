//! Bringing images into the store, whole, and keeping them there, so that they are had however little upstream is.
//!
//! Everything is looked up first, then planned (each blob once, whoever needs it), then fetched; an image is kept as soon as it is complete.
//! What fails stops that image and no other. Run again, it asks for tags and fetches nothing: what is kept is not asked for.

mod bring;
mod plan;
mod report;
pub mod schedule;

pub use report::{Asking, Line, Outcome, Report};
use serde::{Deserialize, Serialize};

use self::plan::Plan;
use super::asked::Asked;
use super::found::Search;
use super::list::ListError;
use super::progress::Event;
use crate::store::{Store, StoreError};

/// How many blobs are fetched at a time; what an upstream is asked for at a time is limited besides.
pub const AT_ONCE: usize = 6;

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
        let (found, more) = self.search.gather_patiently(sought).await;
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
}
