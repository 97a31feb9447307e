//! Logging in with an API token: as a password, directly, and by the tokens that were issued to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tracing::warn;

use super::{ApiToken, ApiTokenError, ApiTokens, Made, Wanted, secret};
use crate::audit;
use crate::auth::tokens::Claims;
use crate::auth::{Auth, Current, Identity, Refused, TokenError};
use crate::clock;
use crate::secret::Secret;

/// The name that every token may be shown with, besides its user's.
const ANY_USER: &str = "token";

impl Auth {
    /// With these API tokens; without, there are none.
    #[must_use]
    pub fn with_api_tokens(self, tokens: ApiTokens) -> Self {
        Self {
            api_tokens: Some(tokens),
            ..self
        }
    }

    /// Somebody with a Bearer token: an API token, or one that this mirror issued.
    pub fn by_bearer(&self, token: &str, address: IpAddr) -> Result<Identity, Refused> {
        let found = if secret::has_form(token) {
            self.guess(&self.current(), None, token, address)
        } else {
            self.by_token(token)
        };
        if let Err(refused) = &found
            && self.tells()
        {
            warn!(target: audit::TARGET, action = "login", outcome = "refused", client = %address, %refused, "a token was refused");
        }
        found.map_err(|refused| match refused {
            Refused::Wrong => TokenError::ApiToken.into(),
            Refused::TooMany(_) | Refused::Token(_) | Refused::Issuer(_) => refused,
        })
    }

    /// Somebody whose password has the form of an API token; `None`: it is a password.
    pub(in crate::auth) fn by_api_password(
        &self,
        (name, password): (&str, &Secret),
        address: IpAddr,
    ) -> Option<Result<Identity, Refused>> {
        let text = password.expose();
        secret::has_form(text).then(|| self.guess(&self.current(), Some(name), text, address))
    }

    /// The same for one who may not have meant us: it is no guess.
    pub(in crate::auth) fn by_api_password_perhaps(
        &self,
        (name, password): (&str, &Secret),
    ) -> Option<Result<Identity, Refused>> {
        let text = password.expose();
        secret::has_form(text).then(|| {
            let found = self.by_api_token(&self.current(), Some(name), text);
            found.ok_or(Refused::Wrong)
        })
    }

    /// A token that is right is no guess and always counts; those that nobody has count against the address.
    fn guess(
        &self,
        current: &Current,
        name: Option<&str>,
        text: &str,
        address: IpAddr,
    ) -> Result<Identity, Refused> {
        if let Some(identity) = self.by_api_token(current, name, text) {
            return Ok(identity);
        }
        // Whoever has the text of one that is over has not guessed it: a forgotten job must not keep others out.
        let tokens = self.api_tokens.as_ref();
        if tokens.is_some_and(|tokens| tokens.by_text(text).is_some()) {
            return Err(Refused::Wrong);
        }
        let allowed = self.attempts.allows_address(address);
        allowed.map_err(Refused::TooMany)?;
        self.attempts.failed_address(address);
        Err(Refused::Wrong)
    }

    fn by_api_token(&self, current: &Current, name: Option<&str>, text: &str) -> Option<Identity> {
        let known = self.api_tokens.as_ref()?.by_text(text)?;
        let token = &known.token;
        if name.is_some_and(|name| name != token.user && name != ANY_USER) {
            return None;
        }
        let now = clock::now();
        current.users.table().get(&token.user)?;
        if token.is_over(now) {
            return None;
        }
        known.note_use(now);
        Some(Identity::user(&token.user).by_api_token(Arc::clone(token)))
    }

    /// The API token that an issued token came from, if that still counts.
    pub(in crate::auth) fn origin(
        &self,
        current: &Current,
        name: &str,
        claims: &Claims,
    ) -> Result<Arc<ApiToken>, TokenError> {
        let tokens = self.api_tokens.as_ref();
        let known = tokens
            .and_then(|tokens| tokens.by_name(name))
            .ok_or(TokenError::ApiToken)?;
        let (token, now) = (&known.token, clock::now());
        let counts = token.user == claims.subject()
            && self.stamp_of(token) == claims.stamp()
            && !token.is_over(now)
            && current.users.table().get(&token.user).is_some();
        if !counts {
            return Err(TokenError::ApiToken);
        }
        known.note_use(now);
        Ok(Arc::clone(token))
    }

    /// A mark of an API token: one of the same name that is made later has another.
    pub(in crate::auth) fn stamp_of(&self, token: &ApiToken) -> String {
        self.keys.stamp(&token.hash)
    }

    /// Makes a token as `POST /admin/tokens` takes it.
    pub async fn create_api_token(&self, sent: &Value, who: &str) -> Result<Made, ApiTokenError> {
        let wanted = Wanted::read(sent).map_err(ApiTokenError::Unfit)?;
        if self.current().users.table().get(&wanted.user).is_none() {
            return Err(ApiTokenError::NoUser(wanted.user));
        }
        self.api_tokens()?.create(wanted, who).await
    }

    /// Revokes a token.
    pub async fn revoke_api_token(&self, name: &str, who: &str) -> Result<(), ApiTokenError> {
        self.api_tokens()?.revoke(name, who).await
    }

    /// Every token, as `GET /admin/tokens` tells them.
    pub fn list_api_tokens(&self) -> Vec<Value> {
        let tokens = self.api_tokens.as_ref();
        tokens.map_or_else(Vec::new, |tokens| tokens.list(clock::now()))
    }

    /// Writes down what is only in memory of when they were used.
    pub async fn write_api_token_uses(&self) {
        if let Some(tokens) = &self.api_tokens {
            tokens.write_uses().await;
        }
    }

    fn api_tokens(&self) -> Result<&ApiTokens, ApiTokenError> {
        self.api_tokens.as_ref().ok_or(ApiTokenError::NotNow)
    }
}

/// How long something may last that is issued for a token.
pub(in crate::auth) fn at_most(token: Option<&ApiToken>, ttl: Duration) -> Duration {
    let left = token.and_then(|token| token.expires);
    left.map_or(ttl, |expires| ttl.min(expires.since(clock::now())))
}
