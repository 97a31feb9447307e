//! One request under way: the places that it holds, and the pace of its bytes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::fair::Place;
use super::{Client, Counts, Own};
use crate::bandwidth::PAUSE_MIN;
use crate::body::{Body, Chunks};

/// A request that was let in. Its places are free again when the last copy is gone, which is when both bodies are.
#[derive(Debug, Clone)]
pub struct Passage(Arc<Held>);

#[derive(Debug)]
struct Held {
    counts: Arc<Counts>,
    own: Arc<Own>,
    client: Client,
    _places: (Option<OwnedSemaphorePermit>, Option<Place>),
}

impl Passage {
    pub(super) fn new(
        counts: Arc<Counts>,
        own: Arc<Own>,
        client: Client,
        places: (Option<OwnedSemaphorePermit>, Option<Place>),
    ) -> Self {
        Self(Arc::new(Held {
            counts,
            own,
            client,
            _places: places,
        }))
    }

    /// The body of the answer, at the pace that its client has; the request is under way until it has gone.
    pub fn answer(self, body: Body) -> Body {
        let length = body.size_hint().exact();
        if body.is_end_stream() {
            return body;
        }
        let paced = stream::unfold(Some((body, self)), |state| async move {
            let (mut body, passage) = state?;
            loop {
                let frame = body.frame().await?;
                match frame {
                    Ok(frame) => {
                        // There are no trailers in what this mirror answers.
                        let Ok(bytes) = frame.into_data() else {
                            continue;
                        };
                        passage.pace(bytes.len()).await;
                        return Some((Ok(bytes), Some((body, passage))));
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Body::stream(paced, length)
    }

    /// The body of the request, at the pace that its client has.
    pub fn request(&self, body: Chunks) -> Chunks {
        let passage = self.clone();
        if !passage.is_paced() {
            return body;
        }
        Box::pin(body.then(move |chunk| {
            let passage = passage.clone();
            async move {
                passage.pace(chunk.as_ref().map_or(0, Bytes::len)).await;
                chunk
            }
        }))
    }

    fn is_paced(&self) -> bool {
        self.0.own.bytes.is_some() || self.0.counts.shared_bytes.is_some()
    }

    /// Waits until these bytes would have come.
    async fn pace(&self, bytes: usize) {
        let bytes = bytes as u64;
        if let Some(own) = &self.0.own.bytes {
            let pause = own.book(bytes, Instant::now());
            if pause >= PAUSE_MIN {
                sleep(pause).await;
            }
        }
        if let Some((shared, turns)) = &self.0.counts.shared_bytes {
            // Held while the bytes take their time, so that those who wait come one client after the other. A line that is too long is no
            // reason to break off what has begun.
            let _turn = turns.place(&self.0.client).await;
            let pause = shared.book(bytes, Instant::now());
            if pause >= PAUSE_MIN {
                sleep(pause).await;
            }
        }
    }
}
