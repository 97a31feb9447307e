//! How far a long command is: bars where standard error is a terminal, else a line now and then; with `--json` the events themselves.

mod bars;
mod lines;
mod tally;

use tokio::time::Instant;

use self::bars::Bars;
use self::lines::Lines;
use super::output;
use crate::bundle::progress::Event;

pub(super) use self::tally::bytes_shown;

/// What people see of one command's work.
#[derive(Debug)]
pub(super) struct Shown {
    how: How,
}

#[derive(Debug)]
enum How {
    /// Programs read every event, on standard output; the last line is the result.
    Json,
    Lines(Lines),
    Bars(Bars),
}

impl Shown {
    /// For a command called `what`.
    pub(super) fn new(json: bool, what: &str) -> Self {
        let how = if json {
            How::Json
        } else if let Some(terminal) = output::bars() {
            How::Bars(Bars::new(terminal, what))
        } else {
            How::Lines(Lines::new(what, Instant::now()))
        };
        Self { how }
    }

    /// Shows what an event says.
    pub(super) fn take(&mut self, event: &Event) {
        match &mut self.how {
            How::Json => {
                if let Ok(line) = serde_json::to_string(event) {
                    output::line(&line);
                }
            }
            How::Lines(lines) => {
                if let Some(line) = lines.take(event, Instant::now()) {
                    output::error(&line);
                }
            }
            How::Bars(bars) => bars.take(event),
        }
    }

    /// Takes the bars away; what is printed next stands where they were.
    pub(super) fn finish(self) {
        match self.how {
            How::Json | How::Lines(_) => {}
            How::Bars(bars) => bars.finish(),
        }
    }
}

/// What is told once of an event, whatever is shown meanwhile.
fn told(event: &Event) -> Option<String> {
    match event {
        Event::Image {
            image,
            digest,
            bytes,
        } => {
            let digest: String = digest.chars().take(tally::DIGEST_SHOWN).collect();
            Some(format!("{image} {digest} {}", bytes_shown(*bytes)))
        }
        Event::Trouble {
            image,
            source,
            error,
        } if source.is_empty() => Some(format!("error: {image}: {error}")),
        Event::Trouble {
            image,
            source,
            error,
        } => Some(format!("error: {source}: {image}: {error}")),
        Event::Waiting { seconds, why } => Some(format!("waiting for {seconds} s: {why}")),
        Event::Plan { .. }
        | Event::Looking { .. }
        | Event::Blob { .. }
        | Event::Done { .. }
        | Event::Failed { .. } => None,
    }
}
