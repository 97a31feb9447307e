//! Lists that are brought again and again: what the configuration says of each, and how the last run went.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::report::{Outcome, Report};
use crate::bundle::asked::{Asked, ListFile, ListKind};
use crate::clock::Wall;

/// How often a list is brought unless the configuration says otherwise.
pub const EVERY: Duration = Duration::from_secs(6 * 3600);
/// How often at most.
pub const EVERY_MIN: Duration = Duration::from_secs(60);

/// One list, or several that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// What it is called.
    pub name: String,
    /// Files that list images, read anew for each run.
    pub lists: Vec<PathBuf>,
    /// Images that are named one by one.
    pub images: Vec<String>,
    /// How long from the end of one run to the next.
    pub every: Duration,
    /// Only these platforms, whatever the lists say.
    pub platforms: Vec<String>,
    /// All referrers, whatever the lists say.
    pub with_referrers: bool,
}

impl Scheduled {
    /// What a run asks for, with what stands in the lists now.
    pub fn asked(&self, texts: Vec<String>) -> Asked {
        let lists = self.lists.iter().zip(texts);
        let lists = lists.map(|(path, text)| ListFile {
            kind: ListKind::List,
            file: shown(path),
            text,
            variables: BTreeMap::new(),
        });
        Asked {
            images: self.images.clone(),
            lists: lists.collect(),
            platforms: self.platforms.clone(),
            with_referrers: self.with_referrers,
            ..Asked::default()
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// How all of them went. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Schedules(Arc<Mutex<BTreeMap<String, Status>>>);

#[derive(Debug, Default)]
struct Status {
    every: Duration,
    begun: Option<Wall>,
    is_running: bool,
    last: Option<Last>,
    succeeded: Option<Wall>,
}

#[derive(Debug)]
struct Last {
    ended: Wall,
    result: Result<Report, String>,
}

impl Schedules {
    /// These are there, and no others.
    pub fn set(&self, all: &[Scheduled]) {
        let mut known = self.lock();
        known.retain(|name, _| all.iter().any(|one| one.name == *name));
        for one in all {
            known.entry(one.name.clone()).or_default().every = one.every;
        }
    }

    /// A run begins.
    pub fn begin(&self, name: &str, now: Wall) {
        if let Some(status) = self.lock().get_mut(name) {
            status.begun = Some(now);
            status.is_running = true;
        }
    }

    /// A run is over.
    pub fn end(&self, name: &str, result: Result<Report, String>, now: Wall) {
        if let Some(status) = self.lock().get_mut(name) {
            status.is_running = false;
            if is_success(&result) {
                status.succeeded = Some(now);
            }
            status.last = Some(Last { ended: now, result });
        }
    }

    /// As `/admin/sync` tells it.
    pub fn to_json(&self) -> Value {
        let all = self.lock();
        let lines = all.iter().map(|(name, status)| {
            let last = status.last.as_ref();
            let report = last.and_then(|last| last.result.as_ref().ok());
            json!({
                "name": name,
                "every_seconds": status.every.as_secs(),
                "running": status.is_running,
                "begun": status.begun.map(|at| at.to_string()),
                "ended": last.map(|last| last.ended.to_string()),
                "succeeded": status.succeeded.map(|at| at.to_string()),
                "error": last.and_then(|last| last.result.as_ref().err()),
                "result": report,
            })
        });
        json!({ "syncs": lines.collect::<Vec<Value>>() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Status>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether every image is there and kept.
pub fn is_success(result: &Result<Report, String>) -> bool {
    let failed = |report: &Report| report.count(Outcome::Failed);
    result.as_ref().is_ok_and(|report| failed(report) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_run_outlives_the_next_one_that_fails() {
        let one = Scheduled {
            name: "base".to_owned(),
            lists: vec!["images.txt".into()],
            images: vec!["nginx".to_owned()],
            every: EVERY,
            platforms: vec!["linux/amd64".to_owned()],
            with_referrers: true,
        };
        let asked = one.asked(vec!["redis:7\n".to_owned()]);
        let wanted = asked.wanted().unwrap();
        assert_eq!(wanted.len(), 2);
        assert_eq!(wanted[1].source.to_string(), "images.txt:1");
        let at = Wall::from_ms;
        let schedules = Schedules::default();
        schedules.set(std::slice::from_ref(&one));
        schedules.begin("base", at(0));
        let told = |pointer: &str| schedules.to_json().pointer(pointer).cloned().unwrap();
        assert_eq!(told("/syncs/0/running"), true);
        let nothing = Report {
            images: Vec::new(),
            blobs: 0,
            bytes: 0,
            upstreams: Vec::new(),
        };
        schedules.end("base", Ok(nothing), at(1000));
        schedules.begin("base", at(2000));
        schedules.end("base", Err("no list".to_owned()), at(3000));
        assert_eq!(told("/syncs/0/error"), "no list");
        assert_eq!(told("/syncs/0/succeeded"), "1970-01-01T00:00:01.000Z");
        assert_eq!(told("/syncs/0/ended"), "1970-01-01T00:00:03.000Z");
        // What is not configured any more is not told of, even if it ends now.
        schedules.set(&[]);
        schedules.end("base", Err(String::new()), at(4000));
        assert_eq!(schedules.to_json(), json!({ "syncs": [] }));
    }
}
