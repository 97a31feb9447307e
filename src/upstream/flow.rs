//! A response's body as it comes, with the time-outs that count: silence and dripping, never the whole (RELIABILITY P23, U5, U30).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::config::Timeouts;
use super::endpoint::Origin;
use super::error::{Error, Kind};

/// The most that is read of a body that nobody wants, so that its connection can serve again.
const DISCARD_MAX: usize = 8 * 1024;
/// How long that may take.
const DISCARD_PATIENCE: Duration = Duration::from_millis(250);

/// A body being read.
#[derive(Debug)]
pub(super) struct Flow {
    body: Incoming,
    host: Origin,
    timeouts: Timeouts,
    /// How long this span has been waited for bytes; the time that the reader takes for itself does not count.
    waited: Duration,
    /// How many bytes came in this span.
    came: u64,
}

impl Flow {
    pub(super) const fn new(body: Incoming, host: Origin, timeouts: Timeouts) -> Self {
        Self {
            body,
            host,
            timeouts,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next bytes; `None` at an end that the framing vouches for.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let start = Instant::now();
        let deadline = start + self.timeouts.idle;
        loop {
            let frame = timeout_at(deadline, self.body.frame())
                .await
                .map_err(|_elapsed| {
                    Error::new(Kind::Timeout, format!("{} stopped sending", self.host))
                })?;
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(_cut)) => {
                    return Err(Error::new(
                        Kind::Unavailable,
                        format!("{} cut the transfer short", self.host),
                    ));
                }
            };
            // Trailers and empty frames are not progress.
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                self.keep_pace(start.elapsed(), bytes.len() as u64)?;
                return Ok(Some(bytes));
            }
        }
    }

    fn keep_pace(&mut self, waited: Duration, came: u64) -> Result<(), Error> {
        self.waited += waited;
        self.came += came;
        if self.waited >= self.timeouts.idle {
            let least = self.waited.as_secs_f64()
                * f64::from(u32::try_from(self.timeouts.min_rate).unwrap_or(u32::MAX));
            #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
            let is_too_slow = (self.came as f64) < least;
            if is_too_slow {
                return Err(Error::new(
                    Kind::Timeout,
                    format!(
                        "{} sends less than {} bytes a second",
                        self.host, self.timeouts.min_rate
                    ),
                ));
            }
            self.waited = Duration::ZERO;
            self.came = 0;
        }
        Ok(())
    }

    /// The whole body, at most `max` bytes, within the time for a head and a silence.
    pub(super) async fn collect(mut self, max: usize) -> Result<Bytes, Error> {
        let patience = self.timeouts.headers + self.timeouts.idle;
        let host = self.host.clone();
        let all = timeout(patience, async {
            let mut all = BytesMut::new();
            while let Some(bytes) = self.next().await? {
                if all.len() + bytes.len() > max {
                    return Err(Error::new(
                        Kind::BadAnswer,
                        format!(
                            "{} sends more than {max} bytes where that is too many",
                            self.host
                        ),
                    ));
                }
                all.extend_from_slice(&bytes);
            }
            Ok(all.freeze())
        });
        all.await.unwrap_or_else(|_elapsed| {
            Err(Error::new(
                Kind::Timeout,
                format!("{host} took too long to send its answer"),
            ))
        })
    }
}

/// Reads what is left of a body that nobody wants, if it is little and quick: else the connection is closed. Nothing of it is kept.
pub(super) async fn discard(mut body: Incoming) {
    let _ = timeout(DISCARD_PATIENCE, async {
        let mut left = DISCARD_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let came = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(came) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    })
    .await;
}
