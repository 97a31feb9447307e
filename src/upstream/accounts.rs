//! The quota of one upstream as its requests use it: [`Ledger`] behind a lock, with what must not be forgotten on the way out.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use super::answer::AccountQuota;
use super::meter::Meter;
use super::quota::{self, Cost, Entry, Ledger};
use crate::clock;

/// The accounts of one upstream.
#[derive(Debug)]
pub(super) struct Accounts {
    ledger: Mutex<Ledger>,
    probing: tokio::sync::Mutex<()>,
    meter: Meter,
}

/// A request that was let through. Dropped before it is over (its task ended), a pull that was sent counts as used.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    accounts: &'a Accounts,
    entry: Entry,
    credential: String,
    progress: Progress,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing has gone out, or what was answered costs nothing.
    Free,
    /// It went out.
    Sent,
    /// An answer told what is left.
    Told,
}

impl Accounts {
    pub(super) fn new(credentials: Vec<String>, keep: u64, meter: Meter) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(credentials, keep)),
            probing: tokio::sync::Mutex::default(),
            meter,
        }
    }

    /// The accounts that may pay for a request now, the best one first.
    pub(super) fn candidates(&self, cost: Cost, digest: Option<&str>) -> Vec<usize> {
        self.lock().candidates(cost, digest, Instant::now())
    }

    /// The name of the account that would pay for the next pull.
    pub(super) fn next_credential(&self) -> Option<String> {
        let ledger = self.lock();
        let candidates = ledger.candidates(Cost::Pull, None, Instant::now());
        candidates
            .first()
            .map(|account| ledger.credential(*account))
    }

    /// Lets a request through; `None` where another one was faster.
    pub(super) fn enter(
        &self,
        account: usize,
        cost: Cost,
        digest: Option<&str>,
    ) -> Option<Lease<'_>> {
        let mut ledger = self.lock();
        let entry = ledger.enter(account, cost, digest, Instant::now())?;
        let credential = ledger.credential(account);
        drop(ledger);
        Some(Lease {
            accounts: self,
            entry,
            credential,
            progress: Progress::Free,
        })
    }

    /// When a refused pull is worth another try, and how many pulls are kept.
    pub(super) fn refusal(&self) -> (Duration, u64) {
        let ledger = self.lock();
        (ledger.retry_after(Instant::now()), ledger.keep())
    }

    /// The account to ask about before a pull is decided.
    pub(super) fn wants_probe(&self) -> Option<usize> {
        self.lock().wants_probe(Instant::now())
    }

    /// One asks at a time; the others go by what it learns.
    pub(super) async fn one_probe(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.probing.lock().await
    }

    pub(super) fn probed(&self, account: usize) {
        self.lock().probed(account, Instant::now());
    }

    pub(super) fn promise(&self, digest: &str, pulls: u64) -> bool {
        self.lock().promise(digest, pulls, Instant::now())
    }

    pub(super) fn pass_on(&self, from: &str, to: Vec<String>) {
        self.lock().pass_on(from, to, Instant::now());
    }

    pub(super) fn keep(&self) -> u64 {
        self.lock().keep()
    }

    pub(super) fn changes(&self) -> u64 {
        self.lock().order()
    }

    pub(super) fn shown(&self) -> Vec<AccountQuota> {
        self.lock().shown(Instant::now())
    }

    /// Takes up what an earlier run was told.
    pub(super) fn restore(&self, told: &[AccountQuota]) {
        self.lock().restore(told, Instant::now(), clock::now());
        for AccountQuota {
            credential,
            quota,
            is_current,
            ..
        } in self.shown()
        {
            if let Some(quota) = quota.filter(|_| is_current) {
                self.meter.quota(&credential, &quota);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease<'_> {
    /// It goes out now.
    pub(super) const fn sent(&mut self) {
        self.progress = Progress::Sent;
    }

    /// It did not go out after all.
    pub(super) const fn held_back(&mut self) {
        self.progress = Progress::Free;
    }

    /// The upstream itself answered.
    pub(super) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        if status == StatusCode::UNAUTHORIZED {
            // What a challenge tells is about whoever has not logged in.
            self.progress = Progress::Free;
            return;
        }
        let Some(quota) = quota::quota(headers) else {
            // Only what was given counts.
            let is_given = status.is_success() || status.is_redirection();
            if !is_given && self.progress == Progress::Sent {
                self.progress = Progress::Free;
            }
            return;
        };
        self.progress = Progress::Told;
        let Self {
            accounts, entry, ..
        } = self;
        let mut ledger = accounts.lock();
        ledger.note(entry, quota, Instant::now(), clock::now());
        let noted = ledger.noted(entry);
        drop(ledger);
        if let Some(noted) = noted {
            accounts.meter.quota(&self.credential, &noted);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let is_spent = self.progress == Progress::Sent;
        self.accounts.lock().settle(&self.entry, is_spent);
    }
}
