//! One client for each upstream registry: it asks, logs in, follows, waits, and hands out what came; and it pushes (`push`).
//!
//! It must not know what becomes of an answer: no store, no cache, no request of a client of ours beyond the chain of caches that it
//! came through ([`Hops`]). It compares nothing with a digest; what it hands out is what upstream sent, and may be wrong.
//!
//! Invariants:
//! - only the configured upstream is dialled, what it redirects or refers to, and the URLs in manifests that the configuration lets
//!   (`foreign`); every address is judged after the name lookup, at
//!   connect (`guard`, `connect`; RELIABILITY P30, P31);
//! - credentials go to the upstream itself and to token services that belong to it, never anywhere else and never back again after a
//!   redirect has led away (`realm`, `redirect`; P29);
//! - an end of a body is told from a cut, and a failure from an absence: [`Kind::NotFound`] is only ever upstream's own word (P28);
//! - everything that is read has a cap, every wait has an end (P23, P38);
//! - it has manners: few requests at once and no more a second than it is told, one login after a refused one in 30 seconds, waits when
//!   told to (P25); a pull that the configuration keeps back is never sent.
//!
//! Sources: OCI distribution-spec 1.1, Docker's token authentication specification, RFC 9110, RFC 8586 (`CDN-Loop`).

mod accounts;
mod answer;
mod authenticate;
mod blob;
mod challenge;
mod client;
mod config;
mod connect;
mod credential_helper;
mod credentials;
mod docker_config;
mod documents;
mod endpoint;
mod error;
mod exchange;
mod fetch;
mod flow;
mod foreign;
mod guard;
mod health;
mod hops;
mod limits;
mod lists;
mod login;
mod meter;
mod pace;
mod parent;
mod push;
mod quota;
mod realm;
mod redirect;
mod status;
mod tls;
mod token;

pub use answer::{AccountQuota, BlobHead, ManifestBody, ManifestHead, Quota, Span};
pub use blob::BlobStream;
pub use config::{
    Allowance, BuildError, CONCURRENT_DEFAULT, Config, CredentialConfig, Parent, ProxyConfig,
    SecretSource, Timeouts,
};
pub use credentials::docker_login;
pub use documents::Documents;
pub use error::{Error, Kind};
pub use fetch::Upstream;
pub use foreign::{ForeignLayers, ForeignUrl, UrlPattern, UrlPatternError};
pub use health::BreakerState;
pub use hops::{CDN_LOOP, Hops};
pub use parent::PARENT_LABEL;
pub use push::{CHUNK, PushError, Stored};

/// What we call ourselves.
const USER_AGENT_VALUE: &str = concat!("roadstead/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
