//! Checking passwords: bcrypt once for each, at the same cost for users that are not there.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::recent::recent;
use crate::secret::Secret;

/// How long a password that was right is not checked again.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// How many are remembered.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// How many are checked at a time: bcrypt takes a whole processor.
const AT_A_TIME: usize = 2;
/// The least that bcrypt can cost.
const MIN_COST: u32 = 4;
/// The most bytes of a password that bcrypt looks at.
const PASSWORD_MAX: usize = 72;
/// How many wait for a check; more are told to come back.
const WAITING_MAX: usize = 64;

/// The right to have a password checked.
pub(super) type Turn = Arc<OwnedSemaphorePermit>;

/// Somebody who waits for a turn.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checked passwords, and those that were right of late.
#[derive(Debug)]
pub(super) struct Passwords {
    /// Of this process alone: what is remembered of passwords tells nothing without it.
    key: Option<hmac::Key>,
    known: Mutex<LruCache<[u8; 32], Instant>>,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Behind the cost in a hash that no password has: what a user who is not there is checked against.
    nobody: String,
}

impl Passwords {
    pub(super) fn new() -> Self {
        let mut random = [0; 32];
        // Without randomness there is no key, and nothing is remembered.
        let filled = aws_lc_rs::rand::fill(&mut random);
        let nobody = super::users::hash_at(MIN_COST, "").unwrap_or_default();
        Self {
            nobody: nobody.get(7..).unwrap_or_default().to_owned(),
            key: filled
                .ok()
                .map(|()| hmac::Key::new(hmac::HMAC_SHA256, &random)),
            known: Mutex::new(recent(KNOWN_MAX)),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether this password of this user was right a moment ago, and still is.
    pub(super) fn knows(&self, name: &str, password: &Secret, hash: Option<&Arc<str>>) -> bool {
        let Some(hash) = hash else { return false };
        let Some(key) = self.remembered(name, password, hash) else {
            return false;
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&key).is_some_and(|at| at.elapsed() < KNOWN_FOR)
    }

    /// Waits for a turn; none where too many wait already.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if waiting >= WAITING_MAX {
            return None;
        }
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        Some(Arc::new(turn))
    }

    /// Whether the password is right. For a user who is not there it takes as long as `cost` says, which is what users have.
    pub(super) async fn verify(
        &self,
        turn: &Turn,
        (name, password): (&str, &Secret),
        (hash, cost): (Option<&Arc<str>>, u32),
    ) -> bool {
        // Held until the check has ended, even where its caller goes away.
        let turn = Arc::clone(turn);
        let against: Arc<str> = hash.map_or_else(
            || format!("$2y${cost:02}${}", self.nobody).into(),
            Arc::clone,
        );
        let (tried, is_there) = (password.clone(), hash.is_some());
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let fits = tried.expose().len() <= PASSWORD_MAX;
            let cut = tried.expose().as_bytes();
            let cut = cut.get(..PASSWORD_MAX).unwrap_or(cut);
            bcrypt::verify(cut, &against).unwrap_or(false) && fits
        });
        let is_right = checked.await.unwrap_or(false) && is_there;
        if let (true, Some(hash)) = (is_right, hash)
            && let Some(key) = self.remembered(name, password, hash)
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.put(key, Instant::now());
        }
        is_right
    }

    /// What is remembered: a password for a name with the hash that it was checked against, so that another hash is another password.
    fn remembered(&self, name: &str, password: &Secret, hash: &str) -> Option<[u8; 32]> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [name, password.expose(), hash] {
            // Lengths first, so that no two triples are one text.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        Some(key)
    }
}
