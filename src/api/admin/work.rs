//! Answers to commands that take their time: lines of progress while the work goes on. The work ends with its client.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use serde_json::Value;

use crate::body::Body;
use crate::bundle::progress::{Event, Progress};

/// What is sent: one JSON object a line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Does the work while its answer is read. Its last line says what it came to.
pub(super) fn answer<F, W>(work: W) -> Response<Body>
where
    F: Future<Output = Result<Value, String>> + Send + 'static,
    W: FnOnce(Arc<Progress>) -> F,
{
    let (progress, mut lines) = Progress::new();
    let mut work = Some(Box::pin(work(Arc::new(progress))));
    let mut last = None;
    let told = stream::poll_fn(move |context| {
        loop {
            if let Poll::Ready(Some(event)) = lines.poll_recv(context) {
                return Poll::Ready(Some(Ok(line(&event))));
            }
            let Some(going) = &mut work else {
                return Poll::Ready(last.take().map(|event| Ok(line(&event))));
            };
            match going.as_mut().poll(context) {
                Poll::Ready(Ok(result)) => last = Some(Event::Done { result }),
                Poll::Ready(Err(error)) => last = Some(Event::Failed { error }),
                Poll::Pending => match lines.poll_recv(context) {
                    Poll::Ready(Some(event)) => return Poll::Ready(Some(Ok(line(&event)))),
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                },
            }
            // What it has told before comes first.
            work = None;
        }
    });
    let mut response = Response::new(Body::stream(told, None));
    response.headers_mut().insert(header::CONTENT_TYPE, LINES);
    response
}

fn line(event: &Event) -> Bytes {
    // It has text for keys, and so always has a form in JSON.
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    text.into()
}
