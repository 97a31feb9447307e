//! Fetching what is planned, and keeping each image as soon as all of it is here.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt as _};

use super::plan::{Need, Plan};
use super::report::{Line, Outcome};
use super::{AT_ONCE, Sync};
use crate::bundle::found::Sought;
use crate::bundle::patience::{WAITS_MAX, pause_of};
use crate::bundle::progress::Event;
use crate::oci::Digest;
use crate::repository::{Error, Gathered, PinError, Repository, bring, keep, stays};
use crate::store::Hold;

/// What became of a blob for one image.
type Came = (usize, Result<Piece, Error>);

/// A blob that was asked for.
#[derive(Debug, Clone, Copy)]
enum Piece {
    /// It is here, and so many bytes had to come.
    Here(u64),
    /// Clients have it from elsewhere.
    Elsewhere,
}

/// An image under way.
#[derive(Debug, Default)]
struct State {
    left: usize,
    fetched: u64,
    elsewhere: BTreeSet<Digest>,
    error: Option<String>,
}

impl Sync<'_> {
    /// What would have to come, where nothing is to.
    pub(super) async fn outlook(&self, plan: &Plan) -> Vec<Line> {
        let mut lines = Vec::new();
        for (number, (sought, gathered)) in plan.images.iter().enumerate() {
            let state = State {
                fetched: plan.missing_of(number),
                ..State::default()
            };
            let is_kept = is_kept(sought, gathered, &state.elsewhere).await;
            lines.push(line((sought, gathered), &state, is_kept.unwrap_or(false)));
        }
        lines
    }

    /// Brings all that is planned.
    pub(super) async fn brought(&self, plan: &Plan) -> Vec<Line> {
        // From here on nothing of it is evicted, so that what came first is there when the last has come.
        let pieces = plan.pieces();
        let _holds: Vec<Hold> = pieces.iter().map(|(one, _)| self.store.hold(one)).collect();
        let mut states: Vec<State> = plan.images.iter().map(|_| State::default()).collect();
        for need in &plan.blobs {
            for number in &need.of {
                if let Some(state) = states.get_mut(*number) {
                    state.left += 1;
                }
            }
        }
        let mut lines: HashMap<usize, Line> = HashMap::new();
        for (number, state) in states.iter().enumerate() {
            if state.left == 0 {
                lines.extend(self.finished(plan, number, state).await);
            }
        }
        let failed: Vec<AtomicBool> = states.iter().map(|_| AtomicBool::new(false)).collect();
        let blobs = plan.blobs.iter();
        let blobs: Vec<_> = blobs.map(|need| self.blob(plan, need, &failed)).collect();
        let mut blobs = stream::iter(blobs).buffer_unordered(AT_ONCE);
        while let Some((need, came)) = blobs.next().await {
            for (number, result) in came {
                let Some(state) = states.get_mut(number) else {
                    continue;
                };
                state.left -= 1;
                match result {
                    Ok(Piece::Here(bytes)) => state.fetched += bytes,
                    Ok(Piece::Elsewhere) => {
                        state.elsewhere.insert(need.digest.clone());
                    }
                    Err(error) => {
                        let first = || format!("{} of it cannot be had: {error}", need.digest);
                        state.error.get_or_insert_with(first);
                    }
                }
                if state.left == 0 {
                    // Fills go on by themselves meanwhile.
                    lines.extend(self.finished(plan, number, state).await);
                }
            }
        }
        let mut lines: Vec<(usize, Line)> = lines.into_iter().collect();
        lines.sort_by_key(|(number, _)| *number);
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Brings a blob for all that need it, one after the other: the first fetches, of the others upstream says whether they have it.
    async fn blob<'p>(
        &self,
        plan: &Plan,
        need: &'p Need,
        failed: &[AtomicBool],
    ) -> (&'p Need, Vec<Came>) {
        let (mut came, mut is_here) = (Vec::new(), need.is_here);
        for number in &need.of {
            let (Some((_, gathered)), Some(failed)) =
                (plan.images.get(*number), failed.get(*number))
            else {
                continue;
            };
            // An image that is not going to be complete costs no more.
            if failed.load(Ordering::Relaxed) {
                came.push((*number, Ok(Piece::Here(0))));
                continue;
            }
            let result = self.one(gathered, need, is_here).await;
            is_here |= matches!(result, Ok(Piece::Here(_)));
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            came.push((*number, result));
        }
        (need, came)
    }

    async fn one(&self, gathered: &Gathered, need: &Need, is_here: bool) -> Result<Piece, Error> {
        let from = (self.search.hops, &gathered.name);
        let digest = need.digest.to_string();
        let mut waits = 0;
        loop {
            let mut done = 0;
            let came = |bytes| {
                done += bytes;
                self.search.progress.blob(&digest, done, need.size);
            };
            let error = match bring(&gathered.repository, from, &need.digest, came).await {
                Ok(true) => return Ok(Piece::Here(done)),
                // A short one comes at once.
                Ok(false) if is_here => return Ok(Piece::Here(0)),
                Ok(false) => {
                    self.search.progress.blob(&digest, need.size, need.size);
                    return Ok(Piece::Here(need.size));
                }
                Err(error) if need.is_foreign && error.is_absence() => {
                    return Ok(Piece::Elsewhere);
                }
                Err(error) => error,
            };
            match pause_of(&error) {
                Some(wait) if waits < WAITS_MAX => self.search.wait(wait, &error.to_string()).await,
                _ => return Err(error),
            }
            waits += 1;
        }
    }

    /// All of an image that can come has come.
    async fn finished(&self, plan: &Plan, number: usize, state: &State) -> Option<(usize, Line)> {
        let (sought, gathered) = plan.images.get(number)?;
        let kept = match &state.error {
            Some(error) => Err(error.clone()),
            None => self
                .keep(sought, gathered, &state.elsewhere)
                .await
                .map_err(|error| error.to_string()),
        };
        let mut line = line((sought, gathered), state, *kept.as_ref().unwrap_or(&false));
        let (image, progress) = (line.image.clone(), self.search.progress);
        match kept {
            Ok(_) => {
                let (digest, bytes) = (gathered.digest.to_string(), line.bytes);
                let event = Event::Image {
                    image,
                    digest,
                    bytes,
                };
                progress.tell(event).await;
            }
            Err(error) => {
                let source = sought.source.to_string();
                line.outcome = Outcome::Failed;
                (line.source, line.error) = (Some(source.clone()), Some(error.clone()));
                let event = Event::Trouble {
                    image,
                    source,
                    error,
                };
                progress.tell(event).await;
            }
        }
        Some((number, line))
    }

    /// Keeps it, if it is not kept just so; answers whether it was.
    async fn keep(
        &self,
        sought: &Sought,
        gathered: &Gathered,
        elsewhere: &BTreeSet<Digest>,
    ) -> Result<bool, PinError> {
        let Repository::Remote(remote) = &gathered.repository else {
            return Ok(true);
        };
        let mut was = true;
        for (reference, image) in stays(gathered, sought.image.reference(), elsewhere) {
            if remote
                .is_kept_as(&gathered.name, &reference, &image)
                .await?
            {
                continue;
            }
            was = false;
            keep(remote, (&gathered.name, &reference), &image, self.who).await?;
        }
        Ok(was)
    }
}

/// Whether all of it is kept, under all of its names.
async fn is_kept(
    sought: &Sought,
    gathered: &Gathered,
    elsewhere: &BTreeSet<Digest>,
) -> Result<bool, PinError> {
    let Repository::Remote(remote) = &gathered.repository else {
        return Ok(true);
    };
    for (reference, image) in stays(gathered, sought.image.reference(), elsewhere) {
        if !remote
            .is_kept_as(&gathered.name, &reference, &image)
            .await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn line((sought, gathered): (&Sought, &Gathered), state: &State, was_kept: bool) -> Line {
    Line {
        image: sought.image.to_string(),
        digest: Some(gathered.digest.to_string()),
        bytes: gathered.bytes(),
        fetched: state.fetched,
        outcome: if was_kept && state.fetched == 0 {
            Outcome::Unchanged
        } else {
            Outcome::Fetched
        },
        source: None,
        error: None,
    }
}
