//! Who asks, and whether they may: decided for every request before anything is looked up (RELIABILITY P32, DECISIONS 2 and 3).

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::PoisonError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::ApiError;
use super::route::Route;
use super::{Api, Call, Config, changes, forwarded};
use crate::audit;
use crate::auth::{Auth, Identity, Refused, Right, TOKEN_MAX};
use crate::limits::{Class, Client, Limited, Passage};
use crate::oci::ErrorCode;
use crate::repository::{Chosen, Target, Unresolved, split_prefix};
use crate::secret::Secret;
use crate::telemetry::LimitLabels;

/// What is told to those who have to log in.
const NEEDS_LOGIN: &str = "this needs a login, or a token for it";
/// The longest name with a password, in Base64: the password may be a token of an issuer, of at most [`TOKEN_MAX`].
const BASIC_MAX: usize = 12 * 1024;

/// For how long a login of the same user from the same address is the same login.
const LOGIN_NOTED_FOR: Duration = Duration::from_secs(10 * 60);
/// How many of them are known; more, and some are written down more often.
pub(super) const LOGINS_NOTED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// What `Authorization` says.
#[derive(Debug)]
pub(super) enum Shown {
    Nothing,
    Basic(String, Secret),
    Bearer(String),
    /// Nothing that is understood.
    Malformed,
}

impl Call<'_> {
    /// Who asks with nothing in `Authorization`, which goes before a certificate: whoever the client's certificate names.
    pub(super) fn by_certificate(&self, auth: &Auth) -> Identity {
        let named = self.client.as_deref();
        named.map_or_else(Identity::anonymous, |name| auth.by_certificate(name))
    }

    /// What `Authorization` says.
    pub(super) fn shown(&self) -> Shown {
        let mut values = self.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return if self.headers.contains_key(header::AUTHORIZATION) {
                Shown::Malformed
            } else {
                Shown::Nothing
            };
        };
        let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
        let Some((scheme, rest)) = parts else {
            return Shown::Malformed;
        };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") && rest.len() <= TOKEN_MAX {
            return Shown::Bearer(rest.to_owned());
        }
        if !scheme.eq_ignore_ascii_case("basic") || rest.len() > BASIC_MAX {
            return Shown::Malformed;
        }
        let decoded = STANDARD.decode(rest).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((name, password)) => Shown::Basic(name.to_owned(), Secret::new(password)),
            None => Shown::Malformed,
        }
    }
}

impl Api {
    /// Who asks. Without `[auth]` nobody is asked who they are.
    pub(super) async fn identify(&self, call: &Call<'_>) -> Result<Identity, ApiError> {
        let Some(auth) = &self.config.auth else {
            return Ok(Identity::anonymous());
        };
        let found = match call.shown() {
            Shown::Nothing => Ok(call.by_certificate(auth)),
            Shown::Basic(name, password) => self.log_in(auth, call, &name, &password).await,
            Shown::Bearer(token) => match auth.by_issuer(&token, self.address(call)).await {
                Some(found) => found,
                None => auth.by_bearer(&token, self.address(call)),
            },
            Shown::Malformed => Err(Refused::Wrong),
        };
        // Tokens that this mirror issued belong to a login that was written down.
        if let Ok(identity) = &found
            && identity.name().is_some()
            && identity.is_whole()
        {
            self.logged_in(&identity.shown(), self.address(call));
        }
        found.map_err(|refused| {
            let client = Client::at(self.address(call));
            match self.config.limits.charge(&client, Class::Login) {
                Ok(()) => self.unrecognised(call, &refused),
                Err(limited) => self.limited(&limited),
            }
        })
    }

    /// A login with a password, and a line in the log when it fails.
    pub(super) async fn log_in(
        &self,
        auth: &Auth,
        call: &Call<'_>,
        name: &str,
        password: &Secret,
    ) -> Result<Identity, Refused> {
        let address = self.address(call);
        let found = auth.by_password(name, password, address).await;
        // What is wrong with an issuer's token is in the log already, and its user name says nothing.
        if let Err(refused) = &found
            && !matches!(refused, Refused::Issuer(_))
            && auth.tells()
        {
            let user: String = name.chars().take(64).collect();
            warn!(target: audit::TARGET, action = "login", outcome = "refused", user, client = %address, %refused, "a login failed");
        }
        found
    }

    /// Counts a request, and waits for its place where there are only so many.
    pub(super) async fn enter(
        &self,
        call: &Call<'_>,
        class: Class,
    ) -> Result<Option<Passage>, ApiError> {
        let client = || match call.identity.name() {
            Some(name) => Client::User(name.into()),
            None => Client::at(self.address(call)),
        };
        let passage = self.config.limits.enter(client, class).await;
        passage.map_err(|limited| self.limited(&limited))
    }

    fn limited(&self, limited: &Limited) -> ApiError {
        let limit = limited.what;
        let labels = LimitLabels { limit };
        self.metrics.limited.get_or_create(&labels).inc();
        ApiError::limited(limited)
    }

    /// Somebody showed a password that is theirs. Clients show it with every request, so it is written down now and then.
    pub(super) fn logged_in(&self, name: &str, address: IpAddr) {
        let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
        let by = (name.to_owned(), address);
        let is_known = logins
            .get(&by)
            .is_some_and(|at| at.elapsed() < LOGIN_NOTED_FOR);
        if is_known {
            return;
        }
        logins.put(by, Instant::now());
        drop(logins);
        info!(target: audit::TARGET, action = "login", outcome = "done", user = name, client = %address, "a login");
    }

    /// The client's address: of a trusted proxy's client, what the proxy says.
    pub(super) fn address(&self, call: &Call<'_>) -> IpAddr {
        let Config {
            trusted_proxies, ..
        } = &self.config;
        let client = forwarded::client(call.peer, call.headers, trusted_proxies);
        client.parse().unwrap_or_else(|_with_port| call.peer.ip())
    }

    /// The answer to somebody who says who they are, and is not believed.
    pub(super) fn unrecognised(&self, call: &Call<'_>, refused: &Refused) -> ApiError {
        match refused {
            Refused::TooMany(limited) => ApiError::too_many_logins(limited.retry_after),
            Refused::Wrong => self.challenge(call, None, None, &refused.to_string()),
            Refused::Token(_) | Refused::Issuer(_) => {
                self.challenge(call, None, Some("invalid_token"), &refused.to_string())
            }
        }
    }

    /// 401, with how to log in where that is safe.
    fn challenge(
        &self,
        call: &Call<'_>,
        scope: Option<&str>,
        error: Option<&str>,
        sentence: &str,
    ) -> ApiError {
        let Some(auth) = &self.config.auth else {
            return ApiError::unauthorized(sentence, &[]);
        };
        let base = self.base(call);
        // A password over cleartext is everybody's; on loopback nobody listens.
        let trusted = &self.config.trusted_proxies;
        let is_private = call.tls
            || forwarded::base(call.peer, call.headers, trusted)
                .is_some_and(|base| base.starts_with("https://"));
        if !is_private && !self.address(call).is_loopback() {
            let sentence = format!("{sentence}; log in over HTTPS, this connection can be read");
            return ApiError::unauthorized(&sentence, &[]);
        }
        let prefix = prefix_of(call.path);
        let service = auth.realm();
        let mut bearer = format!("Bearer realm=\"{base}{prefix}/v2/token\",service=\"{service}\"");
        for (key, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                bearer = format!("{bearer},{key}=\"{value}\"");
            }
        }
        // Docker learns here alone how to log in, goes every way that is offered, and gives up where it has no password for one (ADR 9).
        if call.path.ends_with("/v2/") || call.path.ends_with("/v2") {
            return ApiError::unauthorized(sentence, &[bearer]);
        }
        // One line each: no client parts a list of them (PROTOCOL C1).
        let basic = format!("Basic realm=\"{service}\"");
        ApiError::unauthorized(sentence, &[bearer, basic])
    }

    /// Without `[auth]`: whether the one who asks may do more than pull.
    const fn may_write(&self, call: &Call<'_>) -> bool {
        self.config.open_writes || call.identity.is_owner()
    }

    /// Whether the one who asks may do this, without a word about it.
    pub(super) fn may(&self, call: &Call<'_>, key: &str, image: &str, right: Right) -> bool {
        match &self.config.auth {
            Some(auth) => auth.may(&call.identity, key, Some(image), right),
            None => right == Right::Pull || self.may_write(call),
        }
    }

    /// Whether the one who asks may read anything of a repository.
    pub(super) fn may_see(&self, call: &Call<'_>, key: &str) -> bool {
        self.may_somewhere(call, key, Right::Pull)
    }

    /// Whether the one who asks may do anything with a repository.
    pub(super) fn may_anything(&self, call: &Call<'_>, key: &str) -> bool {
        let may = |right| self.may_somewhere(call, key, right);
        Right::ALL.into_iter().any(may)
    }

    /// What is said of a repository that is not there; of one that the one who asks may know nothing of, the same.
    pub(super) fn unknown(&self, call: &Call<'_>, key: &str) -> ApiError {
        if self.config.auth.is_some() && call.identity.name().is_none() && !self.may_see(call, key)
        {
            return self.challenge(call, None, None, "this needs a login");
        }
        ApiError::no_repository(key)
    }

    /// The same, where an image of it was asked for in the registry's own way.
    pub(super) fn unknown_image(
        &self,
        call: &Call<'_>,
        (key, named): (&str, &str),
        right: Right,
        absent: ErrorCode,
    ) -> ApiError {
        if self.config.auth.is_none() || self.may_see(call, key) {
            return Unresolved::UnknownRepository.into();
        }
        if call.identity.name().is_none() {
            let scope = scope(named, right);
            return self.challenge(call, Some(&scope), None, NEEDS_LOGIN);
        }
        ApiError::absent(absent)
    }

    /// Whether the one who asks may do this with anything of a repository.
    pub(super) fn may_somewhere(&self, call: &Call<'_>, key: &str, right: Right) -> bool {
        let auth = self.config.auth.as_ref();
        auth.is_none_or(|auth| auth.may(&call.identity, key, None, right))
    }

    /// Whether an image is named to the one who asks, in a list of images.
    pub(super) fn may_list(&self, call: &Call<'_>, key: &str, image: Option<&str>) -> bool {
        self.config.auth.as_ref().is_none_or(|auth| {
            call.identity.lists() && auth.would(&call.identity, key, image, Right::Pull)
        })
    }

    /// The one who asks may do this with an image, or this is the answer. `absent`: what it is where there is no such thing.
    pub(super) fn require(
        &self,
        call: &Call<'_>,
        (target, chosen, named): (&Target, &Chosen<'_>, &str),
        right: Right,
        absent: ErrorCode,
    ) -> Result<(), ApiError> {
        let (key, image) = (target.key.as_str(), target.name.as_str());
        if self.may(call, key, image, right) {
            return Ok(());
        }
        let Some(auth) = &self.config.auth else {
            return Err(ApiError::no_writes());
        };
        self.denied(call, key, image, right);
        let who = &call.identity;
        // A token of this repository's own name counts wherever it is shown, and a namespace stands in no scope.
        let scope = match chosen {
            Chosen::Namespace(..) => format!("{key}/{image}"),
            Chosen::Nothing | Chosen::Repository(_) => named.to_owned(),
        };
        let scope = self::scope(&scope, right);
        if who.name().is_none() || auth.would(who, key, Some(image), right) {
            let error = (!who.is_unknown()).then_some("insufficient_scope");
            return Err(self.challenge(call, Some(&scope), error, NEEDS_LOGIN));
        }
        if right == Right::Pull || !auth.would(who, key, Some(image), Right::Pull) {
            return Err(ApiError::absent(absent));
        }
        Err(ApiError::denied(right.as_str(), key, image))
    }

    /// The one who asks may do this with every image of a repository: for what is not about one image alone.
    pub(super) fn require_all(
        &self,
        call: &Call<'_>,
        key: &str,
        right: Right,
    ) -> Result<(), ApiError> {
        let Some(auth) = &self.config.auth else {
            return if right == Right::Pull || self.may_write(call) {
                Ok(())
            } else {
                Err(ApiError::no_writes())
            };
        };
        if auth.may_all(&call.identity, key, right) {
            return Ok(());
        }
        self.denied(call, key, "*", right);
        if call.identity.name().is_none() {
            return Err(self.challenge(call, None, None, "this needs a login"));
        }
        if right == Right::Pull || !auth.may_all(&call.identity, key, Right::Pull) {
            return Err(ApiError::no_repository(key));
        }
        Err(ApiError::denied(right.as_str(), key, "*"))
    }

    /// The one who asks may do this with an image, outside of the registry's own paths.
    pub(super) fn require_on(
        &self,
        call: &Call<'_>,
        (key, image): (&str, &str),
        right: Right,
    ) -> Result<(), ApiError> {
        if self.may(call, key, image, right) {
            return Ok(());
        }
        let Some(auth) = &self.config.auth else {
            return Err(ApiError::no_writes());
        };
        self.denied(call, key, image, right);
        let who = &call.identity;
        if who.name().is_none() || auth.would(who, key, Some(image), right) {
            return Err(self.challenge(call, None, None, "this needs a login"));
        }
        if auth.would(who, key, Some(image), Right::Pull) {
            return Err(ApiError::denied(right.as_str(), key, image));
        }
        Err(ApiError::no_repository(key))
    }

    /// Whether the one who asks may read every image of a repository.
    pub(super) fn may_read_all(&self, call: &Call<'_>, key: &str) -> bool {
        let auth = self.config.auth.as_ref();
        auth.is_none_or(|auth| auth.may_all(&call.identity, key, Right::Pull))
    }

    /// Where nothing but loopback keeps strangers out, a page of theirs must not come in by a name that they had pointed at this machine:
    /// whoever runs a browser here opens such pages (RELIABILITY A1).
    pub(super) fn require_own_host(&self, call: &Call<'_>, route: &Route) -> Result<(), ApiError> {
        let is_open = self.config.auth.is_none() && self.config.open_writes;
        if !is_open || !(changes(call.method) || route.tells_of_the_mirror()) {
            return Ok(());
        }
        let host = call.own_hosts.last().map_or("", String::as_str);
        let own = self
            .config
            .own_hosts
            .iter()
            .chain(call.there.hosts().keys());
        if forwarded::may_be_rebound(host, own.map(String::as_str)) {
            return Err(ApiError::foreign_host(host));
        }
        Ok(())
    }

    /// The one who asks may administer the mirror itself.
    pub(super) fn require_admin(&self, call: &Call<'_>) -> Result<(), ApiError> {
        let Some(auth) = &self.config.auth else {
            return self
                .may_write(call)
                .then_some(())
                .ok_or_else(ApiError::no_writes);
        };
        if auth.may_administer(&call.identity) {
            return Ok(());
        }
        self.denied(call, "*", "*", Right::Admin);
        if call.identity.name().is_none() {
            return Err(self.challenge(call, None, None, "administration needs a login"));
        }
        Err(ApiError::denied("admin", "*", "*"))
    }

    /// Somebody is logged in, whoever it is.
    pub(super) fn require_login(&self, call: &Call<'_>) -> Result<(), ApiError> {
        if self.config.auth.is_none() || call.identity.name().is_some() {
            return Ok(());
        }
        Err(self.challenge(call, None, None, "this needs a login"))
    }

    /// `GET /v2/` asks for a login wherever one could give anything more: clients look here alone whether they need one.
    pub(super) fn require_base(&self, call: &Call<'_>) -> Result<(), ApiError> {
        match &self.config.auth {
            Some(auth) if auth.has_logins() && call.identity.is_unknown() => {
                Err(self.challenge(call, None, None, "log in, or ask for an anonymous token"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Lists of images ask for a login where nobody may see any without.
    pub(super) fn require_listing(&self, call: &Call<'_>, is_empty: bool) -> Result<(), ApiError> {
        let needs = self.config.auth.is_some()
            && !(call.identity.lists() && (call.identity.name().is_some() || !is_empty));
        if needs {
            let scope = Some("registry:catalog:*");
            return Err(self.challenge(call, scope, None, "this needs a login"));
        }
        Ok(())
    }

    fn denied(&self, call: &Call<'_>, key: &str, image: &str, right: Right) {
        info!(
            target: audit::TARGET,
            action = "access",
            outcome = "refused",
            user = %call.identity.shown(),
            client = %self.address(call),
            right = right.as_str(),
            repository = key,
            image,
            "a request was denied"
        );
    }
}

/// What a token has to be for.
fn scope(name: &str, right: Right) -> String {
    let actions = match right {
        Right::Pull => "pull",
        Right::Push => "pull,push",
        Right::Delete => "delete",
        Right::Promote | Right::Admin => "*",
    };
    format!("repository:{name}:{actions}")
}

/// What stands before `/v2`, where it can stand in a challenge as it is.
fn prefix_of(path: &str) -> &str {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-".contains(&byte);
    let behind = split_prefix(path).map_or(path.len(), |(_, rest)| rest.len() + "/v2".len());
    let prefix = path.get(..path.len().saturating_sub(behind));
    prefix
        .filter(|prefix| prefix.bytes().all(plain))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_registry() {
        for (path, prefix) in [
            ("/v2/", ""),
            ("/v2/a/manifests/1", ""),
            ("/dev/v2/a/manifests/1", "/dev"),
            ("/v2-dev/v2/a/manifests/1", "/v2-dev"),
            (
                "/artifactory/api/docker/v2.dev/v2/a/v2/manifests/1",
                "/artifactory/api/docker/v2.dev",
            ),
            ("/api/docker/dev/v2", "/api/docker/dev"),
            ("/d\"ev/v2/", ""),
            ("/admin/audit", ""),
        ] {
            assert_eq!(prefix_of(path), prefix, "{path}");
        }
    }
}
