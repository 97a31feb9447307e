//! How many lines the log gets about logins that failed: guessing must not fill it (RELIABILITY T3).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lines in a minute; the others are counted.
pub(super) const LINES_MAX: u32 = 20;
/// A minute.
const MINUTE: Duration = Duration::from_secs(60);

/// What was told in this minute.
#[derive(Debug)]
pub(super) struct Told {
    now: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    began: Instant,
    told: u32,
    untold: u64,
}

impl Told {
    pub(super) fn new() -> Self {
        let began = Instant::now();
        let (told, untold) = (0, 0);
        Self {
            now: Mutex::new(Minute {
                began,
                told,
                untold,
            }),
        }
    }

    /// One more: whether it gets a line, and how many got none in the minute that has ended.
    pub(super) fn another(&self, at: Instant) -> (bool, u64) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = now.end(at);
        let tells = now.told < LINES_MAX;
        if tells {
            now.told += 1;
        } else {
            now.untold += 1;
        }
        (tells, untold)
    }

    /// How many got none in the minute that has ended, where one has.
    pub(super) fn ended(&self, at: Instant) -> u64 {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.end(at)
    }
}

impl Minute {
    fn end(&mut self, at: Instant) -> u64 {
        if at.saturating_duration_since(self.began) < MINUTE {
            return 0;
        }
        self.began = at;
        self.told = 0;
        std::mem::take(&mut self.untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_a_minute_and_a_sum() {
        let told = Told::new();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let lines = (0..10_000).filter(|_| told.another(after(1)).0).count();
        assert_eq!(lines, 20);
        assert_eq!(told.ended(after(2)), 0, "the minute goes on");
        assert_eq!(told.another(after(61)), (true, 9_980));
        assert_eq!(told.ended(after(62)), 0);
        assert_eq!(told.ended(after(200)), 0);
        for _ in 0..21 {
            told.another(after(201));
        }
        assert_eq!(told.ended(after(262)), 1);
    }
}
