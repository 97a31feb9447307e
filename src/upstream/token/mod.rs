//! Tokens for one upstream: asked for once, kept for as long as they last (PROTOCOL C2, C3; RELIABILITY C10–C20).
//!
//! A token belongs to a token service, a service name, a scope and the login that it was given for; nothing else ever gets it. Whoever
//! asks while a token is being fetched waits for that one, also for its failure. Redirects are not followed here.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, USER_AGENT,
};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use lru::LruCache;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use super::USER_AGENT_VALUE;
use super::client::Clients;
use super::config::Timeouts;
use super::endpoint::Origin;
use super::error::{Error, Kind};
use super::flow::{Flow, discard};
use super::guard::Purpose;
use super::login::{Login, sensitive};
use super::meter::{Meter, What};
use super::quota::retry_after;
use super::realm::Realm;
use crate::clock;
use crate::recent::recent;

/// The largest answer of a token service (RELIABILITY P38).
const REPLY_MAX: usize = 64 * 1024;
/// The largest token.
const TOKEN_MAX: usize = 16 * 1024;
/// The largest service name.
const SERVICE_MAX: usize = 1024;
/// Lives shorter than this are not believed; a service that means it says 401 earlier.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// Lives longer than this are not used up.
const LIFE_MAX: Duration = Duration::from_secs(3600);
/// A token this young that is refused was not refused for its age.
const YOUNG: Duration = Duration::from_secs(10);
/// How many tokens are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) realm: Realm,
    pub(super) service: Option<String>,
    pub(super) scope: String,
    pub(super) login: Option<Login>,
}

/// A token, as the header that carries it. Prints as sensitive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token(HeaderValue);

impl Token {
    /// The value of `Authorization`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The login was refused (or, without one, nobody gets in anonymously).
    Refused,
    /// Upstream refuses a token that was given just now for just this.
    NoUse,
    /// Something else.
    Other(Error),
}

#[derive(Debug, Default)]
struct Held {
    token: Option<(Token, Instant, Instant)>,
    failed: Option<(Failure, Instant)>,
}

type Cell = Arc<tokio::sync::Mutex<Held>>;

/// The tokens of one upstream.
#[derive(Debug)]
pub(super) struct Tokens {
    own: Origin,
    clients: Arc<Clients>,
    timeouts: Timeouts,
    meter: Meter,
    cells: Mutex<LruCache<Key, Cell>>,
}

impl Tokens {
    pub(super) fn new(
        own: Origin,
        clients: Arc<Clients>,
        timeouts: Timeouts,
        meter: Meter,
    ) -> Self {
        Self {
            own,
            clients,
            timeouts,
            meter,
            cells: Mutex::new(recent(KEPT)),
        }
    }

    /// The token for `key`, fetched if there is none that still lasts, or if it is the one that upstream has just `rejected`.
    pub(super) async fn get(&self, key: &Key, rejected: Option<&Token>) -> Result<Token, Failure> {
        let came = Instant::now();
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.get_or_insert(key.clone(), Cell::default))
        };
        let mut held = cell.lock().await;
        let now = Instant::now();
        if let Some((token, got, until)) = &held.token {
            if rejected == Some(token) {
                if now.saturating_duration_since(*got) < YOUNG {
                    return Err(Failure::NoUse);
                }
            } else if *until > now {
                return Ok(token.clone());
            }
        }
        // Somebody else's failure while we waited is ours too.
        if let Some((failure, at)) = &held.failed
            && *at >= came
        {
            return Err(failure.clone());
        }
        match self.fetch(key).await {
            Ok((token, life)) => {
                let now = Instant::now();
                // A tenth early, so that it does not run out on its way.
                let until = now.checked_add(life / 10 * 9).unwrap_or(now);
                *held = Held {
                    token: Some((token.clone(), now, until)),
                    failed: None,
                };
                Ok(token)
            }
            Err(failure) => {
                *held = Held {
                    token: None,
                    failed: Some((failure.clone(), Instant::now())),
                };
                Err(failure)
            }
        }
    }

    async fn fetch(&self, key: &Key) -> Result<(Token, Duration), Failure> {
        if key
            .service
            .as_ref()
            .is_some_and(|service| service.len() > SERVICE_MAX)
        {
            return Err(Failure::Other(
                self.trouble(key, "has a name that is too long"),
            ));
        }
        if let Some(Login::Identity { token }) = &key.login {
            let response = self.send(key, exchange(key, token.expose())).await?;
            if !matches!(response.status().as_u16(), 404 | 405) {
                return self.read(key, response).await;
            }
            discard(response.into_body()).await;
        }
        let response = self.send(key, get(key)).await?;
        self.read(key, response).await
    }

    async fn send(
        &self,
        key: &Key,
        request: Option<Request<Full<Bytes>>>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = request
            .ok_or_else(|| Failure::Other(self.trouble(key, "has a URL that cannot be asked")))?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let origin = &key.realm.origin;
        let purpose = if *origin == self.own {
            Purpose::Own
        } else {
            Purpose::Token
        };
        let result = self.clients.send(purpose, origin, request).await;
        self.meter
            .asked(What::Token, result.as_ref().map(Response::status));
        // Whatever is wrong with it, it is the way to a token that is wrong.
        result.map_err(|error| {
            let is_ours = error.kind() == Kind::Throttled;
            Failure::Other(if is_ours {
                error
            } else {
                error.with_kind(Kind::Credentials)
            })
        })
    }

    async fn read(
        &self,
        key: &Key,
        response: Response<Incoming>,
    ) -> Result<(Token, Duration), Failure> {
        let (head, body) = response.into_parts();
        let code = head.status.as_u16();
        if code != 200 {
            discard(body).await;
            let wait = retry_after(&head.headers, clock::now());
            let trouble = |what: &str| {
                self.trouble(key, what)
                    .with_status(code)
                    .with_retry_after(wait)
            };
            return Err(match code {
                401 => Failure::Refused,
                403 => {
                    Failure::Other(trouble("gives no token for this image").with_kind(Kind::Denied))
                }
                429 => Failure::Other(trouble("asks us to slow down").with_kind(Kind::RateLimited)),
                300..=399 => {
                    Failure::Other(trouble("redirects, which is not followed with credentials"))
                }
                408 | 500..=599 => Failure::Other(trouble(&format!("answered {code}")).of_outage()),
                _ => Failure::Other(trouble(&format!("answered {code}"))),
            });
        }
        let is_plain = head
            .headers
            .get(CONTENT_ENCODING)
            .is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
        if !is_plain {
            return Err(Failure::Other(
                self.trouble(key, "answers in an encoding that was not asked for"),
            ));
        }
        let flow = Flow::new(body, key.realm.origin.clone(), self.timeouts);
        let bytes = flow
            .collect(REPLY_MAX)
            .await
            .map_err(|error| Failure::Other(error.with_kind(Kind::Credentials)))?;
        parse(&bytes)
            .ok_or_else(|| Failure::Other(self.trouble(key, "answers with no usable token")))
    }

    fn trouble(&self, key: &Key, what: &str) -> Error {
        Error::new(
            Kind::Credentials,
            format!(
                "the token service of {} at {} {what}",
                self.own, key.realm.origin
            ),
        )
    }
}

/// `GET <realm>?service=…&scope=…`, with Basic authentication where there is a login.
fn get(key: &Key) -> Option<Request<Full<Bytes>>> {
    let mut url = key.realm.url.clone();
    {
        let mut pairs = url.query_pairs_mut();
        if let Some(service) = &key.service {
            pairs.append_pair("service", service);
        }
        // Several are several parameters here, and words of one where a token is exchanged (RFC 6749, 3.3).
        for scope in key.scope.split(' ') {
            pairs.append_pair("scope", scope);
        }
        if let Some(Login::Password { username, .. }) = &key.login {
            pairs.append_pair("account", username);
        }
    }
    let mut request = Request::get(url.as_str());
    if let Some(login) = &key.login {
        request = request.header(AUTHORIZATION, login.basic()?);
    }
    request.body(Full::default()).ok()
}

/// `POST <realm>` with an identity token.
fn exchange(key: &Key, token: &str) -> Option<Request<Full<Bytes>>> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    if let Some(service) = &key.service {
        form.append_pair("service", service);
    }
    form.append_pair("client_id", "roadstead")
        .append_pair("scope", &key.scope)
        .append_pair("refresh_token", token);
    let url: &Url = &key.realm.url;
    Request::builder()
        .method(Method::POST)
        .uri(url.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form.finish())))
        .ok()
}

/// The token in a reply, and how long it lasts. `token` goes before `access_token`.
fn parse(bytes: &[u8]) -> Option<(Token, Duration)> {
    let reply: Value = serde_json::from_slice(bytes).ok()?;
    let text = match (reply.get("token"), reply.get("access_token")) {
        (Some(Value::String(token)), _) if !token.is_empty() => token,
        (None | Some(Value::Null | Value::String(_)), Some(Value::String(token))) => token,
        _ => return None,
    };
    let fits = !text.is_empty()
        && text.len() <= TOKEN_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b'\\'));
    if !fits {
        return None;
    }
    let seconds = reply
        .get("expires_in")
        .and_then(Value::as_f64)
        .unwrap_or(60.0);
    let life = Duration::try_from_secs_f64(seconds.clamp(0.0, 1e9)).unwrap_or(LIFE_MIN);
    let header = sensitive(&format!("Bearer {text}"))?;
    Some((Token(header), life.clamp(LIFE_MIN, LIFE_MAX)))
}

#[cfg(test)]
mod tests;
