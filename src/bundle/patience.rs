//! Waiting where upstream says that it is asked too often, and saying so.

use std::time::Duration;

use tokio::time::sleep;

use super::found::{Search, Sought, Trouble, Why};
use super::progress::Event;
use crate::cache;
use crate::repository::{Error, GatherError, Gathered};
use crate::upstream::Kind;

/// How often one piece waits because upstream says that it is asked too often.
pub const WAITS_MAX: u32 = 5;
/// The longest such wait; after a longer one somebody may want to run it again.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

impl Search<'_> {
    /// What each is made of; those that upstream puts off are asked for again.
    pub async fn gather_patiently(
        &self,
        sought: Vec<Sought>,
    ) -> (Vec<(Sought, Gathered)>, Vec<Trouble>) {
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        let mut left = sought;
        for waited in 0.. {
            let again = left.clone();
            let (gathered, troubles) = self.gather(left).await;
            found.extend(gathered);
            left = Vec::new();
            let mut longest: Option<(Duration, String)> = None;
            for trouble in troubles {
                let one = again
                    .iter()
                    .find(|one| one.image.to_string() == trouble.image);
                match (pause(&trouble.why), one) {
                    (Some(wait), Some(one)) if waited < WAITS_MAX => {
                        longest = longest.max(Some((wait, trouble.why.to_string())));
                        left.push(one.clone());
                    }
                    _ => failed.push(trouble),
                }
            }
            let Some((wait, told)) = longest else {
                break;
            };
            self.wait(wait, &told).await;
        }
        (found, failed)
    }

    /// Waits as upstream asks for, and says so.
    pub(super) async fn wait(&self, wait: Duration, why: &str) {
        let told = Event::Waiting {
            seconds: wait.as_secs(),
            why: why.to_owned(),
        };
        self.progress.tell(told).await;
        sleep(wait).await;
    }
}

/// How long to wait before something is asked for again, where that is worth it.
fn pause(why: &Why) -> Option<Duration> {
    match why {
        Why::Tags(error)
        | Why::Gather(GatherError::Repository(error) | GatherError::Piece(_, error)) => {
            pause_of(error)
        }
        Why::Nowhere(_)
        | Why::LeftOut(_)
        | Why::NoImage(_)
        | Why::Pick(_)
        | Why::Twice(..)
        | Why::Gather(_)
        | Why::Lock(_) => None,
    }
}

/// Upstream asks for a pause, and not for a long one. What is kept of a quota is no pause: it is not for work in the background.
pub(super) fn pause_of(error: &Error) -> Option<Duration> {
    match error {
        Error::Remote(cache::Error::Upstream(error)) if error.kind() == Kind::RateLimited => {
            error.retry_after().filter(|wait| *wait <= WAIT_MAX)
        }
        Error::Remote(_) | Error::Local(_) | Error::ReadOnly => None,
    }
}
