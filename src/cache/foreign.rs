//! Foreign layers: what a manifest says is to be had at URLs, where the remote fetches from those.
//!
//! Such a layer goes the way of every blob; only who is asked differs, and who says that an image may read bytes which another one has
//! brought. For a blob of the registry that is the registry. A URL is anybody's, and one that claims to have it would open what a private
//! image keeps here; so it has to show a piece of it that it could not know beforehand. The same goes for what an interrupted fill left.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use tracing::{info, warn};

use super::error::Error;
use super::fill::{Phase, Seat};
use super::learn::recall;
use super::pull_through::{Inner, PullThrough, absent_blob};
use super::source::{Origin, is_absence};
use crate::oci::{Digest, Name};
use crate::store::{Blob, Part};
use crate::upstream::{self, BlobHead, BlobStream, ForeignUrl, Span};

/// How much of a layer a URL has to show.
const PIECE: u64 = 64 * 1024;

/// A foreign layer of an image that may be fetched.
#[derive(Debug, Clone)]
pub(super) struct ForeignLayer {
    /// Its length; what has another one is not it.
    pub(super) size: u64,
    /// Where from, at least one.
    pub(super) urls: Arc<[ForeignUrl]>,
}

impl PullThrough {
    /// What manifests of the image say of `digest`, if they call it a foreign layer and the remote fetches from where they say it is.
    pub(super) async fn foreign_layer(
        &self,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<ForeignLayer>, Error> {
        let Inner {
            key,
            config,
            shared,
            upstream,
            ..
        } = &*self.inner;
        let layers = upstream.foreign_layers();
        if layers.is_empty() {
            return Ok(None);
        }
        let index = shared.store.index();
        let row = index.foreign_layer(key, name, digest);
        let Some(row) = recall("foreign layer", config.offline, row).await? else {
            return Ok(None);
        };
        let urls = layers.admit(&row.urls);
        Ok((!urls.is_empty()).then(|| ForeignLayer {
            size: row.size,
            urls: urls.into(),
        }))
    }

    /// Asks whether the image of `origin` may read `blob`, which another one has brought: the URLs of its manifest, then the registry. Once
    /// for all who ask.
    pub(super) async fn prove(&self, origin: &Origin, blob: &Blob) -> Result<(), Error> {
        let (asked, wanted) = (origin.clone(), blob.clone());
        let memory = format!("piece {}", absent_blob(&origin.name, &origin.digest));
        let landed = self
            .inner
            .blob_heads
            .run(memory, || async move {
                show_piece(&asked, Known::Blob(&wanted)).await?;
                Ok(BlobHead {
                    size: Some(wanted.size()),
                })
            })
            .await
            .ok_or(Error::GivenUp)?;
        let Err(error) = landed.value else {
            return Ok(());
        };
        let asked = self.head_upstream(&origin.hops, &origin.name, &origin.digest);
        match asked.await {
            Ok(_) => Ok(()),
            // What is wrong with the URLs counts for more than that the registry does not have it, which is what it says of such layers.
            Err(_) if !error.is_absence() => {
                self.inner
                    .absences
                    .forget(&absent_blob(&origin.name, &origin.digest));
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

/// The blob that another image's fill brings in the end, if it does.
pub(super) async fn brought(seat: &Seat) -> Option<Blob> {
    let mut phases = seat.phase();
    let end = phases.wait_for(|phase| match phase {
        Phase::Done(_) | Phase::NoRoom { .. } | Phase::Failed(_) => true,
        Phase::Asking | Phase::Running { .. } => false,
    });
    match &*end.await.ok()? {
        Phase::Done(blob) => Some(blob.clone()),
        Phase::Asking | Phase::Running { .. } | Phase::NoRoom { .. } | Phase::Failed(_) => None,
    }
}

/// What of a layer is here already, from which a piece has to be shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a> {
    /// All of it.
    Blob(&'a Blob),
    /// So many bytes, which an interrupted fill of any image left.
    Part(&'a Part, u64),
}

impl Known<'_> {
    fn len(self) -> u64 {
        match self {
            Self::Blob(blob) => blob.size(),
            Self::Part(_, held) => held,
        }
    }

    /// None where it cannot be read.
    async fn read_at(self, at: u64, max: usize) -> Bytes {
        let read = match self {
            Self::Blob(blob) => blob.read_at(at, max).await,
            Self::Part(part, _) => part.read_at(at, max).await,
        };
        read.unwrap_or_default()
    }
}

/// Asks the URLs in turn for a piece of what is `known` until one has it. The error is of the first that was no absence.
pub(super) async fn show_piece(origin: &Origin, known: Known<'_>) -> Result<(), Error> {
    let (start, end) = piece(known.len(), RandomState::new().hash_one(0));
    let digest = &origin.digest;
    let mut trouble = None;
    for url in origin.urls.iter() {
        let span = Span::FromTo(start, end.saturating_sub(1));
        let shown = match origin.upstream.get_foreign(&origin.hops, url, span).await {
            Ok(stream) => is_shown(stream, known, end).await,
            Err(error) => Err(error),
        };
        match shown {
            Ok(true) => {
                info!(%digest, host = %url, "a foreign layer that is here already has been shown by its URL");
                return Ok(());
            }
            Ok(false) => {
                warn!(%digest, host = %url, "the URL of a foreign layer has other content");
                trouble.get_or_insert(Error::Mismatch);
            }
            Err(error) => {
                warn!(%digest, host = %url, %error, "the URL of a foreign layer cannot be asked");
                if !is_absence(&error) {
                    trouble.get_or_insert(Error::Upstream(error));
                }
            }
        }
    }
    Err(trouble.unwrap_or(Error::NotFound))
}

/// Which piece is asked for.
fn piece(size: u64, chance: u64) -> (u64, u64) {
    let start = chance % (size.saturating_sub(PIECE) + 1);
    (start, start.saturating_add(PIECE).min(size))
}

/// Whether what comes is what is known, up to `end`. What ignored the range is read from its start.
async fn is_shown(
    mut stream: BlobStream,
    known: Known<'_>,
    end: u64,
) -> Result<bool, upstream::Error> {
    if let Known::Blob(blob) = known
        && stream.total().is_some_and(|total| total != blob.size())
    {
        return Ok(false);
    }
    let mut at = stream.offset();
    while at < end {
        let Some(mut bytes) = stream.chunk().await? else {
            return Ok(false);
        };
        bytes.truncate(usize::try_from(end - at).unwrap_or(usize::MAX));
        while !bytes.is_empty() {
            let own = known.read_at(at, bytes.len()).await;
            if own.is_empty() || !bytes.starts_with(&own) {
                return Ok(false);
            }
            at += own.len() as u64;
            bytes.advance(own.len());
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{PIECE, piece};

    #[test]
    fn a_piece_lies_within_its_layer() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 10 * PIECE, u64::MAX] {
            for chance in [0, 1, 12_345_678, u64::MAX] {
                let (start, end) = piece(size, chance);
                assert!(start <= end && end <= size, "{size} {chance}");
                assert_eq!(end - start, size.min(PIECE), "{size} {chance}");
            }
        }
    }
}
