//! The pull-through cache: what is here, else what upstream has, fetched once, verified, kept.
//!
//! Knows the store and the upstream client; knows nothing of HTTP towards clients, of routing or of who asks. Callers decide access first.
//! Invariants: no complete answer carries bytes that do not hash to their digest; an outage never reads as absence; one fetch upstream
//! serves everyone who asks meanwhile.

mod absence;
mod admission;
mod admit;
pub mod config;
mod cosign;
mod error;
mod explain;
mod fill;
mod flight;
mod follow;
mod foreign;
mod freshness;
mod keeps;
mod known;
mod learn;
mod lists;
mod manifests;
mod pins;
mod pull_through;
mod refusals;
mod reserve;
mod source;
mod status;
mod suspects;
mod tag_checks;
mod tags;

pub use admit::{Refusal, Rule, Rules};
pub use config::{Config, DeletedUpstream};
pub use cosign::{KeyError, PublicKey};
pub use error::Error;
pub use explain::{Explained, Then};
pub use fill::{Fills, HOLD_BACK};
pub use follow::{FAR_AHEAD, Promise, READ_CHUNK};
pub use keeps::{KEPT_MANIFESTS_MAX, KEPT_PIECES_MAX, KeepError, KeptImage, KeptManifest};
pub use manifests::{OpenManifest, Told, Want};
pub use pull_through::{OpenBlob, PullThrough, Shared};
pub use status::{CacheStatus, Outcome, Reason};
pub use tags::REVALIDATE_PATIENCE;
