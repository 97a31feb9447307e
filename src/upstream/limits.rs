//! How many requests may be under way at one upstream (RELIABILITY P25).
//!
//! Blob transfers are long, so they may take only a part of the places: what names and manifests need is never behind them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{Error, Kind};

/// What a request is for, as far as limits and waits go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// HEAD of a manifest, which Docker Hub does not count.
    ManifestHead,
    /// GET of a manifest, which it does.
    ManifestGet,
    /// GET or HEAD of a blob.
    Blob,
    /// Tags and referrers.
    List,
}

impl Class {
    /// How many classes there are.
    pub(super) const COUNT: usize = 4;

    /// A number below [`Class::COUNT`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::ManifestHead => 0,
            Self::ManifestGet => 1,
            Self::Blob => 2,
            Self::List => 3,
        }
    }
}

/// The places of one upstream.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    all: Arc<Semaphore>,
    transfers: Arc<Semaphore>,
    extras: Arc<Semaphore>,
}

/// A place, held until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _extra: Option<OwnedSemaphorePermit>,
    _transfer: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl Limits {
    /// `concurrent` places; a quarter of them, and at least one, is not for blobs, unless there is only one.
    pub(super) fn new(concurrent: usize) -> Self {
        let all = concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let transfers = (all - (all / 4).max(1)).max(1);
        Self {
            all: Arc::new(Semaphore::new(all)),
            transfers: Arc::new(Semaphore::new(transfers)),
            extras: Arc::new(Semaphore::new(transfers / 2)),
        }
    }

    /// Waits for a place. `is_transfer`: for as long as a blob takes.
    pub(super) async fn acquire(&self, is_transfer: bool) -> Result<Permit, Error> {
        let closed =
            |_closed| Error::new(Kind::Unavailable, "the upstream client is shutting down");
        let transfer = if is_transfer {
            let permit = Arc::clone(&self.transfers).acquire_owned().await;
            Some(permit.map_err(closed)?)
        } else {
            None
        };
        let any = Arc::clone(&self.all)
            .acquire_owned()
            .await
            .map_err(closed)?;
        Ok(Permit {
            _extra: None,
            _transfer: transfer,
            _any: any,
        })
    }

    /// A place for a transfer that can be done without: at once or not at all, and never more than half of the transfers' places.
    pub(super) fn try_extra(&self) -> Result<Permit, Error> {
        let take = |places: &Arc<Semaphore>| {
            Arc::clone(places).try_acquire_owned().map_err(|_taken| {
                Error::new(Kind::Unavailable, "every place at the upstream is taken")
            })
        };
        Ok(Permit {
            _extra: Some(take(&self.extras)?),
            _transfer: Some(take(&self.transfers)?),
            _any: take(&self.all)?,
        })
    }
}
