//! What the mirror's metrics say of a run. Pure.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;

use crate::upstream::PARENT_LABEL;

/// What is counted as asked where no status says so; everything else was refused by ourselves.
const SENT: [&str; 3] = ["unavailable", "timeout", "bad_answer"];
/// Requests that are no registry's.
const LOGINS: [&str; 2] = ["token", "document"];

/// What came and went, of one repository or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Figures {
    /// Manifests and blobs that were given to clients without a byte of them from elsewhere.
    pub(super) hits: u64,
    /// Those that waited for another's download.
    pub(super) joined: u64,
    /// Those that had to be fetched.
    pub(super) misses: u64,
    pub(super) bytes_to_clients: u64,
    pub(super) bytes_from_upstream: u64,
    pub(super) bytes_saved: u64,
    /// Requests to the registry, and to where it redirected them.
    pub(super) upstream_requests: u64,
    /// Manifests that it gave to a GET: what pull quotas count.
    pub(super) upstream_pulls: u64,
    pub(super) upstream_pulls_saved: u64,
    /// Requests for tokens.
    pub(super) token_requests: u64,
    pub(super) parent_requests: u64,
    pub(super) parent_pulls: u64,
    pub(super) bytes_from_parent: u64,
    /// Manifests that clients got.
    #[serde(skip)]
    pub(super) manifests: u64,
}

impl Figures {
    /// Works out what was saved: what clients got that the upstream did not have to give.
    const fn settle(&mut self) {
        self.bytes_saved = self
            .bytes_to_clients
            .saturating_sub(self.bytes_from_upstream);
        self.upstream_pulls_saved = self.manifests.saturating_sub(self.upstream_pulls);
    }
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.joined += other.joined;
        self.misses += other.misses;
        self.bytes_to_clients += other.bytes_to_clients;
        self.bytes_from_upstream += other.bytes_from_upstream;
        self.bytes_saved += other.bytes_saved;
        self.upstream_requests += other.upstream_requests;
        self.upstream_pulls += other.upstream_pulls;
        self.upstream_pulls_saved += other.upstream_pulls_saved;
        self.token_requests += other.token_requests;
        self.parent_requests += other.parent_requests;
        self.parent_pulls += other.parent_pulls;
        self.bytes_from_parent += other.bytes_from_parent;
        self.manifests += other.manifests;
    }
}

/// The figures of every repository that had anything to do, by its key.
pub(super) fn read(metrics: &str) -> BTreeMap<String, Figures> {
    let mut all: BTreeMap<String, Figures> = BTreeMap::new();
    for (name, labels, count) in metrics.lines().filter_map(sample) {
        let label = |wanted: &str| {
            let mut found = labels.iter().filter(|(name, _)| *name == wanted);
            found.next().map_or("", |(_, value)| *value)
        };
        let repository = label("repository");
        let (repository, is_parent) = repository
            .strip_suffix(PARENT_LABEL)
            .map_or((repository, false), |own| (own, true));
        if repository.is_empty() || count == 0 {
            continue;
        }
        let mut more = Figures::default();
        match (name, is_parent) {
            ("roadstead_served_total", _) => {
                match label("outcome") {
                    "hit" | "revalidated" | "stale" => more.hits = count,
                    "joined" => more.joined = count,
                    _ => more.misses = count,
                }
                if label("kind") == "manifest" {
                    more.manifests = count;
                }
            }
            ("roadstead_served_bytes_total", _) => more.bytes_to_clients = count,
            ("roadstead_upstream_bytes_total", false) => more.bytes_from_upstream = count,
            ("roadstead_upstream_bytes_total", true) => more.bytes_from_parent = count,
            ("roadstead_upstream_pulls_total", false) => more.upstream_pulls = count,
            ("roadstead_upstream_pulls_total", true) => more.parent_pulls = count,
            ("roadstead_upstream_requests_total", _) => {
                let outcome = label("outcome");
                let is_status = outcome.bytes().all(|byte| byte.is_ascii_digit());
                if !is_status && !SENT.contains(&outcome) {
                    continue;
                }
                let is_login = LOGINS.contains(&label("kind"));
                match (is_parent, is_login) {
                    (false, false) => more.upstream_requests = count,
                    (false, true) => more.token_requests = count,
                    (true, _) => more.parent_requests = count,
                }
            }
            _ => continue,
        }
        *all.entry(repository.to_owned()).or_default() += more;
    }
    for figures in all.values_mut() {
        figures.settle();
    }
    all
}

/// All repositories together.
pub(super) fn sum(all: &BTreeMap<String, Figures>) -> Figures {
    let mut sum = Figures::default();
    for figures in all.values() {
        sum += *figures;
    }
    sum
}

/// A metric's name, its labels, its count.
type Sample<'a> = (&'a str, Vec<(&'a str, &'a str)>, u64);

/// `name{label="value",…} count`. Values are keys and words, and so have no quotes in them.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = line.split_once('{')?;
    let (labels, count) = rest.split_once("} ")?;
    let labels = labels.split(',').filter_map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name, value.trim_matches('"')))
    });
    Some((name, labels.collect(), count.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_become_figures() {
        let metrics = r#"# HELP roadstead_served Manifests
roadstead_served_total{repository="hub",kind="manifest",outcome="hit"} 3
roadstead_served_total{repository="hub",kind="manifest",outcome="revalidated"} 1
roadstead_served_total{repository="hub",kind="blob",outcome="miss"} 2
roadstead_served_total{repository="hub",kind="blob",outcome="joined"} 4
roadstead_served_bytes_total{repository="hub"} 1000
roadstead_upstream_requests_total{repository="hub",kind="manifest",outcome="200"} 5
roadstead_upstream_requests_total{repository="hub",kind="blob",outcome="timeout"} 1
roadstead_upstream_requests_total{repository="hub",kind="blob",outcome="breaker"} 9
roadstead_upstream_requests_total{repository="hub",kind="token",outcome="200"} 2
roadstead_upstream_requests_total{repository="hub@parent",kind="manifest",outcome="404"} 6
roadstead_upstream_bytes_total{repository="hub"} 400
roadstead_upstream_bytes_total{repository="hub@parent"} 50
roadstead_upstream_pulls_total{repository="hub"} 1
roadstead_upstream_pulls_total{repository="hub@parent"} 2
roadstead_upstream_pulls_total{repository="quiet"} 0
roadstead_upstream_bytes_total{repository="other"} 7
roadstead_connections 3
# EOF
"#;
        let all = read(metrics);
        let hub = Figures {
            hits: 4,
            joined: 4,
            misses: 2,
            bytes_to_clients: 1000,
            bytes_from_upstream: 400,
            bytes_saved: 600,
            upstream_requests: 6,
            upstream_pulls: 1,
            upstream_pulls_saved: 3,
            token_requests: 2,
            parent_requests: 6,
            parent_pulls: 2,
            bytes_from_parent: 50,
            manifests: 4,
        };
        assert_eq!(all["hub"], hub);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["hub", "other"]);
        // What one upstream gave in vain takes nothing from what another was spared.
        let sum = sum(&all);
        assert_eq!((sum.bytes_from_upstream, sum.bytes_saved), (407, 600));
    }
}
