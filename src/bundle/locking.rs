//! Finding out what everything that is asked for means now, so that it can be fetched just so later.

use super::asked::Asked;
use super::found::{Search, Trouble, Why, locked};
use super::list::ListError;
use super::lock::Lock;
use super::progress::Event;
use crate::overlay;
use crate::repository::{Error, GatherError};

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockingError {
    /// A list cannot be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// Nothing is asked for.
    #[error("no image is named: name some, or give a list with -f")]
    Nothing,
    /// Some images cannot be had; each was told.
    #[error("{0} of the images cannot be had, so nothing was locked")]
    Troubles(usize),
}

/// Locks all that is asked for, or says of everything that cannot be had why.
pub async fn lock(search: &Search<'_>, asked: &Asked) -> Result<Lock, LockingError> {
    if asked.is_empty() {
        return Err(LockingError::Nothing);
    }
    let (sought, mut troubles) = search.find(asked).await?;
    let (found, more) = search.gather(sought).await;
    troubles.extend(more);
    let mut lock = Lock::default();
    for (sought, gathered) in found {
        let (image, digest) = (sought.image.to_string(), gathered.digest.to_string());
        let added = match locked(&gathered) {
            Some(locked) => lock.add(&image, locked).map_err(Why::from),
            // A walk begins with it.
            None => Err(GatherError::from(Error::from(overlay::Error::ManifestUnknown)).into()),
        };
        match added {
            Ok(()) => {
                let bytes = gathered.bytes();
                let event = Event::Image {
                    image,
                    digest,
                    bytes,
                };
                search.progress.tell(event).await;
            }
            Err(why) => troubles.push(Trouble {
                image,
                source: sought.source,
                why,
            }),
        }
    }
    for trouble in &troubles {
        search.progress.tell(trouble.event()).await;
    }
    if troubles.is_empty() {
        Ok(lock)
    } else {
        Err(LockingError::Troubles(troubles.len()))
    }
}
