//! What copying some images came to, as programs read it.

use serde::{Deserialize, Serialize};

use crate::bundle::found::Trouble;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Each image that was asked for.
    pub images: Vec<Line>,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its full name, or what was written.
    pub image: String,
    /// What it is called at the other registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What that means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How it went.
    pub outcome: Outcome,
    /// What went how.
    #[serde(flatten)]
    pub sent: Sent,
    /// Where it was asked for, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Blobs and manifests of one image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// How many were pushed.
    pub pushed: u64,
    /// How many bytes those have.
    pub bytes: u64,
    /// How many blobs the registry took from another of its images.
    pub mounted: u64,
    /// How many were there.
    pub present: u64,
}

/// How it went with one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Something of it was pushed.
    Copied,
    /// All of it was there, under its tag.
    Unchanged,
    /// It is not there, or not all of it.
    Failed,
}

impl Outcome {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

impl Sent {
    pub(super) const fn add(&mut self, other: Self) {
        self.pushed += other.pushed;
        self.bytes += other.bytes;
        self.mounted += other.mounted;
        self.present += other.present;
    }

    pub(super) const fn pushed(bytes: u64) -> Self {
        Self {
            pushed: 1,
            bytes,
            mounted: 0,
            present: 0,
        }
    }

    pub(super) const fn mounted() -> Self {
        Self {
            pushed: 0,
            bytes: 0,
            mounted: 1,
            present: 0,
        }
    }

    pub(super) const fn present() -> Self {
        Self {
            pushed: 0,
            bytes: 0,
            mounted: 0,
            present: 1,
        }
    }

    const fn is_nothing(&self) -> bool {
        self.pushed == 0 && self.mounted == 0
    }
}

impl Report {
    /// How many images went so.
    pub fn count(&self, outcome: Outcome) -> usize {
        let images = self.images.iter();
        images.filter(|line| line.outcome == outcome).count()
    }
}

impl Line {
    /// An image that is there now.
    pub(super) fn done(image: String, to: String, digest: String, sent: Sent) -> Self {
        Self {
            image,
            to: Some(to),
            digest: Some(digest),
            outcome: if sent.is_nothing() {
                Outcome::Unchanged
            } else {
                Outcome::Copied
            },
            sent,
            source: None,
            error: None,
        }
    }

    /// One that is not.
    pub(super) fn failed(image: String, source: String, error: String) -> Self {
        Self {
            image,
            to: None,
            digest: None,
            outcome: Outcome::Failed,
            sent: Sent::default(),
            source: Some(source),
            error: Some(error),
        }
    }

    pub(super) fn missing(trouble: &Trouble) -> Self {
        let source = trouble.source.to_string();
        Self::failed(trouble.image.clone(), source, trouble.why.to_string())
    }
}
