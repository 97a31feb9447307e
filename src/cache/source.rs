//! One blob's bytes from upstream, in order, across dropped connections.
//!
//! A [`Source`] asks for the blob from its position on and asks again by `Range` after a cut, a stall or a reset. It knows nothing of
//! digests: whoever consumes it verifies. Answers that do not fit (another total, another offset) are never appended; a 200 to a `Range`
//! is read up to the position and continued from there, which is safe because the whole is verified at its end. A foreign layer is asked of
//! its URLs in turn, then of the registry; for the same reason the next one may continue what another began.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tracing::{debug, warn};

use crate::oci::{Digest, Name};
use crate::upstream::{self, BlobStream, ForeignUrl, Hops, Kind, Span, Upstream};

/// How often a transfer is resumed without progress before it fails (RELIABILITY P23).
pub(super) const RESUME_TRIES: u32 = 3;
/// How many bytes count as progress, so that an upstream that drips a byte a connection does not go on for ever.
pub(super) const RESUME_PROGRESS: u64 = 64 * 1024;
/// The pause before the first resume; each further one waits twice as long.
const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// What is asked for, and of whom.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) upstream: Upstream,
    pub(super) hops: Hops,
    pub(super) name: Name,
    pub(super) digest: Digest,
    /// Where else, and first: the URLs that a manifest of the image names for this foreign layer, as far as they may be asked.
    pub(super) urls: Arc<[ForeignUrl]>,
}

/// Who is asked. A URL is asked without credentials, which its type sees to.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Registry,
    Url(&'a ForeignUrl),
}

impl Origin {
    /// The URLs in their order, then the registry.
    fn place(&self, turn: usize) -> Place<'_> {
        self.urls.get(turn).map_or(Place::Registry, Place::Url)
    }

    async fn ask(&self, turn: usize, span: Span) -> Result<BlobStream, upstream::Error> {
        let Self {
            upstream,
            hops,
            name,
            digest,
            ..
        } = self;
        match self.place(turn) {
            Place::Registry => upstream.get_blob(hops, name, digest, span).await,
            Place::Url(url) => upstream.get_foreign(hops, url, span).await,
        }
    }

    /// Asks for what can be done without: refused where there is no place for it at once.
    pub(super) async fn ask_ahead(&self, span: Span) -> Result<BlobStream, upstream::Error> {
        let Self {
            upstream,
            hops,
            name,
            digest,
            ..
        } = self;
        match self.place(0) {
            Place::Registry => upstream.get_blob_ahead(hops, name, digest, span).await,
            Place::Url(url) => upstream.get_foreign_ahead(hops, url, span).await,
        }
    }
}

/// The bytes of one blob from a position on.
#[derive(Debug)]
pub(super) struct Source {
    origin: Origin,
    /// Whose turn it is to be asked.
    turn: usize,
    /// What was first wrong with a URL, other than that it does not have it.
    trouble: Option<SourceError>,
    position: u64,
    total: Option<u64>,
    stream: Option<BlobStream>,
    /// Bytes to drop from the stream before they count, because upstream began before the position.
    skip: u64,
    tries: u32,
    progress: u64,
    resumed: u64,
}

/// Why a source ended before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SourceError {
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// More bytes than announced, or an answer of another length than the one before.
    #[error("upstream's answers do not agree about the length")]
    Length,
}

/// Whether an error says that the thing does not exist.
pub(super) const fn is_absence(error: &upstream::Error) -> bool {
    matches!(error.kind(), Kind::NotFound)
}

impl Source {
    /// Asks upstream for everything from `position` on. `total` is the length where it is known already.
    pub(super) async fn open(
        origin: Origin,
        position: u64,
        total: Option<u64>,
    ) -> Result<Self, SourceError> {
        let mut source = Self {
            origin,
            turn: 0,
            trouble: None,
            position,
            total,
            stream: None,
            skip: 0,
            tries: 0,
            progress: position,
            resumed: 0,
        };
        while let Err(error) = source.connect().await {
            source.go_on(error)?;
        }
        Ok(source)
    }

    /// The whole length, once an answer told it.
    pub(super) const fn total(&self) -> Option<u64> {
        self.total
    }

    /// How many bytes of the blob lie before the next chunk.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// How often the transfer was resumed.
    pub(super) const fn resumed(&self) -> u64 {
        self.resumed
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if self.total == Some(self.position) && self.at_clean_end().await? {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                self.reconnect().await?;
                continue;
            };
            let error = match stream.chunk().await {
                Ok(Some(mut bytes)) => {
                    let skipped = self.skip.min(bytes.len() as u64);
                    bytes.advance(usize::try_from(skipped).unwrap_or(bytes.len()));
                    self.skip -= skipped;
                    if bytes.is_empty() {
                        continue;
                    }
                    self.position += bytes.len() as u64;
                    if self.total.is_some_and(|total| self.position > total) {
                        return Err(SourceError::Length);
                    }
                    return Ok(Some(bytes));
                }
                // A clean end before the announced length is a cut like any other; without a length it is the end.
                Ok(None) if self.total.is_none_or(|total| total == self.position) => {
                    return Ok(None);
                }
                Ok(None) => None,
                Err(error) => Some(error),
            };
            self.stream = None;
            if let Err(error) = self.note_cut(error) {
                self.go_on(error)?;
            }
        }
    }

    /// Lets the next place have its turn; after the last one it says why there is nothing. What is wrong with a URL counts for more than
    /// that the registry does not have it, which is what registries say of foreign layers.
    fn go_on(&mut self, error: SourceError) -> Result<(), SourceError> {
        let Place::Url(url) = self.origin.place(self.turn) else {
            return Err(self.trouble.take().unwrap_or(error));
        };
        warn!(digest = %self.origin.digest, host = %url, at = self.position, %error, "the URL of a foreign layer does not give it");
        if !matches!(&error, SourceError::Upstream(error) if is_absence(error)) {
            self.trouble.get_or_insert(error);
        }
        self.turn += 1;
        self.tries = 0;
        Ok(())
    }

    /// At the announced length: one more byte would be one too many.
    async fn at_clean_end(&mut self) -> Result<bool, SourceError> {
        // What is still to be skipped lies before the position: an upstream that began anew has nothing to add.
        if self.skip > 0 {
            self.stream = None;
        }
        let Some(stream) = &mut self.stream else {
            return Ok(true);
        };
        // A stream that errors behind its last byte has still delivered every byte.
        match stream.chunk().await {
            Ok(Some(bytes)) if !bytes.is_empty() => Err(SourceError::Length),
            Ok(_) | Err(_) => {
                self.stream = None;
                Ok(true)
            }
        }
    }

    /// Counts a cut; too many without progress are the end.
    fn note_cut(&mut self, error: Option<upstream::Error>) -> Result<(), SourceError> {
        if self.position.saturating_sub(self.progress) >= RESUME_PROGRESS {
            self.tries = 0;
        }
        self.progress = self.position;
        self.tries += 1;
        debug!(digest = %self.origin.digest, at = self.position, tries = self.tries, error = error.as_ref().map(ToString::to_string), "upstream transfer broke off");
        match error {
            Some(error) if self.tries > RESUME_TRIES => Err(error.into()),
            None if self.tries > RESUME_TRIES => Err(SourceError::Length),
            _ => Ok(()),
        }
    }

    /// Asks again from the position on, after a pause.
    async fn reconnect(&mut self) -> Result<(), SourceError> {
        tokio::time::sleep(RESUME_PAUSE * 2u32.pow(self.tries.saturating_sub(1).min(5))).await;
        self.resumed += 1;
        let failed = match self.connect().await {
            Err(SourceError::Upstream(error)) if error.is_transient() => self.note_cut(Some(error)),
            done => done,
        };
        failed.or_else(|error| self.go_on(error))
    }

    async fn connect(&mut self) -> Result<(), SourceError> {
        let whole = self.position == 0;
        let span = if whole {
            Span::Whole
        } else {
            Span::From(self.position)
        };
        let stream = match self.origin.ask(self.turn, span).await {
            // A Range that upstream cannot answer rightly is asked once more without one.
            Err(error) if !whole && error.kind() == Kind::BadAnswer => {
                self.origin.ask(self.turn, Span::Whole).await?
            }
            other => other?,
        };
        if stream.offset() > self.position {
            return Err(SourceError::Length);
        }
        match (self.total, stream.total()) {
            (Some(known), Some(told)) if known != told => return Err(SourceError::Length),
            (None, told) => self.total = told,
            _ => {}
        }
        self.skip = self.position - stream.offset();
        self.stream = Some(stream);
        Ok(())
    }
}
