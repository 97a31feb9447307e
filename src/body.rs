//! The body of every response: empty, whole, or a stream that may end in an error; and the bytes of a request.
//!
//! A stream that errors is cut by the server short of a clean end, which is how a client learns that the bytes are not to be trusted.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use http_body_util::BodyStream;

/// Why a body broke off. Opaque: whoever knows the cause has logged it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(&'static str);

impl BodyError {
    /// A short cause for the log of the connection.
    pub const fn new(cause: &'static str) -> Self {
        Self(cause)
    }
}

/// The bytes of a request, as they come.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// The body of a request as a stream of its bytes; what breaks it off is logged by the server.
pub fn chunks<B>(body: B) -> Chunks
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: fmt::Display + Send,
{
    let stream = BodyStream::new(body).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame
                .into_data()
                .ok()
                .filter(|bytes| !bytes.is_empty())
                .map(Ok),
            Err(error) => {
                tracing::debug!(%error, "a request's body broke off");
                Some(Err(BodyError("the client's body broke off")))
            }
        }
    });
    Box::pin(stream)
}

/// Why a body was not read whole.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WholeError {
    /// It is longer than that.
    #[error("the body has more than {0} bytes")]
    TooLong(usize),
    /// It broke off.
    #[error(transparent)]
    Broken(#[from] BodyError),
}

/// All bytes of a request, at most `most`.
pub async fn whole(mut body: Chunks, most: usize) -> Result<Bytes, WholeError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if whole.len() + chunk.len() > most {
            return Err(WholeError::TooLong(most));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// A response body.
pub struct Body(Inner);

enum Inner {
    Full(Option<Bytes>),
    Stream {
        stream: Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>,
        left: Option<u64>,
    },
}

impl Body {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Inner::Full(None))
    }

    /// Bytes that are already here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Inner::Full((!bytes.is_empty()).then_some(bytes)))
    }

    /// Bytes that come as they come; `length` is their number where it is known beforehand.
    pub fn stream(
        stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
        length: Option<u64>,
    ) -> Self {
        Self(Inner::Stream {
            stream: Box::pin(stream),
            left: length,
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Inner::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Stream { stream, left } => {
                let item = std::task::ready!(stream.as_mut().poll_next(cx));
                if let (Some(left), Some(Ok(bytes))) = (left, &item) {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                Poll::Ready(item.map(|item| item.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Full(bytes) => bytes.is_none(),
            Inner::Stream { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Stream {
                left: Some(left), ..
            } => SizeHint::with_exact(*left),
            Inner::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Full(bytes) => write!(f, "Body::full({})", bytes.as_ref().map_or(0, Bytes::len)),
            Inner::Stream { left, .. } => write!(f, "Body::stream({left:?})"),
        }
    }
}
