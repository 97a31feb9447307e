//! Who asks, and what they may do.
//!
//! [`Policy`] decides, purely; [`Auth`] finds out who it is: by a password of the users file, by a token that this mirror issued, by an API
//! token, or by a token of an issuer that it is told to trust ([`oidc`]). Knows nothing of HTTP answers. Rights are looked up anew for every
//! request, so that a user or a rule that is gone counts for nothing at once.

mod api_tokens;
mod attempts;
mod identity;
mod keys;
pub mod oidc;
mod passwords;
mod pattern;
mod policy;
mod tokens;
mod told;
mod users;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

pub use api_tokens::{
    ApiToken, ApiTokenError, ApiTokens, EXPIRES_DEFAULT, Made, Scope, TOKENS_MAX,
};
pub use attempts::Limited;
pub use identity::{Grant, Identity, Voucher, is_shown_as};
pub use policy::{On, Policy, PolicyError, Right, Rights, Rule, Who};
pub use tokens::{Issued, TOKEN_MAX, TokenError};
pub use users::{Table, UsersError, hash, is_user_name};

use api_tokens::at_most;
use attempts::Attempts;
use keys::Keys;
use oidc::{Issuers, OidcError};
use passwords::Passwords;
use told::Told;
use users::Users;

use crate::audit;
use crate::clock;
use crate::secret::Secret;

/// When to come back where too many wait for a check.
const BUSY: Limited = Limited {
    retry_after: Duration::from_secs(2),
};
/// How long a token counts unless the configuration says otherwise.
pub const TOKEN_TTL: Duration = Duration::from_secs(5 * 60);

/// What vouches for the names in certificates of clients.
const CERTIFICATE: &str = "certificate";
/// What a name in a certificate has that is a URI: nothing else may have a colon.
const URI: &str = "://";

/// What finding out who asks is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The users file, as `htpasswd -B` writes it; without one there are no users.
    pub users: Option<PathBuf>,
    /// The name of this mirror in tokens: their issuer and audience, and the `service` of challenges.
    pub realm: String,
    /// How long a token counts.
    pub token_ttl: Duration,
    /// What everybody may do.
    pub policy: Policy,
    /// Whose tokens are taken for logins; [`Auth::trust`] takes them with what fetches their keys.
    pub oidc: Vec<oidc::Config>,
    /// Whether names in certificates of clients are users.
    pub certificates: bool,
}

/// Why nobody is recognised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The name or the password is wrong; nobody is told which.
    #[error("the name or the password is wrong")]
    Wrong,
    /// There were too many tries.
    #[error("too many logins failed")]
    TooMany(Limited),
    /// The token is none of ours, is over, or its user is gone or has another password.
    #[error("the token does not count: {0}")]
    Token(#[from] TokenError),
    /// The token of an issuer does not count.
    #[error("the token of the issuer does not count: {0}")]
    Issuer(OidcError),
}

/// Who asks, and what they may do. One for the whole process.
#[derive(Debug)]
pub struct Auth {
    current: RwLock<Arc<Current>>,
    passwords: Passwords,
    attempts: Attempts,
    /// Of those who may not have meant us.
    strangers: Attempts,
    /// Lines about logins that failed.
    told: Told,
    keys: Keys,
    api_tokens: Option<ApiTokens>,
    issuers: Issuers,
}

/// What may be read anew.
#[derive(Debug)]
struct Current {
    config: Config,
    users: Users,
}

/// A configuration whose users were read, and which is not in force yet.
#[derive(Debug)]
pub struct Prepared(Current);

impl Auth {
    /// Reads the users, and the keys that tokens are signed with from `data`; makes them at the first start. Blocks.
    pub fn open(config: Config, data: &std::path::Path) -> Result<Self, UsersError> {
        let users = Users::open(config.users.as_deref())?;
        let keys = Keys::open(data, clock::now()).map_err(|error| UsersError::Io {
            path: data.to_owned(),
            error: Arc::new(error),
        })?;
        Ok(Self {
            current: RwLock::new(Arc::new(Current { config, users })),
            passwords: Passwords::new(),
            attempts: Attempts::new(true),
            strangers: Attempts::new(false),
            told: Told::new(),
            keys,
            api_tokens: None,
            issuers: Issuers::default(),
        })
    }

    /// Reads what another configuration needs, and changes nothing. Blocks.
    pub fn prepare(config: Config) -> Result<Prepared, UsersError> {
        let users = Users::open(config.users.as_deref())?;
        Ok(Prepared(Current { config, users }))
    }

    /// Takes another configuration.
    pub fn take(&self, prepared: Prepared) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(prepared.0);
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Somebody with a name and a password. An issuer's token is a password for any name.
    pub async fn by_password(
        &self,
        name: &str,
        password: &Secret,
        address: IpAddr,
    ) -> Result<Identity, Refused> {
        if let Some(found) = self.by_api_password((name, password), address) {
            return found;
        }
        if let Some(found) = self.by_issuer(password.expose(), address).await {
            return found;
        }
        let current = self.current();
        let table = current.users.table();
        let user = table.get(name);
        if !self.passwords.knows(name, password, user) {
            let allows = || {
                let allowed = self.attempts.allows(name, address);
                allowed.map_err(Refused::TooMany)
            };
            allows()?;
            let turn = self.passwords.turn().await;
            let turn = turn.ok_or(Refused::TooMany(BUSY))?;
            // Those who waited together are counted one after the other.
            allows()?;
            let against = (user, table.usual_cost());
            let verified = self.passwords.verify(&turn, (name, password), against);
            if !verified.await {
                self.attempts.failed(name, address);
                return Err(Refused::Wrong);
            }
        }
        Ok(Identity::user(name))
    }

    /// The same for one who may not have meant us: a name that is no user's is no guess, and after too many guesses none is right.
    pub async fn by_password_perhaps(
        &self,
        name: &str,
        password: &Secret,
        address: IpAddr,
    ) -> Result<Identity, Refused> {
        if let Some(found) = self.by_api_password_perhaps((name, password)) {
            return found;
        }
        if let Some(found) = self.by_issuer(password.expose(), address).await {
            return found;
        }
        let current = self.current();
        let table = current.users.table();
        let user = table.get(name);
        if self.passwords.knows(name, password, user) {
            return Ok(Identity::user(name));
        }
        // Where too many wait, what everybody gets will do.
        let turn = self.passwords.turn().await.ok_or(Refused::Wrong)?;
        // All of them take as long, and are counted alike, apart from logins: who means Docker Hub holds up nobody here.
        let user = user.filter(|_| self.strangers.allows(name, address).is_ok());
        let against = (user, table.usual_cost());
        let verified = self.passwords.verify(&turn, (name, password), against);
        if verified.await {
            return Ok(Identity::user(name));
        }
        self.strangers.failed(name, address);
        Err(Refused::Wrong)
    }

    /// Somebody with a certificate that was verified. One whose name is no user's is nobody in particular, and so is one that speaks for an
    /// issuer.
    pub fn by_certificate(&self, name: &str) -> Identity {
        let is_uri = name.contains(URI) && !self.issuers.name(name);
        if !self.current().config.certificates || !(is_user_name(name) || is_uri) {
            debug!(name, "the name in a certificate is no user's");
            return Identity::anonymous();
        }
        Identity::user(name).vouched_for(Voucher {
            mark: CERTIFICATE.to_owned(),
            groups: Vec::new(),
            until: None,
        })
    }

    /// Somebody with a token. What it grants is the most that they may do with it.
    pub fn by_token(&self, token: &str) -> Result<Identity, Refused> {
        let current = self.current();
        let claims = self.keys.read(token, &current.config.realm, clock::now())?;
        if !claims.is_access() {
            return Err(TokenError::Kind.into());
        }
        if let Some(name) = claims.api_token() {
            let token = self.origin(&current, name, &claims)?;
            return Ok(claims.identity().by_api_token(token));
        }
        self.subject(&current, &claims)?;
        Ok(claims.identity())
    }

    /// Somebody with a refresh token.
    pub fn by_refresh(&self, token: &str) -> Result<Identity, Refused> {
        let current = self.current();
        let claims = self.keys.read(token, &current.config.realm, clock::now())?;
        if claims.is_access() {
            return Err(TokenError::Kind.into());
        }
        if let Some(name) = claims.api_token() {
            let token = self.origin(&current, name, &claims)?;
            return Ok(Identity::user(claims.subject()).by_api_token(token));
        }
        self.subject(&current, &claims)?;
        Ok(Identity::user(claims.subject()))
    }

    /// The user of a token is still there, with the same password.
    fn subject(&self, current: &Current, claims: &tokens::Claims) -> Result<(), Refused> {
        if claims.subject().is_empty() {
            return Ok(());
        }
        if let Some(mark) = claims.mark() {
            let is_certificate = mark == CERTIFICATE && current.config.certificates;
            let counts = is_certificate || self.issuers.have(mark);
            return counts.then_some(()).ok_or(TokenError::Subject.into());
        }
        let table = current.users.table();
        let user = table.get(claims.subject()).ok_or(TokenError::Subject)?;
        if self.keys.stamp(user) == claims.stamp() {
            Ok(())
        } else {
            Err(TokenError::Subject.into())
        }
    }

    /// A token for somebody that grants no more than this.
    pub fn issue(&self, identity: &Identity, grants: &[Grant]) -> Issued {
        let current = self.current();
        let stamp = self.stamp(&current, identity);
        let config = &current.config;
        // On somebody's word no longer than that is given for.
        let until = identity.voucher().and_then(|voucher| voucher.until);
        let left = until.map_or(config.token_ttl, |until| until.since(clock::now()));
        let ttl = at_most(identity.api_token(), config.token_ttl.min(left));
        self.keys
            .issue(&config.realm, identity, &stamp, Some(grants), ttl)
    }

    /// A token that gets others for as long as the user's password stays what it is; none for nobody, nor for who has no password here.
    pub fn issue_refresh(&self, identity: &Identity) -> Option<Issued> {
        if identity.name().is_none() || identity.voucher().is_some() {
            return None;
        }
        let current = self.current();
        let stamp = self.stamp(&current, identity);
        let config = &current.config;
        let ttl = at_most(identity.api_token(), keys::REFRESH_TTL);
        let issued = self.keys.issue(&config.realm, identity, &stamp, None, ttl);
        Some(issued)
    }

    fn stamp(&self, current: &Current, identity: &Identity) -> String {
        if let Some(token) = identity.api_token() {
            return self.stamp_of(token);
        }
        let table = current.users.table();
        identity
            .name()
            .and_then(|name| table.get(name))
            .map_or_else(String::new, |user| self.keys.stamp(user))
    }

    /// Whether somebody may do something with an image of a repository; without an image: with any of it.
    pub fn may(&self, identity: &Identity, key: &str, image: Option<&str>, right: Right) -> bool {
        self.would(identity, key, image, right) && identity.grants(key, image, right)
    }

    /// The same by the rules and the scope of their API token, whatever a token that was issued grants.
    pub fn would(&self, identity: &Identity, key: &str, image: Option<&str>, right: Right) -> bool {
        let current = self.current();
        let scope = identity.api_token().map(|token| &token.scope);
        current.config.policy.decide(identity, key, image, right)
            && scope.is_none_or(|scope| scope.allows(key, image, right))
    }

    /// Whom a word means where records are asked for somebody: `@group` the members of one, else a user and the members of a group of that
    /// name. `None` where there is no such group.
    pub fn meant(&self, word: &str) -> Option<Vec<String>> {
        self.current().config.policy.meant(word)
    }

    /// Whether the users file has somebody of that name.
    pub fn has_user(&self, name: &str) -> bool {
        self.current().users.table().get(name).is_some()
    }

    /// The place of the first rule that gives a right, among all rules.
    pub fn rule_for(
        &self,
        identity: &Identity,
        key: &str,
        image: &str,
        right: Right,
    ) -> Option<usize> {
        let current = self.current();
        current
            .config
            .policy
            .rule_for(identity, key, Some(image), right)
    }

    /// Whether somebody may do something with every image of a repository.
    pub fn may_all(&self, identity: &Identity, key: &str, right: Right) -> bool {
        let current = self.current();
        let scope = identity.api_token().map(|token| &token.scope);
        // An issued token is for images by name.
        current.config.policy.decide_all(identity, key, right)
            && identity.is_whole()
            && scope.is_none_or(|scope| scope.allows_all(key, right))
    }

    /// Whether somebody may administer the mirror itself.
    pub fn may_administer(&self, identity: &Identity) -> bool {
        let current = self.current();
        let scope = identity.api_token().map(|token| &token.scope);
        current.config.policy.administers(identity)
            && identity.is_whole()
            && scope.is_none_or(Scope::administers)
    }

    /// Whether a login could give anything that nobody has without one.
    pub fn has_logins(&self) -> bool {
        self.current().config.policy.has_logins()
    }

    /// The `service` of challenges.
    pub fn realm(&self) -> String {
        self.current().config.realm.clone()
    }

    /// Whether the log gets a line about one more login that failed. Those that get none are counted in a line of their own.
    pub fn tells(&self) -> bool {
        let (tells, untold) = self.told.another(Instant::now());
        tell(untold);
        tells
    }

    /// What is forgotten is forgotten, and what is due is fetched: call it every minute, or every address that ever failed stays in memory.
    pub fn tidy(&self) {
        self.attempts.tidy();
        self.strangers.tidy();
        self.issuers.tidy();
        tell(self.told.ended(Instant::now()));
    }
}

fn tell(untold: u64) {
    if untold > 0 {
        warn!(target: audit::TARGET, action = "login", outcome = "refused", logins = untold, "more logins failed than were told of one by one");
    }
}
