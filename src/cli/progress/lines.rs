//! Progress where nobody watches a terminal: what to say, and when. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::bytes_shown;
use super::tally::Tally;
use crate::bundle::progress::Event;

/// How often it is said how far it is.
const EVERY: Duration = Duration::from_secs(10);

/// The lines of one command.
#[derive(Debug)]
pub(super) struct Lines {
    what: String,
    tally: Tally,
    said: Instant,
}

impl Lines {
    pub(super) fn new(what: &str, now: Instant) -> Self {
        Self {
            what: what.to_owned(),
            tally: Tally::default(),
            said: now,
        }
    }

    /// What to say of an event, if anything.
    pub(super) fn take(&mut self, event: &Event, now: Instant) -> Option<String> {
        self.tally.take(event, now);
        match event {
            Event::Plan {
                images,
                blobs,
                bytes,
            } => {
                self.said = now;
                let (what, bytes) = (&self.what, bytes_shown(*bytes));
                Some(format!("{what}: {images} images, {blobs} blobs, {bytes}"))
            }
            Event::Blob { .. } => self.now_and_then(now),
            Event::Looking { .. }
            | Event::Image { .. }
            | Event::Waiting { .. }
            | Event::Trouble { .. }
            | Event::Done { .. }
            | Event::Failed { .. } => super::told(event),
        }
    }

    fn now_and_then(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.said) < EVERY {
            return None;
        }
        self.said = now;
        Some(format!("{}: {}", self.what, self.tally.text(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_an_image_and_one_now_and_then() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut lines = Lines::new("sync", begun);
        let digest = format!("sha256:{}", "a".repeat(64));
        let image = || "docker.io/library/nginx:1.27".to_owned();
        let plan = Event::Plan {
            images: 2,
            blobs: 7,
            bytes: 40 << 20,
        };
        let blob = |done| Event::Blob {
            digest: digest.clone(),
            done,
            size: 40 << 20,
        };
        let mut said = Vec::new();
        for (second, event) in [
            (0, Event::Looking { image: image() }),
            (1, plan),
            (2, blob(1 << 20)),
            (3, blob(2 << 20)),
            (12, blob(11 << 20)),
            (13, blob(12 << 20)),
            (
                14,
                Event::Image {
                    image: image(),
                    digest: digest.clone(),
                    bytes: 40 << 20,
                },
            ),
            (
                15,
                Event::Trouble {
                    image: "redis".to_owned(),
                    source: "images.yaml:3".to_owned(),
                    error: "it is not there".to_owned(),
                },
            ),
        ] {
            said.extend(lines.take(&event, at(second)));
        }
        assert_eq!(
            said,
            [
                "sync: 2 images, 7 blobs, 40.0 MiB",
                "sync: 11.0 MiB of 40.0 MiB, 1.0 MiB/s, 29 s left",
                "docker.io/library/nginx:1.27 sha256:aaaaaaaaaaaa 40.0 MiB",
                "error: images.yaml:3: redis: it is not there",
            ]
        );
        let waiting = Event::Waiting {
            seconds: 30,
            why: "a.example asks for a pause".to_owned(),
        };
        assert_eq!(
            lines.take(&waiting, at(16)).as_deref(),
            Some("waiting for 30 s: a.example asks for a pause")
        );
    }
}
