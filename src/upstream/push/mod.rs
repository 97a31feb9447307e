//! Pushing to the upstream: for copies between registries, and never on a client's behalf (distribution-spec, "Push").
//!
//! Invariants: only here is a scope of `push` asked for; what is written follows no redirect (R19), and an upload that is sent to another
//! host goes without credentials (P29); nothing is sent twice but where the protocol says what of it arrived, or where sending it again
//! changes nothing; every wait and every repetition is counted.

mod location;
mod session;
mod write;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use self::session::Session;
use self::write::Write;
use super::error::{Error, Kind};
use super::fetch::Upstream;
use super::hops::Hops;
use super::meter::What;
use super::realm::push_scope;
use crate::oci::{Digest, MediaType, Name, Reference, path};

/// How many bytes of a blob go out in one request, and stand in memory meanwhile. A blob of at most that goes out whole. Large enough for
/// registries that want no small parts (Amazon's: 5 MiB).
pub const CHUNK: usize = 8 * 1024 * 1024;
/// The most that a registry may ask for instead (`OCI-Chunk-Min-Length`).
pub(super) const CHUNK_MAX: usize = 64 * 1024 * 1024;
/// How often one blob's upload is taken up again after a cut.
pub(super) const RESUMES_MAX: u32 = 5;
/// How long the first of these waits; each further one twice as long.
pub(super) const RESUME_PAUSE: Duration = Duration::from_millis(100);
/// How often one request waits because it is told to (429 and 503 with `Retry-After`).
pub(super) const WAITS_MAX: u32 = 3;
/// The longest such wait; a longer one is for the caller to decide on.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// The slowest that a body may go out, in bytes a second: it bounds how long a chunk takes.
pub(super) const RATE_MIN: u64 = 64 * 1024;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// Why a blob was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// What was to be pushed could not be read, or is not as long as it should be.
    #[error("what was to be pushed could not be read: {0}")]
    Source(#[from] io::Error),
    /// The registry.
    #[error(transparent)]
    Upstream(#[from] Error),
}

/// What a registry made of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// It says that it has noted what the manifest refers to (`OCI-Subject`). If not, and there is a subject, a list of referrers has to be kept
    /// under a tag made of its digest.
    pub has_noted_subject: bool,
}

impl Upstream {
    /// Puts a manifest. One by digest is put once more if the connection was cut; by tag it is not, since the tag may have moved meanwhile.
    pub async fn put_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
        media_type: &MediaType,
        bytes: Bytes,
    ) -> Result<Stored, Error> {
        let (tries, digest) = match reference {
            Reference::Digest(digest) => (2, Digest::of_with(digest.algorithm(), &bytes)),
            Reference::Tag(_) => (1, Digest::of(&bytes)),
        };
        let host = self.host();
        let content_type = HeaderValue::from_str(media_type.as_str());
        let content_type = content_type.map_err(|_unsendable| {
            Error::new(
                Kind::BadAnswer,
                "the media type of the manifest fits in no header",
            )
        })?;
        let write = Write {
            method: Method::PUT,
            headers: vec![(CONTENT_TYPE, content_type)],
            body: bytes,
            url: self
                .exchange
                .endpoint
                .url(&path::manifest(name, reference), &[]),
            ..self.write(hops, name, What::Manifest, None)
        };
        let mut left = tries;
        let answer = loop {
            left -= 1;
            match self.exchange.write(&write).await {
                Err(error) if left > 0 && session::may_have_arrived(&error) => {}
                result => break result?,
            }
        };
        let told = answer.headers.get(CONTENT_DIGEST);
        let told = told.and_then(|value| Digest::parse(value.to_str().ok()?).ok());
        if told.is_some_and(|told| told.algorithm() == digest.algorithm() && told != digest) {
            let sentence = format!("{host} took the manifest for another one than was sent");
            return Err(Error::new(Kind::BadAnswer, sentence).with_status(answer.status.as_u16()));
        }
        Ok(Stored {
            has_noted_subject: answer.headers.contains_key(OCI_SUBJECT),
        })
    }

    /// Whether a blob is there, asked as somebody who is about to push.
    pub async fn has_blob(&self, hops: &Hops, name: &Name, digest: &Digest) -> Result<bool, Error> {
        let write = Write {
            method: Method::HEAD,
            url: self.exchange.endpoint.url(&path::blob(name, digest), &[]),
            ..self.write(hops, name, What::Blob, None)
        };
        match self.exchange.write(&write).await {
            Ok(_) => Ok(true),
            // A registry redirects to what it has.
            Err(error) if matches!(error.status(), Some(302 | 303 | 307)) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for a blob that the registry has under `from` to be had under `name` too. False: it has to be pushed.
    pub async fn mount_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        from: &Name,
    ) -> Result<bool, Error> {
        let query = [("mount", digest.to_string()), ("from", from.to_string())];
        let query: Vec<(&str, &str)> = query
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let write = Write {
            method: Method::POST,
            url: self.exchange.endpoint.url(&path::uploads(name), &query),
            ..self.write(hops, name, What::Blob, Some(from))
        };
        let answer = match self.exchange.write(&write).await {
            Ok(answer) => answer,
            // May not read the other one, or does not know it: then it is pushed.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        if answer.status == StatusCode::CREATED {
            return Ok(true);
        }
        // It has opened an upload instead, which nobody will use.
        if let Ok(session) = Session::opened(self, hops, name, &answer) {
            session.cancel().await;
        }
        Ok(false)
    }

    /// Pushes a blob of `size` bytes that come from `source`. A cut is taken up where the registry says that it stands, as long as that is within
    /// the chunk under way; what it has forgotten of earlier ones is an error, transient, after which the caller begins again.
    pub async fn push_blob<S>(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        size: u64,
        source: S,
    ) -> Result<(), PushError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        let write = Write {
            method: Method::POST,
            url: self.exchange.endpoint.url(&path::uploads(name), &[]),
            ..self.write(hops, name, What::Blob, None)
        };
        let answer = self.exchange.write(&write).await?;
        let mut session = Session::opened(self, hops, name, &answer)?;
        let result = session.upload(digest, size, source).await;
        if result.is_err() {
            session.cancel().await;
        }
        result
    }

    /// A request of a push that the rest is filled in for.
    fn write<'a>(
        &self,
        hops: &'a Hops,
        name: &'a Name,
        what: What,
        from: Option<&Name>,
    ) -> Write<'a> {
        let endpoint = &self.exchange.endpoint;
        Write {
            hops,
            name,
            what,
            method: Method::HEAD,
            url: endpoint.url("/v2/", &[]),
            headers: Vec::new(),
            body: Bytes::new(),
            scope: push_scope(endpoint.origin(), name, from),
        }
    }
}
