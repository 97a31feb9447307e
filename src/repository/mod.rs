//! Repositories: their keys, what is configured, which one a request means, and what both kinds have in common.
//!
//! What a request means is decided from definitions alone (`definitions`, `resolve`), without looking anything up.

use crate::upstream::Kind;
use crate::{cache, overlay};

mod borrow;
mod called;
mod catalog;
mod declared;
mod definitions;
mod explain;
mod gather;
mod image;
mod key;
mod member;
mod pins;
mod promote;
mod quotas;
pub mod records;
mod resolve;
mod settings;
mod virtuals;

pub use called::host_of;
pub use catalog::{CACHE, Catalog, ChangeError, FileSettings, Snapshot, Wanted, Workshop};
pub use declared::{Class, Declared, FieldError, shown};
pub use definitions::{Definition, Definitions, canonical_host};
pub use explain::{Access, By, ExplainError, Explanation, Question, State, explain};
pub use gather::{
    About, GatherError, Gathered, GatheredBlob, GatheredManifest, Gathering, MANIFEST_BYTES_MAX,
    MANIFESTS_MAX, Taken, bring,
};
pub use image::{Found, Repository};
pub use key::{Key, KeyError};
pub use member::Filter;
pub use pins::{Pin, PinError, Pinning, keep, pins, stays, unpin};
pub use promote::{Promoted, Promotion};
pub use quotas::{QuotaLine, quotas_written};
pub use resolve::{Ask, Chosen, Target, Unresolved, choose, resolve, split_prefix};
pub use settings::{
    AllSettings, LocalSettings, MemberSettings, RemoteSettings, Settings, Unfit, VirtualSettings,
    upstream_url,
};

pub use virtuals::{Config as VirtualConfig, Member, Virtual};

/// Why a repository did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A remote.
    #[error(transparent)]
    Remote(#[from] cache::Error),
    /// A local repository.
    #[error(transparent)]
    Local(#[from] overlay::Error),
    /// Nothing is written to a repository of this kind.
    #[error("this repository takes no writes")]
    ReadOnly,
}

/// What an error of one member means for a search among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is not there; another may have it.
    Absent,
    /// Nobody could say; another may have it, and if none has, this is the answer.
    Failed,
    /// It is there, and the answer is this error.
    Final,
}

impl Error {
    /// Whether it says that something is not there.
    pub fn is_absence(&self) -> bool {
        self.verdict() == Verdict::Absent
    }

    /// Whether nobody could say.
    pub fn is_outage(&self) -> bool {
        self.verdict() == Verdict::Failed
    }

    /// Whether a rule of this mirror refused it.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Remote(cache::Error::Refused(_)))
    }

    /// Whether it says that the mirror may not ask.
    fn is_offline(&self) -> bool {
        matches!(self, Self::Remote(cache::Error::Offline))
    }

    /// Whether it says that something does not exist: not that nobody may or could ask.
    pub fn is_nothing(&self) -> bool {
        self.is_absence()
            && match self {
                Self::Remote(error) => {
                    matches!(error, cache::Error::NotFound | cache::Error::StillAbsent)
                }
                Self::Local(_) | Self::ReadOnly => true,
            }
    }

    fn verdict(&self) -> Verdict {
        match self {
            Self::Remote(error) => match error {
                cache::Error::NotFound | cache::Error::StillAbsent | cache::Error::Offline => {
                    Verdict::Absent
                }
                // Docker Hub says "denied" of what does not exist (DECISIONS 1).
                cache::Error::Upstream(upstream) if upstream.kind() == Kind::Denied => {
                    Verdict::Absent
                }
                // Rules about names say who is asked for what, like patterns of members; the others are asked, and it is the answer if none
                // of them has it. What stands under a name must not be had from another because this mirror does not want it.
                cache::Error::Refused(refusal) if refusal.rule.is_of_name() => Verdict::Failed,
                cache::Error::NotAcceptable(_) | cache::Error::Refused(_) => Verdict::Final,
                cache::Error::Upstream(_)
                | cache::Error::Manifest(_)
                | cache::Error::Mismatch
                | cache::Error::Store(_)
                | cache::Error::GivenUp => Verdict::Failed,
            },
            Self::Local(
                overlay::Error::NameUnknown
                | overlay::Error::ManifestUnknown
                | overlay::Error::BlobUnknown,
            ) => Verdict::Absent,
            Self::Local(_) => Verdict::Failed,
            Self::ReadOnly => Verdict::Final,
        }
    }
}

#[cfg(test)]
mod tests;
