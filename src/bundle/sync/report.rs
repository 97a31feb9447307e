//! What bringing some images came to, as programs read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bundle::found::{Sought, Trouble};
use crate::repository::{Gathered, QuotaLine, Snapshot};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Each image that was asked for.
    pub images: Vec<Line>,
    /// How many blobs were not here when it began.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Who was asked.
    pub upstreams: Vec<Asking>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its full name, or what was written.
    pub image: String,
    /// What that means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How many bytes it has, manifests and all.
    pub bytes: u64,
    /// How many of them came, or would come; what several images need counts with the first.
    pub fetched: u64,
    /// How it went.
    pub outcome: Outcome,
    /// Where it was asked for, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How it went with one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Something of it had to come, or it was not kept like this before.
    Fetched,
    /// It was here and kept, just so.
    Unchanged,
    /// It is not, or not all of it.
    Failed,
}

impl Outcome {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// What one upstream was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asking {
    /// Key of its repository.
    pub repository: String,
    /// How many manifests it was asked for: where pulls are counted, each of them was one.
    pub pulls: u64,
    /// What is left of its quotas, as `/admin/quota` tells it.
    pub quotas: Vec<Value>,
}

impl Report {
    /// Before anything came but manifests.
    pub(super) fn begin(there: &Snapshot, found: &[(Sought, Gathered)]) -> Self {
        let mut pulls: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, gathered) in found {
            let count = u64::try_from(gathered.fetched.len()).unwrap_or(u64::MAX);
            *pulls.entry(gathered.repository.key()).or_default() += count;
        }
        let lines = there.quotas();
        let asked = pulls.into_iter().map(|(key, pulls)| {
            let own = lines.iter().filter(|line| line.repository == key);
            Asking {
                repository: key.to_owned(),
                pulls,
                quotas: own.map(QuotaLine::to_json).collect(),
            }
        });
        Self {
            images: Vec::new(),
            blobs: 0,
            bytes: 0,
            upstreams: asked.collect(),
        }
    }

    /// How many images went so.
    pub fn count(&self, outcome: Outcome) -> usize {
        let images = self.images.iter();
        images.filter(|line| line.outcome == outcome).count()
    }

    /// How many bytes came.
    pub fn fetched(&self) -> u64 {
        let images = self.images.iter();
        images.fold(0, |all, line| all.saturating_add(line.fetched))
    }
}

impl Line {
    /// An image that was not even found.
    pub(super) fn failed(trouble: &Trouble) -> Self {
        Self {
            image: trouble.image.clone(),
            digest: None,
            bytes: 0,
            fetched: 0,
            outcome: Outcome::Failed,
            source: Some(trouble.source.to_string()),
            error: Some(trouble.why.to_string()),
        }
    }
}
