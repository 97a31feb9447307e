//! What is left of the pulls that each credential is granted, and whether one of them may be used.
//!
//! Pure: times are arguments. A pull is reserved before it is sent and settled by what the answer tells, so that requests under way at the
//! same time do not use the same pull. Answers overtake one another: what an answer tells to a request from before the figure that is known
//! can lower it and not raise it. A figure older than its window is none, and what is not known counts as full.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Wall;
use crate::upstream::answer::{AccountQuota, Quota};

/// The window of a quota that does not tell it.
const WINDOW_UNTOLD: Duration = Duration::from_secs(3600);
/// How long after a question that is free another one is put for the sake of its figure.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// For how long a pull is promised to whoever was told of a digest.
const PROMISED_FOR: Duration = Duration::from_secs(60);
/// The most promises at a time.
const PROMISES_MAX: usize = 1024;
/// After so many HEADs in a row each of which lowered the figure with nothing else under way, they are taken to cost pulls.
const HEADS_COST: u8 = 3;

/// What a request costs by Docker Hub's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Cost {
    /// Nothing: blobs, lists.
    Nothing,
    /// Nothing, unless this upstream turns out to count them: HEAD of a manifest.
    Head,
    /// A pull: GET of a manifest.
    Pull,
}

/// The accounts of one upstream: one for each credential of its pool, in the order of the pool.
#[derive(Debug)]
pub(in crate::upstream) struct Ledger {
    keep: u64,
    accounts: Vec<Account>,
    promises: Vec<Promise>,
    /// Grows with everything that is learnt.
    order: u64,
}

#[derive(Debug)]
struct Account {
    credential: String,
    figure: Option<Figure>,
    /// Pulls sent and not settled.
    pending: u64,
    /// Pulls ever sent.
    sent: u64,
    probed: Option<Instant>,
    costly_heads: u8,
}

#[derive(Debug)]
struct Figure {
    quota: Quota,
    seen: Wall,
    expires: Instant,
    order: u64,
    /// When it was told, if that was in this run. Others may pull at the same expense.
    told: Option<Instant>,
}

/// Pulls set aside for digests that a client has been told of and will ask for.
#[derive(Debug)]
struct Promise {
    account: usize,
    digests: Vec<String>,
    left: u64,
    until: Instant,
}

/// A request that was let through.
#[derive(Debug)]
pub(in crate::upstream) struct Entry {
    account: usize,
    cost: Cost,
    is_pending: bool,
    /// What was known when it was let through.
    order: u64,
    /// What was left then, and how many pulls had been sent, where none was under way.
    quiet: Option<(u64, u64)>,
}

impl Account {
    fn figure(&self, now: Instant) -> Option<&Figure> {
        self.figure.as_ref().filter(|figure| figure.expires > now)
    }

    const fn heads_cost(&self) -> bool {
        self.costly_heads >= HEADS_COST
    }
}

impl Ledger {
    /// `keep`: pulls of each account that are never used; 0: none is kept, and nothing refused.
    pub(in crate::upstream) fn new(credentials: Vec<String>, keep: u64) -> Self {
        let account = |credential| Account {
            credential,
            figure: None,
            pending: 0,
            sent: 0,
            probed: None,
            costly_heads: 0,
        };
        Self {
            keep,
            accounts: credentials.into_iter().map(account).collect(),
            promises: Vec::new(),
            order: 0,
        }
    }

    /// The pulls that are kept.
    pub(in crate::upstream) const fn keep(&self) -> u64 {
        self.keep
    }

    /// Changes whenever there is something new to write down.
    pub(in crate::upstream) const fn order(&self) -> u64 {
        self.order
    }

    /// What is left of an account beyond what is under way and promised; `None`: unknown, which counts as full.
    fn left(&self, account: usize, now: Instant) -> Option<u64> {
        let one = self.accounts.get(account)?;
        let promised = self.promises.iter();
        let promised = promised
            .filter(|promise| promise.account == account && promise.until > now)
            .map(|promise| promise.left);
        let taken = one.pending.saturating_add(promised.sum());
        Some(one.figure(now)?.quota.remaining.saturating_sub(taken))
    }

    fn admits(&self, account: usize, cost: Cost, now: Instant) -> bool {
        let counts = match cost {
            Cost::Nothing => false,
            Cost::Head => self.accounts.get(account).is_some_and(Account::heads_cost),
            Cost::Pull => true,
        };
        let has_room = || self.left(account, now).is_none_or(|left| left > self.keep);
        self.keep == 0 || !counts || has_room()
    }

    /// Every account, the one with most left first.
    fn ordered(&self, now: Instant) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.accounts.len()).collect();
        all.sort_by_key(|account| Reverse(self.left(*account, now).unwrap_or(u64::MAX)));
        all
    }

    /// The accounts that may pay for a request, in the order in which they should.
    pub(in crate::upstream) fn candidates(
        &self,
        cost: Cost,
        digest: Option<&str>,
        now: Instant,
    ) -> Vec<usize> {
        let mut all = self.ordered(now);
        let promised = digest
            .filter(|_| cost == Cost::Pull)
            .and_then(|digest| self.promise_of(digest, now))
            .map(|promise| promise.account);
        all.retain(|account| Some(*account) == promised || self.admits(*account, cost, now));
        all.sort_by_key(|account| Some(*account) != promised);
        all
    }

    /// Lets a request through at the expense of an account; `None` where another one was faster.
    pub(in crate::upstream) fn enter(
        &mut self,
        account: usize,
        cost: Cost,
        digest: Option<&str>,
        now: Instant,
    ) -> Option<Entry> {
        let is_admitted = self.admits(account, cost, now);
        let promised = digest.filter(|_| cost == Cost::Pull).and_then(|digest| {
            let mut promises = self.promises.iter_mut();
            promises.find(|one| one.account == account && one.is_for(digest, now))
        });
        match promised {
            Some(promise) => promise.left -= 1,
            None if is_admitted => {}
            None => return None,
        }
        let order = self.order;
        let one = self.accounts.get_mut(account)?;
        let is_pending = match cost {
            Cost::Nothing => false,
            Cost::Head => one.heads_cost(),
            Cost::Pull => true,
        };
        let is_quiet = one.pending == 0;
        let quiet = one.figure(now).filter(|_| is_quiet);
        let quiet = quiet.map(|figure| (figure.quota.remaining, one.sent));
        if is_pending {
            one.pending += 1;
            one.sent += 1;
        }
        Some(Entry {
            account,
            cost,
            is_pending,
            order,
            quiet,
        })
    }

    /// Takes note of what an answer tells.
    pub(in crate::upstream) fn note(
        &mut self,
        entry: &Entry,
        quota: Quota,
        now: Instant,
        seen: Wall,
    ) {
        let Some(account) = self.accounts.get_mut(entry.account) else {
            return;
        };
        if entry.cost == Cost::Head
            && let Some((before, sent)) = entry.quiet
            && account.sent == sent
            && !entry.is_pending
        {
            let costs = quota.remaining < before;
            account.costly_heads = if costs { account.costly_heads + 1 } else { 0 }.min(HEADS_COST);
        }
        let known = account.figure(now);
        let is_late = known.is_some_and(|known| entry.order < known.order);
        let remaining = match known {
            Some(known) if is_late => quota.remaining.min(known.quota.remaining),
            _ => quota.remaining,
        };
        self.order += 1;
        account.figure = Some(Figure {
            expires: now + quota.window.unwrap_or(WINDOW_UNTOLD),
            quota: Quota { remaining, ..quota },
            seen,
            order: self.order,
            told: Some(now),
        });
    }

    /// A request is over. `is_spent`: it was, or may have been, counted, and no answer told by how much.
    pub(in crate::upstream) fn settle(&mut self, entry: &Entry, is_spent: bool) {
        let Some(account) = self.accounts.get_mut(entry.account) else {
            return;
        };
        if !entry.is_pending {
            return;
        }
        account.pending = account.pending.saturating_sub(1);
        if let Some(figure) = account.figure.as_mut().filter(|_| is_spent) {
            figure.quota.remaining = figure.quota.remaining.saturating_sub(1);
            self.order += 1;
        }
    }

    /// When a pull that none of the accounts may pay for now is worth another try.
    pub(in crate::upstream) fn retry_after(&self, now: Instant) -> Duration {
        let figures = self
            .accounts
            .iter()
            .filter_map(|account| account.figure(now));
        let ends = figures.map(|figure| figure.expires.saturating_duration_since(now));
        ends.min()
            .unwrap_or(PROBE_AGAIN)
            .max(Duration::from_secs(1))
    }

    /// The account whose figure should be learnt by a question that is free before a pull is decided: the best one where nothing was told
    /// of it lately, else one that is refused by what was told a while ago.
    pub(in crate::upstream) fn wants_probe(&self, now: Instant) -> Option<usize> {
        if self.keep == 0 {
            return None;
        }
        let rested = |account: &&Account| {
            account
                .probed
                .is_none_or(|at| now.saturating_duration_since(at) >= PROBE_AGAIN)
        };
        let is_open = |index: &usize| {
            let account = self.accounts.get(*index);
            account.is_some_and(|account| {
                let told = account.figure(now).and_then(|figure| figure.told);
                told.is_none_or(|at| now.saturating_duration_since(at) >= PROBE_AGAIN)
                    && rested(&account)
            })
        };
        let admitted = self.candidates(Cost::Pull, None, now);
        if let Some(best) = admitted.first() {
            return Some(*best).filter(is_open);
        }
        let is_old = |index: &usize| {
            let account = self.accounts.get(*index);
            account.is_some_and(|account| rested(&account) && !account.heads_cost())
        };
        self.ordered(now).into_iter().find(is_old)
    }

    /// An account has been asked about.
    pub(in crate::upstream) fn probed(&mut self, account: usize, now: Instant) {
        if let Some(account) = self.accounts.get_mut(account) {
            account.probed = Some(now);
        }
    }

    fn promise_of(&self, digest: &str, now: Instant) -> Option<&Promise> {
        let mut promises = self.promises.iter();
        promises.find(|promise| promise.is_for(digest, now))
    }

    /// Sets pulls aside for a digest and what belongs to it, once for all who ask. False where there is no room above what is kept.
    pub(in crate::upstream) fn promise(&mut self, digest: &str, pulls: u64, now: Instant) -> bool {
        if self.keep == 0 {
            return true;
        }
        self.promises
            .retain(|promise| promise.until > now && promise.left > 0);
        let until = now + PROMISED_FOR;
        let known = self.promises.iter_mut().find(|one| one.is_for(digest, now));
        if let Some(known) = known {
            known.until = until;
            return true;
        }
        let Some(account) = self.ordered(now).into_iter().next() else {
            return false;
        };
        let Some(left) = self.left(account, now) else {
            return true;
        };
        let has_room = left >= self.keep.saturating_add(pulls);
        if has_room && self.promises.len() < PROMISES_MAX {
            self.promises.push(Promise {
                account,
                digests: vec![digest.to_owned()],
                left: pulls,
                until,
            });
            return true;
        }
        false
    }

    /// What is left of a digest's promise is for these from now on: an index has come, and its children will be asked for.
    pub(in crate::upstream) fn pass_on(&mut self, from: &str, to: Vec<String>, now: Instant) {
        let promise = self.promises.iter_mut().find(|one| one.is_for(from, now));
        if let Some(promise) = promise {
            promise.digests = to;
            promise.until = now + PROMISED_FOR;
        }
    }

    /// What an account is called.
    pub(in crate::upstream) fn credential(&self, account: usize) -> String {
        let account = self.accounts.get(account);
        account.map_or_else(String::new, |account| account.credential.clone())
    }

    /// What is known of the account of a request.
    pub(in crate::upstream) fn noted(&self, entry: &Entry) -> Option<Quota> {
        let figure = self.accounts.get(entry.account)?.figure.as_ref()?;
        Some(figure.quota.clone())
    }

    /// Every account and what was last told of it.
    pub(in crate::upstream) fn shown(&self, now: Instant) -> Vec<AccountQuota> {
        let shown = |account: &Account| AccountQuota {
            credential: account.credential.clone(),
            quota: account.figure.as_ref().map(|figure| figure.quota.clone()),
            seen: account.figure.as_ref().map(|figure| figure.seen),
            is_current: account.figure(now).is_some(),
        };
        self.accounts.iter().map(shown).collect()
    }

    /// Takes up what an earlier run was told. What is older than its window is not known any more; a clock that went back makes it young.
    pub(in crate::upstream) fn restore(&mut self, told: &[AccountQuota], now: Instant, wall: Wall) {
        for account in &mut self.accounts {
            let mut same = told.iter();
            let same = same.find(|one| one.credential == account.credential);
            let Some((quota, seen)) = same.and_then(|one| one.quota.clone().zip(one.seen)) else {
                continue;
            };
            let window = quota.window.unwrap_or(WINDOW_UNTOLD);
            let left = window.saturating_sub(wall.since(seen));
            account.figure = Some(Figure {
                quota,
                seen,
                expires: now + left,
                order: 0,
                told: None,
            });
        }
    }
}

impl Promise {
    fn is_for(&self, digest: &str, now: Instant) -> bool {
        self.left > 0 && self.until > now && self.digests.iter().any(|one| one == digest)
    }
}

#[cfg(test)]
mod tests;
