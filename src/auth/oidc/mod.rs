//! Tokens of other issuers, as CI systems hand them to their jobs: `OpenID` Connect (RELIABILITY P36, 1.3).
//!
//! A token is looked at only when it says that it is of a configured issuer, and everything that it says is judged before a key is looked
//! up, so that what cannot count asks nobody. What an issuer is asked for is its keys and nothing else, by the [`Fetch`] that `app` gives:
//! this module knows no sockets.

mod issuer;
mod jwks;
mod token;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use tracing::warn;

use super::identity::{Identity, Voucher};
use super::tokens::TOKEN_MAX;
use super::{Auth, Refused};
use crate::audit;
use crate::clock;
use crate::tasks::Tasks;
use issuer::Issuer;

pub use issuer::is_private;
pub use jwks::Algorithm;

/// How long a login waits for an issuer's keys, and how long fetching them may take in all.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of groups that are kept of a token: what we issue carries them again.
const GROUPS_MAX: usize = 2 * 1024;
/// What JWTs begin with: `{"` in Base64.
const JWT_START: &str = "eyJ";

/// One `[[auth.oidc]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its URL, as tokens have it in `iss`.
    pub issuer: String,
    /// What `aud` must say: this mirror.
    pub audience: String,
    /// The claim that names who it is.
    pub user_claim: String,
    /// What stands before that name, and before groups: letters and a colon, which no user's name has.
    pub user_prefix: String,
    /// The claim that lists groups.
    pub groups_claim: Option<String>,
    /// What claims must say, as patterns.
    pub require: BTreeMap<String, String>,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// PEM file with more certificate authorities to trust.
    pub ca: Option<PathBuf>,
    /// Inside addresses where its keys may be, when that is another host than the issuer's.
    pub allow_addresses: Vec<IpNet>,
}

/// Fetches the document at a URL, of at most so many bytes. What is wrong is said in words that are safe to log.
#[derive(Clone)]
pub struct Fetch(Arc<dyn Fn(String, usize) -> BoxFuture<'static, Fetched> + Send + Sync>);

/// What came.
pub type Fetched = Result<Bytes, String>;

impl Fetch {
    /// By this function.
    pub fn new<F>(fetch: impl Fn(String, usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Fetched> + Send + 'static,
    {
        Self(Arc::new(move |url, max| Box::pin(fetch(url, max))))
    }

    async fn get(&self, url: String, max: usize) -> Fetched {
        (self.0)(url, max).await
    }
}

impl fmt::Debug for Fetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetch")
    }
}

/// Why the token of an issuer does not count. Its text is for the one who showed it, and says nothing that is not in the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OidcError {
    /// Too long, no JWT, or a JWT of another kind.
    #[error("it is no signed JWT of at most 8 KiB")]
    Malformed,
    /// A key, an extension or an encoding in the header.
    #[error("its header brings a key or an extension, which is not taken")]
    Header,
    /// An algorithm that is not configured for the issuer.
    #[error("it is signed with an algorithm that auth.oidc does not name")]
    Algorithm,
    /// It is for somebody else.
    #[error("its audience is not `{0}`; ask the issuer for a token with that audience")]
    Audience(String),
    /// It is over, or has not begun.
    #[error("it is over or has not begun, or its times are not numbers")]
    Times,
    /// A claim is missing, or cannot be used.
    #[error("its claim `{0}` is missing, or no text that can be used")]
    Claim(String),
    /// A claim says something else than is asked for.
    #[error("its claim `{0}` is not what auth.oidc.require asks for")]
    Required(String),
    /// No key of the issuer has this id, or it has had its look of this minute.
    #[error("its issuer has no such key; a new one is looked for once a minute")]
    Key,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// The issuer's keys are not here and cannot be had.
    #[error("the keys of its issuer cannot be had now")]
    Unreachable,
    /// It is right, and nobody here knows who that is.
    #[error("no rule is about `{0}`, nor about a group of it")]
    Nobody(String),
}

impl OidcError {
    /// Whether somebody made it up. One that is over, or for something else, was not: a forgotten job must not keep others out.
    const fn is_guess(&self) -> bool {
        match self {
            Self::Malformed | Self::Header | Self::Algorithm | Self::Key | Self::Signature => true,
            Self::Audience(_)
            | Self::Times
            | Self::Claim(_)
            | Self::Required(_)
            | Self::Unreachable
            | Self::Nobody(_) => false,
        }
    }
}

/// The configured issuers.
#[derive(Debug, Default)]
pub(super) struct Issuers(RwLock<Vec<Arc<Issuer>>>);

impl Issuers {
    /// Takes these issuers instead of those before. What is told the same keeps its keys.
    fn replace(&self, sources: Vec<(Config, Fetch)>, tasks: &Tasks, mark: impl Fn(&str) -> String) {
        let mut issuers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *issuers);
        for (config, fetch) in sources {
            let same = known.iter().find(|issuer| issuer.config == config);
            issuers.push(same.map_or_else(
                || {
                    let mark = mark(&format!("{config:?}"));
                    let issuer = Issuer::new(config, mark, fetch, tasks.clone());
                    // The first login need not wait, and the log says at once where nothing can be reached.
                    issuer.refresh_in_time();
                    issuer
                },
                Arc::clone,
            ));
        }
    }

    fn find(&self, issuer: &str) -> Option<Arc<Issuer>> {
        let issuers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = issuers.iter().find(|one| one.config.issuer == issuer);
        found.map(Arc::clone)
    }

    fn is_empty(&self) -> bool {
        let issuers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        issuers.is_empty()
    }

    /// Whether one of them still has this mark.
    pub(super) fn have(&self, mark: &str) -> bool {
        let issuers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        issuers.iter().any(|issuer| issuer.mark == mark)
    }

    /// Whether a name has the prefix of one of them.
    pub(super) fn name(&self, name: &str) -> bool {
        let issuers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        issuers
            .iter()
            .any(|issuer| name.starts_with(&issuer.config.user_prefix))
    }

    /// Fetches the keys that are due.
    pub(super) fn tidy(&self) {
        let issuers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for issuer in &*issuers {
            issuer.refresh_in_time();
        }
    }
}

impl Auth {
    /// Takes these issuers' tokens, and no others' any more. Call it within a runtime.
    pub fn trust(&self, sources: Vec<(Config, Fetch)>, tasks: &Tasks) {
        let mark = |text: &str| self.keys.stamp(text);
        self.issuers.replace(sources, tasks, mark);
    }

    /// Somebody with the token of an issuer, wherever it is shown; `None`: it is no such token. One that was made up counts as a
    /// wrong password of its address; one that is right is never held up, since nobody guesses a signature.
    pub async fn by_issuer(
        &self,
        text: &str,
        address: IpAddr,
    ) -> Option<Result<Identity, Refused>> {
        if self.issuers.is_empty() {
            return None;
        }
        let (found, whose) = if text.len() > TOKEN_MAX && text.starts_with(JWT_START) {
            (Err(OidcError::Malformed), None)
        } else {
            let claims = token::Claims::peek(text)?;
            let issuer = self.issuers.find(claims.issuer()?)?;
            let found = self.judge(text, &claims, &issuer).await;
            (found, Some(issuer))
        };
        let Err(error) = found else {
            return Some(found.map_err(Refused::Issuer));
        };
        let issuer = whose.as_ref().map_or("-", |issuer| &issuer.config.issuer);
        if self.tells() {
            warn!(target: audit::TARGET, action = "login", outcome = "refused", issuer, client = %address, %error, "the token of an issuer does not count");
        }
        if error.is_guess() {
            let allowed = self.attempts.allows_address(address);
            self.attempts.failed_address(address);
            if let Err(limited) = allowed {
                return Some(Err(Refused::TooMany(limited)));
            }
        }
        Some(Err(Refused::Issuer(error)))
    }

    async fn judge(
        &self,
        text: &str,
        claims: &token::Claims,
        issuer: &Arc<Issuer>,
    ) -> Result<Identity, OidcError> {
        let signed = token::Signed::parse(text, &issuer.config)?;
        let said = claims.judge(&issuer.config, clock::now())?;
        let name = said.name.clone();
        let current = self.current();
        let policy = &current.config.policy;
        let mut room = GROUPS_MAX;
        // Those that no rule names would only make our tokens longer.
        let mut groups = said.groups;
        groups.retain(|group| policy.names_group(group));
        groups.retain(|group| {
            let left = room.checked_sub(group.len());
            room = left.unwrap_or(0);
            left.is_some()
        });
        let identity = Identity::user(&name).vouched_for(Voucher {
            mark: issuer.mark.clone(),
            groups,
            until: Some(said.until),
        });
        issuer.verify(&signed).await?;
        if policy.knows(&identity) {
            Ok(identity)
        } else {
            Err(OidcError::Nobody(name))
        }
    }
}
