//! Tokens: from a challenge to an `Authorization` header (PROTOCOL C).
//!
//! The scope is always ours, never the one that a challenge offers. One request for a token serves everyone who needs the same one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::Upstream;
use super::challenge::Challenge;
use super::connect::is_declared;
use super::credentials::{Chosen, Credential, Pool, basic};
use super::error::{Error, Kind};
use crate::secret::Secret;

/// The most bytes of a token service's answer.
pub(super) const REPLY_MAX: usize = 64 * 1024;
/// The most bytes of a token.
pub(super) const TOKEN_MAX: usize = 16 * 1024;
/// The most bytes of a challenge's `service`.
pub(super) const SERVICE_MAX: usize = 512;
/// The bounds of a token's life.
const LIFE: std::ops::RangeInclusive<u64> = 60..=3600;
/// How long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(5);
/// Upstreams whose token service stands on a host of another name, shipped so that their users need not declare it.
const PAIRS: [(&str, &str); 4] = [
    ("registry-1.docker.io", "auth.docker.io"),
    ("registry.gitlab.com", "gitlab.com"),
    ("docker.elastic.co", "docker-auth.elastic.co"),
    ("registry.connect.redhat.com", "sso.redhat.com"),
];

/// How an upstream wants to be logged in to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scheme {
    /// By a token from `realm`.
    Bearer { realm: Url, service: Option<String> },
    /// By the credentials themselves.
    Basic,
}

/// The tokens of one upstream.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) pool: Pool,
    /// What the upstream asked for last, so that the next request needs no 401.
    scheme: Mutex<Option<Scheme>>,
    slots: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    realm: String,
    service: Option<String>,
    scope: String,
    /// The place in the pool; anonymous has none.
    credential: Option<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    token: Option<(Secret, Instant)>,
    failed: Option<(Instant, Error)>,
}

impl Tokens {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            scheme: Mutex::default(),
            slots: Mutex::default(),
        }
    }

    pub(super) fn scheme(&self) -> Option<Scheme> {
        self.scheme
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, scheme: &Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme.clone());
    }

    fn slot(&self, key: &Key) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() > 4096 {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

impl Upstream {
    /// What to do with a 401's challenges: the first that can be answered, Bearer before Basic.
    pub(super) fn choose_scheme(&self, challenges: &[Challenge]) -> Result<Scheme, Error> {
        let bearer = challenges
            .iter()
            .find(|challenge| challenge.scheme == "bearer");
        if let Some(challenge) = bearer {
            let realm = challenge
                .get("realm")
                .and_then(|realm| Url::parse(realm).ok());
            let realm = realm.filter(|realm| {
                matches!(realm.scheme(), "https" | "http")
                    && realm.host().is_some()
                    && realm.username().is_empty()
                    && realm.password().is_none()
            });
            let realm = realm.ok_or_else(|| {
                Error::new(
                    Kind::Credentials,
                    "upstream's challenge names no usable token service",
                )
            })?;
            if self.inner.endpoint.is_https() && realm.scheme() != "https" {
                return Err(Error::new(
                    Kind::Credentials,
                    "upstream's challenge names a token service without TLS",
                ));
            }
            let service = challenge
                .get("service")
                .filter(|service| service.len() <= SERVICE_MAX)
                .map(str::to_owned);
            let scheme = Scheme::Bearer { realm, service };
            self.inner.tokens.remember(&scheme);
            return Ok(scheme);
        }
        if challenges
            .iter()
            .any(|challenge| challenge.scheme == "basic")
        {
            self.inner.tokens.remember(&Scheme::Basic);
            return Ok(Scheme::Basic);
        }
        Err(Error::new(
            Kind::Denied,
            "upstream asks for a login that it gives no usable challenge for",
        ))
    }

    /// The `Authorization` for a request; `None` where there is nothing to log in with. `stale` is one that was just refused.
    pub(super) async fn authorization(
        &self,
        scheme: &Scheme,
        scope: &str,
        stale: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let chosen = self
            .inner
            .tokens
            .pool
            .choose()
            .await
            .map_err(|error| Error::new(Kind::Credentials, error.to_string()))?;
        match scheme {
            Scheme::Basic => match chosen {
                Some(Chosen {
                    place,
                    credential: Credential::Basic { username, password },
                }) => {
                    let header = basic(&username, &password);
                    if stale == Some(header.as_str()) {
                        self.inner.tokens.pool.refuse(place);
                        return Err(Error::new(
                            Kind::Credentials,
                            "upstream refused the configured credentials",
                        )
                        .with_status(401));
                    }
                    Ok(Some(header))
                }
                Some(_) => Err(Error::new(
                    Kind::Credentials,
                    "upstream takes passwords only, and an identity token is configured",
                )),
                None => Ok(None),
            },
            Scheme::Bearer { realm, service } => self
                .bearer(realm, service.as_deref(), scope, chosen, stale)
                .await
                .map(Some),
        }
    }

    async fn bearer(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        chosen: Option<Chosen>,
        stale: Option<&str>,
    ) -> Result<String, Error> {
        if chosen.is_some() && !self.may_see_credentials(realm) {
            let host = realm.host_str().unwrap_or_default();
            let host = realm
                .port()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            return Err(Error::new(
                Kind::Credentials,
                format!(
                    "upstream's token service is at {host}, which may not see the configured credentials; token_hosts = [\"{host}\"] allows it"
                ),
            ));
        }
        let key = Key {
            realm: realm.to_string(),
            service: service.map(str::to_owned),
            scope: scope.to_owned(),
            credential: chosen.as_ref().map(|chosen| chosen.place),
        };
        let asked = Instant::now();
        let slot = self.inner.tokens.slot(&key);
        let mut slot = slot.lock().await;
        if let Some((token, until)) = &slot.token {
            let header = format!("Bearer {}", token.expose());
            if *until > Instant::now() && stale != Some(header.as_str()) {
                return Ok(header);
            }
        }
        // Whoever waited for the same token shares its failure too.
        if let Some((at, error)) = &slot.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        slot.token = None;
        match self
            .fetch_token(realm, service, scope, chosen.as_ref())
            .await
        {
            Ok((token, life)) => {
                let header = format!("Bearer {}", token.expose());
                slot.token = Some((token, Instant::now() + life.saturating_sub(MARGIN)));
                slot.failed = None;
                Ok(header)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Whether a token service may see the configured credentials: the upstream's own origin, a shipped pair, or a declared host.
    fn may_see_credentials(&self, realm: &Url) -> bool {
        let host = realm.host_str().unwrap_or_default();
        let paired = realm.scheme() == "https"
            && realm.port().is_none()
            && PAIRS.iter().any(|(registry, service)| {
                *registry == self.inner.endpoint.host() && *service == host
            });
        self.inner.endpoint.is_own(realm)
            || paired
            || is_declared(
                &self.inner.config.token_hosts,
                host,
                realm.port_or_known_default(),
            )
    }

    async fn fetch_token(
        &self,
        realm: &Url,
        service: Option<&str>,
        scope: &str,
        chosen: Option<&Chosen>,
    ) -> Result<(Secret, Duration), Error> {
        if let Some(Chosen {
            credential: Credential::Identity(identity),
            place,
        }) = chosen
        {
            let request = Request::post(realm.as_str())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::new(refresh_form(identity, service, scope)));
            return self.ask_for_token(request, Some(*place)).await;
        }
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            query
                .append_pair("scope", scope)
                .append_pair("client_id", "roadstead");
            if let Some(Chosen {
                credential: Credential::Basic { username, .. },
                ..
            }) = chosen
            {
                query.append_pair("account", username);
            }
        }
        let mut request = Request::builder().method(Method::GET).uri(url.as_str());
        if let Some(Chosen {
            credential: Credential::Basic { username, password },
            ..
        }) = chosen
        {
            request = request.header(AUTHORIZATION, basic(username, password));
        }
        self.ask_for_token(
            request.body(Full::default()),
            chosen.map(|chosen| chosen.place),
        )
        .await
    }

    async fn ask_for_token(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
        place: Option<usize>,
    ) -> Result<(Secret, Duration), Error> {
        let mut request = request.map_err(|_malformed| {
            Error::new(
                Kind::Credentials,
                "upstream's token service has no usable URL",
            )
        })?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, super::send::USER_AGENT_VALUE);
        headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let timeouts = self.inner.config.timeouts;
        let down = |what: &'static str| Error::new(Kind::Credentials, what);
        // The upstream's own origin is dialled by the client that may.
        let own = Url::parse(&request.uri().to_string())
            .is_ok_and(|url| self.inner.endpoint.is_own(&url));
        let client = if own {
            &self.inner.clients.own
        } else {
            &self.inner.clients.token
        };
        let sent = tokio::time::timeout(timeouts.headers, client.request(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                self.count("token", "unavailable");
                tracing::debug!(
                    error = super::send::chain(&error),
                    repository = self.inner.config.key,
                    "the token service cannot be reached"
                );
                return Err(down("upstream's token service cannot be reached"));
            }
            Err(_elapsed) => {
                self.count("token", "timeout");
                return Err(down("upstream's token service does not answer"));
            }
        };
        let status = response.status();
        self.count("token", status.as_str());
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                if let Some(place) = place {
                    self.inner.tokens.pool.refuse(place);
                    return Err(down(
                        "upstream's token service refused the configured credentials",
                    )
                    .with_status(status.as_u16()));
                }
                return Err(Error::new(
                    Kind::Denied,
                    "upstream's token service gives nothing to anonymous",
                )
                .with_status(status.as_u16()));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = super::send::retry_after(response.headers());
                return Err(Error::new(
                    Kind::RateLimited,
                    "upstream's token service limits its rate",
                )
                .with_status(429)
                .with_retry_after(wait));
            }
            // A redirect would carry the credentials to a host that nobody declared.
            _ => {
                return Err(down(
                    "upstream's token service answered neither with a token nor with a refusal",
                )
                .with_status(status.as_u16()));
            }
        }
        let body = tokio::time::timeout(
            timeouts.idle,
            Limited::new(response.into_body(), REPLY_MAX).collect(),
        )
        .await;
        let body = body
            .map_err(|_elapsed| down("upstream's token service broke off"))?
            .map_err(|_broken| down("upstream's token service sent too much, or broke off"))?
            .to_bytes();
        read_token(&body).ok_or_else(|| down("upstream's token service sent no usable token"))
    }
}

/// The form of an oauth2 refresh (PROTOCOL C3).
fn refresh_form(identity: &Secret, service: Option<&str>, scope: &str) -> Bytes {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", identity.expose())
        .append_pair("client_id", "roadstead")
        .append_pair("scope", scope);
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    form.finish().into()
}

/// The token in an answer, and how long it lives.
pub(super) fn read_token(body: &[u8]) -> Option<(Secret, Duration)> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| {
        answer
            .get(key)
            .and_then(Value::as_str)
            .filter(|token| !token.is_empty())
    };
    let token = text("token").or_else(|| text("access_token"))?;
    // What goes into a header must not end it.
    if token.len() > TOKEN_MAX || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let life = answer
        .get("expires_in")
        .and_then(Value::as_f64)
        .map_or(*LIFE.start(), |seconds| {
            // Out of range and NaN end at a bound.
            if seconds >= 3600.0 {
                *LIFE.end()
            } else if seconds >= 60.0 {
                Duration::try_from_secs_f64(seconds).map_or(60, |life| life.as_secs())
            } else {
                *LIFE.start()
            }
        });
    Some((Secret::new(token), Duration::from_secs(life)))
}
