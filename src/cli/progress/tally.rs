//! What has come of what is to come, how fast, and how long the rest takes. Pure: `now` is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::bundle::progress::Event;

/// Over how long the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(30);
/// The least time that a rate is told of.
const RATE_AFTER: Duration = Duration::from_secs(1);
/// How many measurements are kept at most.
const MEASURED_MAX: usize = 300;
/// How much of a digest people see: its algorithm and 12 digits.
pub(super) const DIGEST_SHOWN: usize = 19;

/// How far it all is.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) total: u64,
    blobs: HashMap<String, u64>,
    measured: VecDeque<(Instant, u64)>,
}

impl Tally {
    /// Takes in what an event says.
    pub(super) fn take(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Plan { bytes, .. } => self.total = *bytes,
            Event::Blob { digest, done, .. } => {
                // A blob may begin anew after a cut.
                let before = self.blobs.insert(digest.clone(), *done).unwrap_or(0);
                self.done = self.done.saturating_sub(before).saturating_add(*done);
                self.measure(now);
            }
            Event::Looking { .. }
            | Event::Image { .. }
            | Event::Waiting { .. }
            | Event::Trouble { .. }
            | Event::Done { .. }
            | Event::Failed { .. } => {}
        }
    }

    fn measure(&mut self, now: Instant) {
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) > RATE_OVER;
        while self.measured.len() >= MEASURED_MAX || self.measured.front().is_some_and(is_old) {
            self.measured.pop_front();
        }
        self.measured.push_back((now, self.done));
    }

    /// Bytes a second, of late.
    pub(super) fn rate(&self, now: Instant) -> Option<u64> {
        let (at, done) = *self.measured.front()?;
        let passed = now.duration_since(at);
        if passed < RATE_AFTER {
            return None;
        }
        let came = u128::from(self.done.saturating_sub(done));
        u64::try_from(came * 1000 / passed.as_millis().max(1)).ok()
    }

    /// How long the rest takes, if it goes on like this.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let rate = self.rate(now).filter(|rate| *rate > 0)?;
        let left = self.total.checked_sub(self.done)?;
        Some(Duration::from_secs(left.div_ceil(rate)))
    }

    /// `1.5 MiB of 3.0 MiB, 512.0 KiB/s, 3 s left`
    pub(super) fn text(&self, now: Instant) -> String {
        let mut text = bytes_shown(self.done);
        if self.total > 0 {
            text.push_str(" of ");
            text.push_str(&bytes_shown(self.total));
        }
        if let Some(rate) = self.rate(now) {
            text.push_str(", ");
            text.push_str(&bytes_shown(rate));
            text.push_str("/s");
        }
        if let Some(left) = self.left(now) {
            text.push_str(", ");
            text.push_str(&time_shown(left));
            text.push_str(" left");
        }
        text
    }
}

/// A size as people read it.
pub(in crate::cli) fn bytes_shown(bytes: u64) -> String {
    let (mut whole, mut rest) = (bytes, 0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if whole < 1024 {
            return if unit == "B" {
                format!("{whole} B")
            } else {
                format!("{whole}.{} {unit}", rest * 10 / 1024)
            };
        }
        (whole, rest) = (whole / 1024, whole % 1024);
    }
    format!("{whole}.{} TiB", rest * 10 / 1024)
}

/// A time as people read it.
fn time_shown(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(digest: &str, done: u64) -> Event {
        Event::Blob {
            digest: digest.to_owned(),
            done,
            size: 1 << 20,
        }
    }

    #[test]
    fn the_rate_is_of_late_and_tells_how_long_the_rest_takes() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut tally = Tally::default();
        tally.take(
            &Event::Plan {
                images: 1,
                blobs: 2,
                bytes: 3 << 20,
            },
            begun,
        );
        tally.take(&blob("a", 0), begun);
        assert_eq!(tally.text(begun), "0 B of 3.0 MiB");
        tally.take(&blob("a", 1 << 20), at(1));
        tally.take(&blob("b", 1 << 19), at(2));
        assert_eq!(
            tally.text(at(2)),
            "1.5 MiB of 3.0 MiB, 768.0 KiB/s, 2 s left"
        );
        // A blob that begins anew counts once.
        tally.take(&blob("b", 0), at(3));
        tally.take(&blob("b", 1 << 19), at(4));
        assert_eq!(tally.done, 3 << 19);
        // What came long ago says nothing of now.
        tally.take(&blob("b", 1 << 19), at(40));
        assert_eq!(tally.rate(at(42)), Some(0));
        assert_eq!(tally.left(at(42)), None);
        for second in 0..1000 {
            tally.take(
                &blob("b", 1),
                begun + Duration::from_millis(40_000 + second),
            );
        }
        assert!(tally.measured.len() <= MEASURED_MAX);
    }

    #[test]
    fn sizes_and_times() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (3 << 40, "3.0 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes_shown(bytes), text);
        }
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_600, "1 h 0 min"),
            (90_061, "25 h 1 min"),
        ] {
            assert_eq!(time_shown(Duration::from_secs(seconds)), text);
        }
    }
}
