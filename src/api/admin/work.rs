//! Answers to commands that take their time: lines of progress while the work goes on. The work ends with its client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, BodyError};
use crate::bundle::progress::{Event, Progress};
use crate::tasks::Tasks;

/// What is sent: one JSON object a line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// Does the work beside its answer, so that a client that is suspended holds up nothing that others wait for; the work ends when the answer is
/// dropped. The last line says what it came to.
pub(super) fn answer<F, W>(tasks: &Tasks, work: W) -> Response<Body>
where
    F: Future<Output = Result<Value, String>> + Send + 'static,
    W: FnOnce(Arc<Progress>) -> F,
{
    let (progress, mut lines) = Progress::new();
    let work = work(Arc::new(progress));
    let (done, mut last) = oneshot::channel();
    let gone = CancellationToken::new();
    let guard = gone.clone().drop_guard();
    tasks.spawn("work", async move {
        tokio::select! {
            // Nobody is told what nobody waits for.
            result = work => drop(done.send(result)),
            () = gone.cancelled() => {}
        }
    });
    let mut is_over = false;
    let told = stream::poll_fn(move |context| {
        let _ends_the_work = &guard;
        // What was told before comes first; its end closes the lines.
        if let Some(event) = ready!(lines.poll_recv(context)) {
            return Poll::Ready(Some(Ok(line(&event))));
        }
        if is_over {
            return Poll::Ready(None);
        }
        let ended = ready!(Pin::new(&mut last).poll(context));
        is_over = true;
        let event = match ended {
            Ok(Ok(result)) => Event::Done { result },
            Ok(Err(error)) => Event::Failed { error },
            Err(_dropped) => return Poll::Ready(Some(Err(BodyError::new("the work broke off")))),
        };
        Poll::Ready(Some(Ok(line(&event))))
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
