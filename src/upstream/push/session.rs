//! One upload under way: chunk after chunk, taken up again where the registry says that it stands.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::Method;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use tokio::time::sleep;
use tracing::debug;
use url::Url;

use super::location::{chunk_min, location, taken};
use super::write::Write;
use super::{CHUNK, CHUNK_MAX, PushError, RESUME_PAUSE, RESUMES_MAX};
use crate::oci::media_type::OCTET_STREAM;
use crate::oci::{Digest, Name};
use crate::upstream::error::{Error, Kind};
use crate::upstream::fetch::Upstream;
use crate::upstream::hops::Hops;
use crate::upstream::meter::What;

/// Whether a request may or may not have been carried out, so that the registry has to be asked.
pub(super) fn may_have_arrived(error: &Error) -> bool {
    let is_answered = error
        .status()
        .is_some_and(|status| !matches!(status, 500 | 502 | 504 | 408));
    matches!(error.kind(), Kind::Unavailable | Kind::Timeout) && !is_answered
}

/// An upload that a registry has opened.
pub(super) struct Session<'a> {
    upstream: &'a Upstream,
    hops: &'a Hops,
    name: &'a Name,
    at: Url,
    /// How many bytes it has.
    offset: u64,
    chunk: usize,
    resumes: u32,
}

impl<'a> Session<'a> {
    /// Out of the answer that opened it.
    pub(super) fn opened(
        upstream: &'a Upstream,
        hops: &'a Hops,
        name: &'a Name,
        answer: &Parts,
    ) -> Result<Self, Error> {
        let endpoint = &upstream.exchange.endpoint;
        let asked = endpoint.url(&crate::oci::path::uploads(name), &[]);
        let at = location(endpoint.origin(), &asked, &answer.headers)?;
        let at = at.ok_or_else(|| {
            let sentence = format!("{} opens an upload without saying where", endpoint.origin());
            Error::new(Kind::BadAnswer, sentence).with_status(answer.status.as_u16())
        })?;
        let chunk = chunk_min(&answer.headers).unwrap_or(0).max(CHUNK);
        if chunk > CHUNK_MAX {
            let sentence = format!("{} wants chunks of more than 64 MiB", endpoint.origin());
            return Err(Error::new(Kind::BadAnswer, sentence));
        }
        Ok(Self {
            upstream,
            hops,
            name,
            at,
            offset: 0,
            chunk,
            resumes: 0,
        })
    }

    /// Sends all of it and closes.
    pub(super) async fn upload<S>(
        &mut self,
        digest: &Digest,
        size: u64,
        source: S,
    ) -> Result<(), PushError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
    {
        let mut source = source.fuse();
        let mut rest = BytesMut::new();
        let mut read = 0_u64;
        loop {
            let chunk = next_chunk(&mut source, &mut rest, self.chunk).await?;
            read += chunk.len() as u64;
            let is_last = chunk.len() < self.chunk || read == size;
            if read > size || (is_last && read < size) {
                return Err(wrong_length(size).into());
            }
            if is_last && !(rest.is_empty() && source.next().await.is_none()) {
                return Err(wrong_length(size).into());
            }
            let is_only = is_last && read == chunk.len() as u64;
            if is_only {
                return Ok(self.close(digest, chunk).await?);
            }
            self.send(chunk).await?;
            if is_last {
                return Ok(self.close(digest, Bytes::new()).await?);
            }
        }
    }

    /// Sends one chunk. Cuts are taken up within it, since nothing before it is kept.
    async fn send(&mut self, chunk: Bytes) -> Result<(), Error> {
        let start = self.offset;
        let end = start + chunk.len() as u64;
        while self.offset < end {
            let from = usize::try_from(self.offset - start).unwrap_or(usize::MAX);
            let part = chunk.slice(from.min(chunk.len())..);
            let range = format!("{}-{}", self.offset, end - 1);
            let mut write = self.request(Method::PATCH, part);
            if let Ok(range) = HeaderValue::from_str(&range) {
                write.headers.push((CONTENT_RANGE, range));
            }
            let result = self.upstream.exchange.write(&write).await;
            let offset = match result {
                Ok(answer) => {
                    self.moved(&answer)?;
                    let offset = taken(&answer.headers).unwrap_or(end);
                    if offset <= self.offset {
                        let error = self.bad("takes no bytes of the upload");
                        self.count_resume(error).await?;
                    }
                    offset
                }
                Err(error) if may_have_arrived(&error) || error.status() == Some(416) => {
                    self.resume(error).await?
                }
                Err(error) => return Err(self.forgotten(error)),
            };
            if offset < start || offset > end {
                let sentence = format!(
                    "{} has {offset} bytes of the upload, where {} to {end} were sent last",
                    self.host(),
                    start
                );
                // Beginning again may help where it has lost some, as far as anybody can tell.
                let kind = if offset < start {
                    Kind::Unavailable
                } else {
                    Kind::BadAnswer
                };
                return Err(Error::new(kind, sentence));
            }
            self.offset = offset;
        }
        Ok(())
    }

    /// Says what it was, with the last bytes where there was only one chunk. If it is not known whether that arrived, the blob is looked for; if
    /// it is not there, what is missing is sent once more, which changes nothing where it was there after all.
    async fn close(&mut self, digest: &Digest, last: Bytes) -> Result<(), Error> {
        let error = match self.put(digest, last.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) if may_have_arrived(&error) => error,
            Err(error) => return Err(self.forgotten(error)),
        };
        if self.upstream.has_blob(self.hops, self.name, digest).await? {
            return Ok(());
        }
        let start = self.offset;
        self.offset = self.resume(error).await?;
        let sent = usize::try_from(self.offset.saturating_sub(start)).unwrap_or(usize::MAX);
        if self.offset < start || sent > last.len() {
            return Err(self.bad("has another part of the upload than was sent"));
        }
        if sent < last.len() {
            self.send(last.slice(sent..)).await?;
        }
        let again = self.put(digest, Bytes::new()).await;
        again.map_err(|error| self.forgotten(error))
    }

    async fn put(&self, digest: &Digest, last: Bytes) -> Result<(), Error> {
        let mut write = self.request(Method::PUT, last);
        write
            .url
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        self.upstream.exchange.write(&write).await?;
        Ok(())
    }

    /// How far it has come, after `error`.
    async fn resume(&mut self, error: Error) -> Result<u64, Error> {
        debug!(upstream = self.host(), %error, "an upload is taken up again");
        self.count_resume(error).await?;
        let write = self.request(Method::GET, Bytes::new());
        let answer = self.upstream.exchange.write(&write).await;
        let answer = answer.map_err(|error| self.forgotten(error))?;
        self.moved(&answer)?;
        taken(&answer.headers).ok_or_else(|| self.bad("does not say how far the upload is"))
    }

    /// Waits before it is taken up again, longer each time; `error` where that was often enough.
    async fn count_resume(&mut self, error: Error) -> Result<(), Error> {
        if self.resumes >= RESUMES_MAX {
            return Err(error);
        }
        sleep(RESUME_PAUSE * 2_u32.pow(self.resumes)).await;
        self.resumes += 1;
        Ok(())
    }

    /// Gives it up, so that the registry need not keep it. Whether that works does not matter.
    pub(super) async fn cancel(&self) {
        let write = self.request(Method::DELETE, Bytes::new());
        if let Err(error) = self.upstream.exchange.write_once(&write).await {
            debug!(upstream = self.host(), %error, "an upload could not be given up");
        }
    }

    fn request(&self, method: Method, body: Bytes) -> Write<'_> {
        let mut write = self.upstream.write(self.hops, self.name, What::Blob, None);
        if !body.is_empty() {
            let bytes = HeaderValue::from_static(OCTET_STREAM);
            write.headers.push((CONTENT_TYPE, bytes));
        }
        Write {
            method,
            url: self.at.clone(),
            body,
            ..write
        }
    }

    /// Goes on where an answer says; an answer that says nothing leaves it where it is.
    fn moved(&mut self, answer: &Parts) -> Result<(), Error> {
        let own = self.upstream.exchange.endpoint.origin();
        if let Some(at) = location(own, &self.at, &answer.headers)? {
            self.at = at;
        }
        Ok(())
    }

    fn host(&self) -> &str {
        self.upstream.host()
    }

    fn bad(&self, what: &str) -> Error {
        Error::new(Kind::BadAnswer, format!("{} {what}", self.host()))
    }

    /// An upload that is not there any more is no image that is not there: it may be begun again.
    fn forgotten(&self, error: Error) -> Error {
        if error.kind() != Kind::NotFound {
            return error;
        }
        let sentence = format!(
            "{} has forgotten the upload; it has to begin again",
            self.host()
        );
        Error::new(Kind::Unavailable, sentence)
            .with_status(error.status().unwrap_or(404))
            .elsewhere()
    }
}

/// The next `length` bytes, or what is left.
async fn next_chunk<S>(source: &mut S, rest: &mut BytesMut, length: usize) -> io::Result<Bytes>
where
    S: Stream<Item = io::Result<Bytes>> + Send + Unpin,
{
    while rest.len() < length {
        match source.next().await {
            Some(bytes) => rest.extend_from_slice(&bytes?),
            None => break,
        }
    }
    Ok(rest.split_to(length.min(rest.len())).freeze())
}

fn wrong_length(size: u64) -> io::Error {
    let sentence = format!("it does not have the {size} bytes that it should have");
    io::Error::new(io::ErrorKind::InvalidData, sentence)
}
