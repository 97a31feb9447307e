//! One blob's bytes from upstream, in order, across dropped connections.
//!
//! A [`Source`] asks for the blob from its position on and asks again by `Range` after a cut, a stall or a reset. It knows nothing of
//! digests: whoever consumes it verifies. Answers that do not fit (another total, another offset) are never appended; a 200 to a `Range`
//! is read up to the position and continued from there, which is safe because the whole is verified at its end. A foreign layer is asked of
//! its URLs in turn, then of the registry, and last of the URLs that have lied before; for the same reason the next one may continue what
//! another began. Who finds the whole wrong lays it to the first that gave something ([`Source::blame`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tracing::{debug, warn};

use super::suspects::Suspects;
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
    /// Which URLs gave other content before.
    pub(super) suspects: Suspects,
}

/// Who is asked. A URL is asked without credentials, which its type sees to.
#[derive(Debug, Clone)]
enum Place {
    Registry,
    Url(ForeignUrl),
}

/// What has been heard of a place that does not give it. What is wrong with a URL counts for more than that the registry does not have it,
/// which is what registries say of foreign layers; and that for more than that a URL does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    UrlAbsent,
    Registry,
    UrlTrouble,
}

impl Origin {
    /// The URLs in their order, then the registry; behind it those that have lied.
    fn places(&self) -> Vec<Place> {
        let lied = |url: &&ForeignUrl| self.suspects.holds(&self.digest, url);
        let (suspects, urls): (Vec<_>, Vec<_>) = self.urls.iter().partition(lied);
        let place = |url: &ForeignUrl| Place::Url(url.clone());
        let mut places: Vec<Place> = urls.into_iter().map(place).collect();
        places.push(Place::Registry);
        places.extend(suspects.into_iter().map(place));
        places
    }

    /// The same, with `url` left out.
    pub(super) fn without(&self, url: &ForeignUrl) -> Self {
        let others = self.urls.iter().filter(|other| *other != url);
        Self {
            urls: others.cloned().collect(),
            ..self.clone()
        }
    }

    async fn ask(&self, place: &Place, span: Span) -> Result<BlobStream, upstream::Error> {
        let Self {
            upstream,
            hops,
            name,
            digest,
            ..
        } = self;
        match place {
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
        match self.places().first() {
            Some(Place::Url(url)) => upstream.get_foreign_ahead(hops, url, span).await,
            Some(Place::Registry) | None => upstream.get_blob_ahead(hops, name, digest, span).await,
        }
    }
}

/// The bytes of one blob from a position on.
#[derive(Debug)]
pub(super) struct Source {
    origin: Origin,
    /// Who is asked, in turn.
    places: Vec<Place>,
    turn: usize,
    /// Whose turn it was when the first byte of the blob came.
    first: Option<usize>,
    /// The weightiest of what was heard so far, the first of its kind.
    failure: Option<(Heard, SourceError)>,
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
            places: origin.places(),
            origin,
            turn: 0,
            first: None,
            failure: None,
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

    /// Whether everybody has been asked and nobody gives it.
    pub(super) const fn is_spent(&self) -> bool {
        self.turn >= self.places.len()
    }

    /// The content was wrong: remembers the URL that it began with, if it did. The next one may have gone on with a lie, so that nobody
    /// else can be told apart; nor can anybody where all have been asked and the whole never came.
    pub(super) fn blame(&self) -> Option<ForeignUrl> {
        if self.is_spent() {
            return None;
        }
        let Some(Place::Url(url)) = self.first.and_then(|first| self.places.get(first)) else {
            return None;
        };
        let digest = &self.origin.digest;
        warn!(%digest, host = %url, "the URL of a foreign layer has other content; it is asked last from here on");
        self.origin.suspects.note(digest, url);
        Some(url.clone())
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
                    if self.position == 0 {
                        self.first = Some(self.turn);
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

    /// Lets the next place have its turn; after the last one it says why there is nothing.
    fn go_on(&mut self, error: SourceError) -> Result<(), SourceError> {
        let heard = match self.places.get(self.turn) {
            None | Some(Place::Registry) => Heard::Registry,
            Some(Place::Url(url)) => {
                warn!(digest = %self.origin.digest, host = %url, at = self.position, %error, "the URL of a foreign layer does not give it");
                match &error {
                    SourceError::Upstream(error) if is_absence(error) => Heard::UrlAbsent,
                    SourceError::Upstream(_) | SourceError::Length => Heard::UrlTrouble,
                }
            }
        };
        let before = self.failure.take().filter(|(before, _)| *before >= heard);
        let failure = before.unwrap_or((heard, error));
        self.turn += 1;
        self.tries = 0;
        if self.is_spent() {
            return Err(failure.1);
        }
        self.failure = Some(failure);
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
        let place = self.places.get(self.turn).unwrap_or(&Place::Registry);
        let stream = match self.origin.ask(place, span).await {
            // A Range that upstream cannot answer rightly is asked once more without one.
            Err(error) if !whole && error.kind() == Kind::BadAnswer => {
                self.origin.ask(place, Span::Whole).await?
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
