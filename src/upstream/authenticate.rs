//! Answering challenges (PROTOCOL C; RELIABILITY P29, C8, C10, C17).
//!
//! The scheme of the last challenge is remembered, so that a new image costs no extra round trip. Bearer goes before Basic; where
//! Bearer is offered and refused, Basic is no way around it. Basic goes to the upstream itself and nowhere else.

use std::sync::{Mutex, PoisonError};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};

use super::challenge::{self, Challenge};
use super::credentials::{Refused, Slot};
use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::login::Login;
use super::realm::{self, TokenHost};
use super::token::{self, Key, Token, Tokens};

/// Logs in to one upstream.
#[derive(Debug)]
pub(super) struct Authenticator {
    own: Origin,
    token_hosts: Vec<TokenHost>,
    tokens: Tokens,
    scheme: Mutex<Option<Scheme>>,
}

/// How the upstream wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Bearer {
        realm: String,
        service: Option<String>,
    },
    Basic,
}

/// What a request shows.
#[derive(Debug)]
pub(super) struct Proof<'a> {
    header: HeaderValue,
    token: Option<Token>,
    /// Held while a login is tried for the first time.
    _turn: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl Proof<'_> {
    /// The value of `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Whether it is a password and not a token.
    pub(super) const fn is_basic(&self) -> bool {
        self.token.is_none()
    }
}

/// Why there is no proof.
#[derive(Debug)]
pub(super) enum Failure {
    /// The login of this slot is refused; another slot may do.
    Refused,
    /// Something that no other login helps with.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Refused> for Failure {
    fn from(_: Refused) -> Self {
        Self::Refused
    }
}

impl Authenticator {
    pub(super) const fn new(own: Origin, token_hosts: Vec<TokenHost>, tokens: Tokens) -> Self {
        Self {
            own,
            token_hosts,
            tokens,
            scheme: Mutex::new(None),
        }
    }

    /// What to show without having been asked, for `scope`: as the last challenge wanted it.
    pub(super) async fn ready<'a>(
        &self,
        slot: &'a Slot,
        login: Option<&Login>,
        scope: &str,
    ) -> Result<Option<Proof<'a>>, Failure> {
        let scheme = self.lock().clone();
        let proof = match scheme {
            None => return Ok(None),
            Some(Scheme::Basic) if login.is_none() => return Ok(None),
            Some(scheme) => self.prove(&scheme, slot, login, scope, None).await,
        };
        if let Err(Failure::Error(_)) = &proof {
            // The token service may have moved: let upstream say where it is now.
            *self.lock() = None;
        }
        proof.map(Some)
    }

    /// Answers a 401. `tried` is what the request showed.
    pub(super) async fn answer<'a>(
        &self,
        headers: &HeaderMap,
        slot: &'a Slot,
        login: Option<&Login>,
        scope: &str,
        tried: Option<Proof<'a>>,
    ) -> Result<Proof<'a>, Failure> {
        let lines = headers.get_all(WWW_AUTHENTICATE);
        if lines.iter().next().is_none() {
            return Err(self.denied().into());
        }
        let challenges = challenge::parse(lines.iter().map(HeaderValue::as_bytes));
        let mut wanted = None;
        let mut refusal = None;
        for challenge in &challenges {
            if let Challenge::Bearer { realm, service } = challenge {
                match realm::judge(&self.own, realm, login.is_some(), &self.token_hosts) {
                    Ok(_) => {
                        wanted = Some(Scheme::Bearer {
                            realm: realm.clone(),
                            service: service.clone(),
                        });
                        break;
                    }
                    Err(error) => refusal = refusal.or(Some(error)),
                }
            }
        }
        let scheme = match (wanted, refusal) {
            (Some(scheme), _) => scheme,
            (None, Some(error)) => return Err(error.with_status(401).into()),
            (None, None) if challenges.contains(&Challenge::Basic) => Scheme::Basic,
            (None, None) => {
                let sentence = format!(
                    "{} asks for a login in a way that is not spoken here",
                    self.own
                );
                return Err(Error::new(Kind::BadAnswer, sentence)
                    .with_status(401)
                    .into());
            }
        };
        let rejected = match (&scheme, tried) {
            (Scheme::Basic, Some(tried)) if tried.is_basic() => {
                if let Some(login) = login {
                    slot.refuse(login, &self.own.to_string());
                }
                return Err(Failure::Refused);
            }
            (_, tried) => tried.and_then(|tried| tried.token),
        };
        if scheme == Scheme::Basic && login.is_none() {
            return Err(self.denied().into());
        }
        *self.lock() = Some(scheme.clone());
        self.prove(&scheme, slot, login, scope, rejected.as_ref())
            .await
    }

    async fn prove<'a>(
        &self,
        scheme: &Scheme,
        slot: &'a Slot,
        login: Option<&Login>,
        scope: &str,
        rejected: Option<&Token>,
    ) -> Result<Proof<'a>, Failure> {
        let turn = match login {
            Some(login) => slot.turn(login).await?,
            None => None,
        };
        let (realm, service) = match scheme {
            Scheme::Basic => {
                let header = login.and_then(Login::basic).ok_or_else(|| {
                    Error::new(
                        Kind::Credentials,
                        "the configured credentials fit in no header",
                    )
                })?;
                return Ok(Proof {
                    header,
                    token: None,
                    _turn: turn,
                });
            }
            Scheme::Bearer { realm, service } => (realm, service),
        };
        let key = Key {
            realm: realm::judge(&self.own, realm, login.is_some(), &self.token_hosts)?,
            service: service.clone(),
            scope: scope.to_owned(),
            login: login.cloned(),
        };
        match self.tokens.get(&key, rejected).await {
            Ok(token) => {
                if let Some(login) = login {
                    slot.proved(login);
                }
                Ok(Proof {
                    header: token.header(),
                    token: Some(token),
                    _turn: None,
                })
            }
            Err(token::Failure::Refused) => match login {
                Some(login) => {
                    slot.refuse(login, &self.own.to_string());
                    Err(Failure::Refused)
                }
                None => Err(self.denied().into()),
            },
            Err(token::Failure::NoUse) => Err(self.denied().into()),
            Err(token::Failure::Other(error)) => Err(error.into()),
        }
    }

    /// 401 in spite of everything.
    pub(super) fn denied(&self) -> Error {
        Error::new(
            Kind::Denied,
            format!("{} does not let us read it", self.own),
        )
        .with_status(401)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Scheme>> {
        self.scheme.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
