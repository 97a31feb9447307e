//! What a run came to: JSON for programs, a table for people. Pure.

use std::collections::BTreeMap;

use indicatif::BinaryBytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figures::{self, Figures};
use crate::app::Ended;

/// What `GET /admin/pulled` answers.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) pulls: Vec<PulledImage>,
    #[serde(default)]
    pub(super) lock: String,
    #[serde(default)]
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PulledImage {
    repository: String,
    #[serde(rename = "image")]
    name: String,
    tag: Option<String>,
    digest: String,
    platforms: Vec<String>,
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct LeftOut {
    image: String,
    why: String,
}

/// How often each thing had been pulled before.
#[derive(Debug, Default)]
pub(super) struct Before(BTreeMap<(String, Option<String>, String), u64>);

impl Before {
    pub(super) fn of(told: Told) -> Self {
        let pulls = told.pulls.into_iter();
        Self(
            pulls
                .map(|one| ((one.name, one.tag, one.digest), one.count))
                .collect(),
        )
    }
}

#[derive(Debug, Serialize)]
struct Pull {
    image: String,
    tag: Option<String>,
    digest: String,
    platforms: Vec<String>,
    times: u64,
    repository: String,
}

#[derive(Debug, Serialize)]
struct Data {
    bytes: u64,
    evicted_bytes: u64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    exit_code: u8,
    seconds: f64,
    #[serde(flatten)]
    all: Figures,
    remotes: BTreeMap<String, Figures>,
    pulls: Vec<Pull>,
    lock: Value,
    left_out: Vec<LeftOut>,
    data: Data,
}

impl Summary {
    pub(super) fn new(
        (exit_code, seconds): (u8, f64),
        told: Told,
        before: &Before,
        ended: Option<&Ended>,
    ) -> Self {
        let remotes = ended.map_or_else(BTreeMap::new, |ended| figures::read(&ended.metrics));
        let trimmed = ended.map(|ended| ended.trimmed).unwrap_or_default();
        let pulls = told.pulls.into_iter().map(|one| {
            let key = (one.name, one.tag, one.digest);
            let times = one
                .count
                .saturating_sub(before.0.get(&key).copied().unwrap_or(0));
            let (image, tag, digest) = key;
            Pull {
                image,
                tag,
                digest,
                platforms: one.platforms,
                times,
                repository: one.repository,
            }
        });
        Self {
            exit_code,
            seconds,
            all: figures::sum(&remotes),
            remotes,
            pulls: pulls.filter(|pull| pull.times > 0).collect(),
            // We wrote it ourselves; one that is empty is an object all the same.
            lock: toml::from_str(&told.lock).unwrap_or_default(),
            left_out: told.left_out,
            data: Data {
                bytes: trimmed.cached,
                evicted_bytes: trimmed.gone,
            },
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// The table.
    pub(super) fn lines(&self) -> Vec<String> {
        let times: u64 = self.pulls.iter().map(|pull| pull.times).sum();
        let mut lines = vec![format!(
            "roadstead: {times} pulls of {} images in {:.1} s; {} kept for the next run, {} evicted",
            self.pulls.len(),
            self.seconds,
            BinaryBytes(self.data.bytes),
            BinaryBytes(self.data.evicted_bytes),
        )];
        lines.extend(self.table());
        for one in &self.left_out {
            lines.push(format!("not in the lock: {}: {}", one.image, one.why));
        }
        lines
    }

    fn table(&self) -> Vec<String> {
        let head = [
            "repository",
            "hits",
            "joined",
            "misses",
            "to clients",
            "from upstream",
            "saved",
            "requests",
            "pulls spent",
            "pulls saved",
            "from parent",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        let row = |name: &str, one: &Figures| {
            [
                name.to_owned(),
                one.hits.to_string(),
                one.joined.to_string(),
                one.misses.to_string(),
                BinaryBytes(one.bytes_to_clients).to_string(),
                BinaryBytes(one.bytes_from_upstream).to_string(),
                BinaryBytes(one.bytes_saved).to_string(),
                one.upstream_requests.to_string(),
                one.upstream_pulls.to_string(),
                one.upstream_pulls_saved.to_string(),
                BinaryBytes(one.bytes_from_parent).to_string(),
            ]
        };
        rows.extend(self.remotes.iter().map(|(name, one)| row(name, one)));
        if self.remotes.len() != 1 {
            rows.push(row("all", &self.all));
        }
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(String::len).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &[String; 11]| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, width))| {
                if column == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Trimmed;

    fn told(pulls: &Value) -> Told {
        serde_json::from_value(serde_json::json!({
            "pulls": pulls, "lock": "version = 1\n[[image]]\nreference = \"docker.io/a/b:1\"\n",
            "leftOut": [{ "image": "docker.io/a/c:1", "why": "gone" }],
        }))
        .unwrap()
    }

    fn pull(image: &str, digest: &str, count: u64) -> Value {
        serde_json::json!({
            "repository": "hub", "image": image, "tag": "1", "digest": digest, "platforms": [], "count": count,
            "mediaType": "m", "first": "", "last": "",
        })
    }

    #[test]
    fn only_this_run_counts() {
        let before = Before::of(told(&serde_json::json!([
            pull("docker.io/a/b", "x", 5),
            pull("docker.io/a/d", "x", 1)
        ])));
        let now = told(&serde_json::json!([
            pull("docker.io/a/b", "x", 7),
            pull("docker.io/a/d", "x", 1),
            pull("docker.io/a/e", "x", 2),
        ]));
        let ended = Ended {
            metrics: "roadstead_served_total{repository=\"hub\",kind=\"manifest\",outcome=\"hit\"} 4\nroadstead_served_bytes_total{repository=\"hub\"} 2048\n".to_owned(),
            trimmed: Trimmed { gone: 10, cached: 20 },
        };
        let summary = Summary::new((3, 1.5), now, &before, Some(&ended));
        let json: Value = serde_json::from_slice(&summary.to_json().unwrap()).unwrap();
        let times: Vec<_> = json["pulls"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                (
                    one["image"].as_str().unwrap(),
                    one["times"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(times, [("docker.io/a/b", 2), ("docker.io/a/e", 2)]);
        assert_eq!(json["exit_code"], 3);
        assert_eq!(
            (&json["hits"], &json["bytes_saved"]),
            (&4.into(), &2048.into())
        );
        assert_eq!(json["remotes"]["hub"]["upstream_pulls_saved"], 4);
        assert_eq!(json["lock"]["image"][0]["reference"], "docker.io/a/b:1");
        assert_eq!(json["data"]["evicted_bytes"], 10);
        let lines = summary.lines();
        assert!(
            lines[0].starts_with("roadstead: 4 pulls of 2 images in 1.5 s"),
            "{lines:?}"
        );
        assert!(
            lines[2].contains("hub") && lines[2].contains("2.00 KiB"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_run_without_a_mirror_to_the_end_has_a_summary_too() {
        let summary = Summary::new((1, 0.0), Told::default(), &Before::default(), None);
        let json: Value = serde_json::from_slice(&summary.to_json().unwrap()).unwrap();
        assert_eq!(
            (&json["hits"], &json["lock"]),
            (&0.into(), &serde_json::json!({}))
        );
    }
}
