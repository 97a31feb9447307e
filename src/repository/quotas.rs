//! What is left of the pull quotas of every remote: kept in the index behind the requests, taken up at a start, and shown.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::warn;

use super::catalog::{Catalog, Snapshot};
use super::image::Repository;
use super::settings::RemoteSettings;
use crate::clock::Wall;
use crate::store::index::{QuotaRow, quotas_in};
use crate::store::{Index, IndexError};
use crate::upstream::{AccountQuota, Quota, Upstream};

/// How long a figure is at most in memory alone. One that is lost with the process is learnt again before it is used.
const WRITE_EVERY: Duration = Duration::from_secs(3);

/// The quota of one credential of one remote.
#[derive(Debug, Clone)]
pub struct QuotaLine {
    /// The remote's key.
    pub repository: String,
    /// How many pulls are kept; `None` where the remote is not configured any more.
    pub keep: Option<u64>,
    /// The credential and what was told.
    pub account: AccountQuota,
}

impl QuotaLine {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let quota = self.account.quota.as_ref();
        json!({
            "repository": self.repository,
            "credential": self.account.credential,
            "limit": quota.map(|quota| quota.limit),
            "remaining": quota.map(|quota| quota.remaining),
            "window_seconds": quota.and_then(|quota| quota.window).map(|window| window.as_secs()),
            "source": quota.and_then(|quota| quota.source.clone()),
            "seen": self.account.seen.map(|seen| seen.to_string()),
            "current": self.account.is_current,
            "keep_quota": self.keep,
        })
    }
}

impl Snapshot {
    /// What is left of the quotas of every remote, by key and in the order of its credentials.
    pub fn quotas(&self) -> Vec<QuotaLine> {
        let mut lines: Vec<QuotaLine> = Vec::new();
        for (key, upstream) in upstreams(self) {
            let keep = Some(upstream.keep_quota());
            lines.extend(upstream.quotas().into_iter().map(|account| QuotaLine {
                repository: key.to_owned(),
                keep,
                account,
            }));
        }
        // In a remote the order stays.
        lines.sort_by(|a, b| a.repository.cmp(&b.repository));
        lines
    }
}

impl Catalog {
    /// Writes down what upstreams tell of their quotas for as long as the process runs, and once more at its end.
    pub fn keep_quotas_in_background(&self) {
        let (catalog, tasks) = (self.clone(), self.tasks());
        let stopping = tasks.stopping();
        tasks.spawn("quotas", async move {
            let mut written = HashMap::new();
            loop {
                let is_last = tokio::select! {
                    () = stopping.cancelled() => true,
                    () = tokio::time::sleep(WRITE_EVERY) => false,
                };
                write(&catalog, &mut written).await;
                if is_last {
                    return;
                }
            }
        });
    }
}

/// Writes down what has changed since `written`.
async fn write(catalog: &Catalog, written: &mut HashMap<String, u64>) {
    let snapshot = catalog.current();
    let (mut rows, mut seen) = (Vec::new(), HashMap::new());
    for (key, upstream) in upstreams(&snapshot) {
        let changes = upstream.quota_changes();
        seen.insert(key.to_owned(), changes);
        if changes > 0 && written.get(key) != Some(&changes) {
            let told = upstream.quotas();
            rows.extend(told.into_iter().filter_map(|account| row(key, account)));
        }
    }
    if !rows.is_empty()
        && let Err(error) = catalog.index().put_quotas(rows).await
    {
        warn!(%error, "what is left of pull quotas could not be written down");
        return;
    }
    *written = seen;
}

/// Every remote's upstream.
fn upstreams(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Upstream)> {
    snapshot.iter().filter_map(|(key, one)| match one {
        Repository::Remote(cache) => Some((key.as_str(), cache.upstream())),
        Repository::Local(_) | Repository::Virtual(_) => None,
    })
}

/// What the index has of a remote, for its upstream.
pub(super) async fn restore(index: &Index, remote: &RemoteSettings, upstream: &Upstream) {
    match index.quotas().await {
        Ok(rows) => {
            let own = rows
                .into_iter()
                .filter(|row| row.repo == remote.key.as_str());
            let told: Vec<AccountQuota> = own.map(|row| account(row, None)).collect();
            upstream.restore_quotas(&told);
        }
        Err(error) => {
            warn!(repository = %remote.key, %error, "what was left of its pull quota cannot be read");
        }
    }
}

fn row(key: &str, account: AccountQuota) -> Option<QuotaRow> {
    let quota = account.quota?;
    Some(QuotaRow {
        repo: key.to_owned(),
        credential: account.credential,
        limit: quota.limit,
        remaining: quota.remaining,
        window: quota.window,
        source: quota.source,
        seen: account.seen?,
    })
}

/// `now`: to judge by the wall clock whether it still counts.
fn account(row: QuotaRow, now: Option<Wall>) -> AccountQuota {
    let is_current = now
        .zip(row.window)
        .is_some_and(|(now, window)| now.since(row.seen) < window);
    AccountQuota {
        credential: row.credential,
        quota: Some(Quota {
            limit: row.limit,
            remaining: row.remaining,
            window: row.window,
            source: row.source,
        }),
        seen: Some(row.seen),
        is_current,
    }
}

/// What the index in `directory` says of quotas, whether or not a mirror runs on it. `remotes` are those of the file; of one of which nothing
/// was told there is a line without figures. Blocks.
pub fn quotas_written(
    directory: &Path,
    remotes: &[&RemoteSettings],
    now: Wall,
) -> Result<Vec<QuotaLine>, IndexError> {
    let rows = quotas_in(directory)?;
    let told = rows.into_iter().map(|row| {
        let key = row.repo.clone();
        let remote = remotes.iter().find(|one| one.key.as_str() == key);
        QuotaLine {
            repository: key,
            keep: remote.map(|remote| remote.allowance.keep_quota),
            account: account(row, Some(now)),
        }
    });
    let mut lines: Vec<QuotaLine> = told.collect();
    for remote in remotes {
        let repository = remote.key.to_string();
        if lines.iter().all(|line| line.repository != repository) {
            lines.push(QuotaLine {
                repository,
                keep: Some(remote.allowance.keep_quota),
                account: AccountQuota::default(),
            });
        }
    }
    lines.sort_by(|a, b| a.repository.cmp(&b.repository));
    Ok(lines)
}
