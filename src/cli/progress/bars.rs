//! Progress on a terminal: a bar for each blob under way, and one for all of it.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::tally::{DIGEST_SHOWN, Tally};
use super::{bytes_shown, told};
use crate::bundle::progress::Event;

/// How many blobs have a bar at a time; the others count in the bar of all.
const BLOBS_SHOWN: usize = 8;
const BLOB: &str = "  {prefix} [{bar:24}] {msg}";
const ALL: &str = "{prefix} [{bar:24}] {msg}";

/// The bars of one command.
#[derive(Debug)]
pub(super) struct Bars {
    screen: MultiProgress,
    all: ProgressBar,
    blobs: HashMap<String, ProgressBar>,
    tally: Tally,
}

impl Bars {
    pub(super) fn new(terminal: ProgressDrawTarget, what: &str) -> Self {
        let screen = MultiProgress::with_draw_target(terminal);
        let all = screen.add(bar(ALL, 0));
        all.set_prefix(what.to_owned());
        Self {
            screen,
            all,
            blobs: HashMap::new(),
            tally: Tally::default(),
        }
    }

    pub(super) fn take(&mut self, event: &Event) {
        let now = Instant::now();
        self.tally.take(event, now);
        match event {
            Event::Looking { image } => self.all.set_message(format!("looking at {image}")),
            Event::Plan { .. } => self.all(now),
            Event::Blob { digest, done, size } => {
                self.blob(digest, *done, *size);
                self.all(now);
            }
            Event::Image { .. } | Event::Waiting { .. } | Event::Trouble { .. } => {
                if let Some(line) = told(event) {
                    let _terminal_may_be_gone = self.screen.println(line);
                }
            }
            Event::Done { .. } | Event::Failed { .. } => {}
        }
    }

    pub(super) fn finish(self) {
        for bar in self.blobs.values() {
            bar.finish_and_clear();
        }
        self.all.finish_and_clear();
    }

    fn all(&self, now: Instant) {
        self.all.set_length(self.tally.total);
        self.all.set_position(self.tally.done);
        self.all.set_message(self.tally.text(now));
    }

    fn blob(&mut self, digest: &str, done: u64, size: u64) {
        if done >= size {
            if let Some(bar) = self.blobs.remove(digest) {
                bar.finish_and_clear();
                self.screen.remove(&bar);
            }
            return;
        }
        if self.blobs.len() >= BLOBS_SHOWN && !self.blobs.contains_key(digest) {
            return;
        }
        let bar = self.blobs.entry(digest.to_owned()).or_insert_with(|| {
            let bar = self.screen.insert_before(&self.all, bar(BLOB, size));
            bar.set_prefix(digest.chars().take(DIGEST_SHOWN).collect::<String>());
            bar
        });
        bar.set_position(done);
        bar.set_message(format!("{} of {}", bytes_shown(done), bytes_shown(size)));
    }
}

fn bar(template: &str, size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "));
    // The templates are ours, and tried by the tests.
    let style = style.unwrap_or_else(|_broken| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden()).with_style(style)
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, TermLike as _};

    use super::*;

    fn on(terminal: &InMemoryTerm) -> Bars {
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        Bars::new(target, "sync")
    }

    fn blob(number: usize, done: u64) -> Event {
        let hex = number.to_string().repeat(64);
        Event::Blob {
            digest: format!("sha256:{hex}"),
            done,
            size: 4 << 20,
        }
    }

    #[test]
    fn blobs_under_way_have_a_bar_each_and_all_together_one() {
        let terminal = InMemoryTerm::new(20, 100);
        let mut bars = on(&terminal);
        bars.take(&Event::Plan {
            images: 1,
            blobs: 9,
            bytes: 36 << 20,
        });
        for number in 0..9 {
            bars.take(&blob(number, 1 << 20));
        }
        let ticked = |bars: &Bars| {
            bars.blobs.values().for_each(ProgressBar::tick);
            bars.all.tick();
            // What is drawn too soon after the last time is left out; asked for outright it is not.
            bars.screen.suspend(|| ());
            terminal.contents()
        };
        let seen = ticked(&bars);
        let rows: Vec<&str> = seen.lines().collect();
        assert_eq!(rows.len(), BLOBS_SHOWN + 1, "{seen}");
        assert_eq!(
            rows[0],
            "  sha256:000000000000 [======>                 ] 1.0 MiB of 4.0 MiB"
        );
        assert!(!seen.contains("sha256:888888888888"), "{seen}");
        assert_eq!(
            rows[8],
            "sync [======>                 ] 9.0 MiB of 36.0 MiB"
        );
        // One that is complete makes room for another.
        bars.take(&blob(0, 4 << 20));
        bars.take(&blob(8, 2 << 20));
        bars.take(&Event::Image {
            image: "ghcr.io/a:1".to_owned(),
            digest: format!("sha256:{}", "a".repeat(64)),
            bytes: 36 << 20,
        });
        let seen = ticked(&bars);
        let rows: Vec<&str> = seen.lines().collect();
        assert_eq!(
            rows[0], "ghcr.io/a:1 sha256:aaaaaaaaaaaa 36.0 MiB",
            "{seen}"
        );
        assert_eq!(rows.len(), BLOBS_SHOWN + 2, "{seen}");
        assert!(!seen.contains("sha256:000000000000"), "{seen}");
        assert!(
            seen.contains("sha256:888888888888 [============>           ] 2.0 MiB"),
            "{seen}"
        );
        assert!(rows[9].contains("13.0 MiB of 36.0 MiB"), "{seen}");
        bars.finish();
        assert_eq!(
            terminal.contents(),
            "ghcr.io/a:1 sha256:aaaaaaaaaaaa 36.0 MiB"
        );
        assert!(terminal.width() == 100);
    }
}
