//! What happens to local repositories, and what is kept of remotes, as the journal writes it down and the index takes it in (DECISIONS 8).
//!
//! A record names things as text, so that a journal of one version can be read by the next; whoever makes one has parsed them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::index::{ApiTokenRow, ManifestRow};
use crate::clock::Wall;
use crate::oci::{Digest, Name, Reference, Tag};
use crate::secret::Secret;

/// One change of one image of a local repository, or of what else cannot be fetched again. Taking it in twice is the same as once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Key of the repository.
    pub repo: String,
    /// Name of the image; empty where it is about the repository.
    pub name: String,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a change does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum What {
    /// The image may read a blob.
    LinkBlob {
        /// The blob.
        digest: String,
    },
    /// The image has a manifest, under these tags.
    PutManifest {
        /// The manifest.
        digest: String,
        /// The media type it was pushed with.
        media_type: String,
        /// Tags that mean it from now on.
        tags: Vec<String>,
        /// Why, for the tags' history.
        cause: String,
    },
    /// A tag is gone.
    DropTag {
        /// The tag.
        tag: String,
    },
    /// A manifest is gone, with every tag that means it.
    DropManifest {
        /// The manifest.
        digest: String,
    },
    /// The image may not read a blob any more.
    DropBlob {
        /// The blob.
        digest: String,
    },
    /// A tag of a remote means this whatever upstream says; without a digest it does not any more.
    PinTag {
        /// The tag.
        tag: String,
        /// What it means.
        digest: Option<String>,
    },
    /// An image of a remote is kept, whatever else the cache lets go of; in the place of what was kept by that reference before.
    Keep(KeepRecord),
    /// An image of a remote is kept no more by this reference. What the cache has of it may be evicted.
    Unkeep {
        /// The tag or digest.
        reference: String,
    },
    /// Somebody deleted from a remote's cache: a tag, an image, or, where no image is named, all that was cached for the upstream that the
    /// key stood for. What was kept of it goes too.
    Forget {
        /// The tag, if only that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
    },
    /// Properties of a tag.
    SetProperties {
        /// The tag.
        tag: String,
        /// These have these values from now on.
        set: BTreeMap<String, Vec<String>>,
        /// These go.
        remove: Vec<String>,
    },
    /// A repository is there from now on, or is told other things.
    PutRepository {
        /// What it is told; `store` only keeps it.
        declared: serde_json::Value,
        /// What it logs in with at its upstream.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Password>,
    },
    /// A repository is gone, with all that it had.
    DropRepository {
        /// Only what was cached under its key; what was pushed is not its own.
        #[serde(default)]
        cached_only: bool,
    },
    /// An API token counts from now on.
    PutToken {
        /// The token; `at` is when it was made.
        token: KeptToken,
    },
    /// An API token counts no more.
    DropToken {
        /// Its name.
        token: String,
    },
    /// Somebody did something that is kept on record.
    Event {
        /// Who, what, from where to where.
        event: serde_json::Value,
    },
}

/// An image that is kept, in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepRecord {
    /// The tag or digest by which it is kept.
    pub reference: String,
    /// What that means.
    pub digest: String,
    /// Every manifest of it, the one above among them.
    pub manifests: Vec<KeptManifest>,
    /// Every blob of it.
    pub blobs: Vec<String>,
    /// Whether a tag that means something else means this from now on.
    pub moves_tag: bool,
    /// What the key stood for, as `origin` in the index has it: another upstream gets nothing of this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// A manifest of an image that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptManifest {
    /// Its digest.
    pub digest: String,
    /// The media type that it is served with.
    #[serde(rename = "type")]
    pub media_type: String,
    /// What is known of it. The journal leaves it out and reads it from the bytes.
    #[serde(skip)]
    pub row: Option<ManifestRow>,
}

/// What is to be kept, and by which reference.
#[derive(Debug)]
pub struct Keeping<'a> {
    /// The tag or digest.
    pub reference: &'a Reference,
    /// What that means.
    pub digest: &'a Digest,
    /// Every manifest, the one above among them, each with its row.
    pub manifests: Vec<(Digest, ManifestRow)>,
    /// Every blob.
    pub blobs: &'a [Digest],
    /// Whether a tag that means something else means this from now on.
    pub moves_tag: bool,
    /// What the key stands for ([`super::Index::origin`]).
    pub origin: Option<String>,
}

/// An API token in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptToken {
    /// What it is called.
    pub name: String,
    /// Whose rights it has.
    pub user: String,
    /// The SHA-256 of its text.
    pub hash: String,
    /// What may be done with it.
    pub may: Vec<String>,
    /// Where.
    pub on: Vec<String>,
    /// When it is over, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

/// A password in the journal, which only its owner can read: it must be sent again after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Password(pub Secret);

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Secret::new(String::deserialize(deserializer)?)))
    }
}

/// What stands or falls together: a reader sees all of it or nothing, and so does the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Transaction(pub(super) Vec<Change>);

impl Change {
    fn new(repo: &str, name: &Name, at: Wall, what: What) -> Self {
        Self {
            repo: repo.to_owned(),
            name: name.to_string(),
            at: at.as_ms(),
            what,
        }
    }

    /// A blob was pushed or mounted.
    pub fn link_blob(repo: &str, name: &Name, digest: &Digest, at: Wall) -> Self {
        let digest = digest.to_string();
        Self::new(repo, name, at, What::LinkBlob { digest })
    }

    /// A manifest was pushed.
    pub fn put_manifest(
        repo: &str,
        name: &Name,
        (digest, media_type): (&Digest, &str),
        tags: &[Tag],
        cause: &str,
        at: Wall,
    ) -> Self {
        let what = What::PutManifest {
            digest: digest.to_string(),
            media_type: media_type.to_owned(),
            tags: tags.iter().map(Tag::to_string).collect(),
            cause: cause.to_owned(),
        };
        Self::new(repo, name, at, what)
    }

    /// A tag was deleted.
    pub fn drop_tag(repo: &str, name: &Name, tag: &Tag, at: Wall) -> Self {
        let tag = tag.to_string();
        Self::new(repo, name, at, What::DropTag { tag })
    }

    /// A manifest was deleted.
    pub fn drop_manifest(repo: &str, name: &Name, digest: &Digest, at: Wall) -> Self {
        let digest = digest.to_string();
        Self::new(repo, name, at, What::DropManifest { digest })
    }

    /// A tag of a remote was pinned, or let go.
    pub fn pin_tag(repo: &str, name: &Name, tag: &Tag, digest: Option<&Digest>, at: Wall) -> Self {
        let what = What::PinTag {
            tag: tag.to_string(),
            digest: digest.map(Digest::to_string),
        };
        Self::new(repo, name, at, what)
    }

    /// An image of a remote is kept.
    pub fn keep(repo: &str, name: &Name, keeping: Keeping<'_>, at: Wall) -> Self {
        let manifests = keeping.manifests.into_iter();
        let what = What::Keep(KeepRecord {
            reference: keeping.reference.to_string(),
            digest: keeping.digest.to_string(),
            manifests: manifests
                .map(|(digest, row)| KeptManifest {
                    digest: digest.to_string(),
                    media_type: row.media_type.clone(),
                    row: Some(row),
                })
                .collect(),
            blobs: keeping.blobs.iter().map(Digest::to_string).collect(),
            moves_tag: keeping.moves_tag,
            origin: keeping.origin,
        });
        Self::new(repo, name, at, what)
    }

    /// An image of a remote is kept no more.
    pub fn unkeep(repo: &str, name: &Name, reference: &Reference, at: Wall) -> Self {
        let reference = reference.to_string();
        Self::new(repo, name, at, What::Unkeep { reference })
    }

    /// An image, or one tag of it, was deleted from a remote's cache.
    pub fn forget(repo: &str, name: &Name, tag: Option<&Tag>, at: Wall) -> Self {
        let tag = tag.map(Tag::to_string);
        Self::new(repo, name, at, What::Forget { tag })
    }

    /// A key stands for another upstream: all that was cached under it goes.
    pub fn forget_repository(repo: &str, at: Wall) -> Self {
        Self::of_repository(repo, at, What::Forget { tag: None })
    }

    /// Properties of a tag were set, or removed.
    pub fn set_properties(
        repo: &str,
        name: &Name,
        tag: &Tag,
        (set, remove): (BTreeMap<String, Vec<String>>, Vec<String>),
        at: Wall,
    ) -> Self {
        let tag = tag.to_string();
        Self::new(repo, name, at, What::SetProperties { tag, set, remove })
    }

    /// A repository was made at run time, or is told other things.
    pub fn put_repository(
        repo: &str,
        declared: serde_json::Value,
        password: Option<Secret>,
        at: Wall,
    ) -> Self {
        let password = password.map(Password);
        Self::of_repository(repo, at, What::PutRepository { declared, password })
    }

    /// A repository was removed at run time.
    pub fn drop_repository(repo: &str, cached_only: bool, at: Wall) -> Self {
        Self::of_repository(repo, at, What::DropRepository { cached_only })
    }

    /// An API token was made.
    pub fn put_token(row: ApiTokenRow) -> Self {
        let token = KeptToken {
            name: row.name,
            user: row.user,
            hash: row.hash,
            may: row.may,
            on: row.on,
            expires: row.expires.map(Wall::as_ms),
        };
        Self::of_repository("", row.created, What::PutToken { token })
    }

    /// An API token was revoked.
    pub fn drop_token(name: &str, at: Wall) -> Self {
        let token = name.to_owned();
        Self::of_repository("", at, What::DropToken { token })
    }

    /// Something about a repository, or about none, for the audit record.
    pub fn repository_event(repo: &str, event: serde_json::Value, at: Wall) -> Self {
        Self::of_repository(repo, at, What::Event { event })
    }

    fn of_repository(repo: &str, at: Wall, what: What) -> Self {
        Self {
            repo: repo.to_owned(),
            name: String::new(),
            at: at.as_ms(),
            what,
        }
    }

    /// Something for the audit record.
    pub fn event(repo: &str, name: &Name, event: serde_json::Value, at: Wall) -> Self {
        Self::new(repo, name, at, What::Event { event })
    }

    /// A blob was deleted.
    pub fn drop_blob(repo: &str, name: &Name, digest: &Digest, at: Wall) -> Self {
        let digest = digest.to_string();
        Self::new(repo, name, at, What::DropBlob { digest })
    }
}
