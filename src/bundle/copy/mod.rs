//! Pushing images to another registry: out of the store, and through the cache what is not here. Nothing is kept for its sake.

mod chosen;
mod destination;
mod push;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

pub use chosen::NotWhole;
pub use destination::{Account, Destination, DestinationError, Naming};
pub use report::{Line, Outcome, Report, Sent};

use self::push::Pusher;
use super::asked::Asked;
use super::found::{Search, Sought};
use super::list::ListError;
use super::progress::Event;
use crate::oci::{Digest, Name, Tag};
use crate::repository::Gathered;
use crate::store::Store;
use crate::upstream::Upstream;

/// How many blobs of one image are pushed at a time; what a registry is asked for at a time is limited besides.
pub const AT_ONCE: usize = 4;

/// What is to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Which images.
    pub asked: Asked,
    /// Where to.
    pub to: Destination,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyingError {
    /// A list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// Nothing is asked for.
    #[error("no image is named: name some, or give a list with -f")]
    Nothing,
    /// One name, and several images.
    #[error("{0} images are asked for, and one name is there for them; use sync --to")]
    Several(usize),
}

/// An image on its way.
struct Way {
    sought: Sought,
    gathered: Gathered,
    name: Name,
    tag: Option<Tag>,
}

/// Pushes everything that is asked for to `target`.
pub async fn copy(
    search: &Search<'_>,
    store: &Store,
    target: &Upstream,
    order: &Order,
) -> Result<Report, CopyingError> {
    if order.asked.is_empty() {
        return Err(CopyingError::Nothing);
    }
    let (sought, mut troubles) = search.find(&order.asked).await?;
    if matches!(order.to.naming, Naming::As { .. }) && sought.len() > 1 {
        return Err(CopyingError::Several(sought.len()));
    }
    let (found, more) = search.gather_patiently(sought).await;
    troubles.extend(more);
    let mut report = Report::default();
    for trouble in &troubles {
        search.progress.tell(trouble.event()).await;
        report.images.push(Line::missing(trouble));
    }
    let (ways, failed) = ways(&order.to, found);
    for line in failed {
        tell(search, &line).await;
        report.images.push(line);
    }
    search.progress.tell(plan(&ways)).await;
    let pusher = Pusher {
        search,
        store,
        target,
        known: Mutex::default(),
    };
    // One after the other, so that the next can take from the one before what they share.
    for way in &ways {
        let image = way.sought.image.to_string();
        let pushed = pusher.image(&way.gathered, (&way.name, way.tag.as_ref()));
        let line = match pushed.await {
            Ok((digest, sent)) => {
                let end = way
                    .tag
                    .as_ref()
                    .map_or_else(|| format!("@{digest}"), |tag| format!(":{tag}"));
                let to = format!("{}/{}{end}", order.to.registry, way.name);
                Line::done(image, to, digest.to_string(), sent)
            }
            Err(error) => Line::failed(image, way.sought.source.to_string(), error.to_string()),
        };
        tell(search, &line).await;
        report.images.push(line);
    }
    Ok(report)
}

/// Where each goes. Two that would be called the same are not pushed over each other.
fn ways(to: &Destination, found: Vec<(Sought, Gathered)>) -> (Vec<Way>, Vec<Line>) {
    let (mut ways, mut failed) = (Vec::<Way>::new(), Vec::new());
    let mut taken: HashMap<(Name, Tag), (Digest, String)> = HashMap::new();
    for (sought, gathered) in found {
        let image = sought.image.to_string();
        let placed = to.place(sought.image.name(), sought.image.reference());
        let placed = placed
            .map_err(|error| error.to_string())
            .and_then(|(name, tag)| {
                if let Some(tag) = &tag {
                    let called = (name.clone(), tag.clone());
                    let means = (gathered.digest.clone(), image.clone());
                    let first = taken.entry(called).or_insert_with(|| means.clone());
                    if first.0 != means.0 {
                        return Err(format!(
                            "it would be called {name}:{tag} there, as {} is; push one of them to another prefix",
                            first.1
                        ));
                    }
                }
                Ok((name, tag))
            });
        match placed {
            Ok((name, tag)) => ways.push(Way {
                sought,
                gathered,
                name,
                tag,
            }),
            Err(error) => failed.push(Line::failed(image, sought.source.to_string(), error)),
        }
    }
    (ways, failed)
}

/// Everything that has to be looked at there.
fn plan(ways: &[Way]) -> Event {
    let mut seen = HashSet::new();
    let blobs = ways.iter().flat_map(|way| &way.gathered.blobs);
    let blobs = blobs.filter(|blob| seen.insert(&blob.digest));
    let (count, bytes) = blobs.fold((0, 0_u64), |(count, bytes), blob| {
        (count + 1, bytes.saturating_add(blob.size))
    });
    Event::Plan {
        images: u64::try_from(ways.len()).unwrap_or(u64::MAX),
        blobs: count,
        bytes,
    }
}

async fn tell(search: &Search<'_>, line: &Line) {
    let image = line.image.clone();
    let event = match (&line.digest, &line.error) {
        (Some(digest), None) => Event::Image {
            image,
            digest: digest.clone(),
            bytes: line.sent.bytes,
        },
        (_, error) => Event::Trouble {
            image,
            source: line.source.clone().unwrap_or_default(),
            error: error.clone().unwrap_or_default(),
        },
    };
    search.progress.tell(event).await;
}
