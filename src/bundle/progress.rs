//! What a long piece of work tells while it goes on: lines of JSON from the process that has the store to the command that waits.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many lines wait for a command that does not read.
const WAITING_MAX: usize = 256;
/// How often one blob is told of while it comes.
const EVERY: Duration = Duration::from_millis(100);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// How much there is to do.
    Plan {
        /// How many images.
        images: u64,
        /// How many blobs have to come, or to go.
        blobs: u64,
        /// How many bytes they have.
        bytes: u64,
    },
    /// An image is being looked at.
    Looking {
        /// Its full name.
        image: String,
    },
    /// More of a blob is there.
    Blob {
        /// Its digest.
        digest: String,
        /// How many of its bytes are there.
        done: u64,
        /// How many it has.
        size: u64,
    },
    /// An image is complete.
    Image {
        /// Its full name.
        image: String,
        /// Its manifest or index.
        digest: String,
        /// How many bytes it has, manifests and all.
        bytes: u64,
    },
    /// Upstream wants to be left alone for a while.
    Waiting {
        /// How long.
        seconds: u64,
        /// What it said.
        why: String,
    },
    /// Something about one image went wrong.
    Trouble {
        /// Its full name, or what was written.
        image: String,
        /// Where it was asked for.
        source: String,
        /// What is wrong.
        error: String,
    },
    /// The work is done; what it came to.
    Done {
        /// Depends on the work.
        result: serde_json::Value,
    },
    /// The work ended without being done.
    Failed {
        /// Why.
        error: String,
    },
}

/// Where lines are told. Clones tell the same listener.
#[derive(Debug)]
pub struct Progress {
    lines: mpsc::Sender<Event>,
    told: Mutex<HashMap<String, Instant>>,
}

impl Progress {
    /// With the end at which the lines come out.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (lines, listener) = mpsc::channel(WAITING_MAX);
        let told = Mutex::default();
        (Self { lines, told }, listener)
    }

    /// Tells a line; waits while the listener is behind. One that has gone is told nothing.
    pub async fn tell(&self, event: Event) {
        let _gone = self.lines.send(event).await;
    }

    /// Tells how far a blob is, if that was not told a moment ago. Never waits.
    pub fn blob(&self, digest: &str, done: u64, size: u64) {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if done >= size {
            told.remove(digest);
        } else {
            match told.get(digest) {
                Some(last) if now.duration_since(*last) < EVERY => return,
                _ => told.insert(digest.to_owned(), now),
            };
        }
        drop(told);
        // Who is behind hears of it the next time.
        let _behind = self.lines.try_send(Event::Blob {
            digest: digest.to_owned(),
            done,
            size,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_blob_is_told_of_at_most_ten_times_a_second_and_at_its_end() {
        let (progress, mut listener) = Progress::new();
        for done in 0..=1000 {
            progress.blob("sha256:a", done, 1000);
        }
        tokio::time::advance(EVERY).await;
        progress.blob("sha256:b", 1, 2);
        drop(progress);
        let mut told = Vec::new();
        while let Some(Event::Blob { digest, done, .. }) = listener.recv().await {
            told.push((digest, done));
        }
        let expected = [("sha256:a", 0), ("sha256:a", 1000), ("sha256:b", 1)];
        let expected: Vec<_> = expected.map(|(d, n)| (d.to_owned(), n)).into();
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_listener_that_is_behind_or_gone() {
        let (progress, listener) = Progress::new();
        for number in 0..WAITING_MAX * 2 {
            progress.blob(&number.to_string(), 1, 2);
        }
        drop(listener);
        progress
            .tell(Event::Failed {
                error: String::new(),
            })
            .await;
    }
}
