//! One question to an upstream, from the place in its queue to the head of an answer that means yes.
//!
//! In this order: loop check, waits and breaker, a place, a login from the pool, the request with its redirects, at most one answer to
//! a challenge. Everything that is no yes comes out as an [`Error`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderName, HeaderValue, RANGE, USER_AGENT,
};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, warn};
use url::Url;

use super::USER_AGENT_VALUE;
use super::accounts::{Accounts, Lease};
use super::authenticate::{Authenticator, Failure};
use super::client::Clients;
use super::config::Timeouts;
use super::credentials::{Pool, Slot, refused};
use super::endpoint::{Endpoint, Origin};
use super::error::{Error, Kind};
use super::flow::{Flow, discard};
use super::guard::Purpose;
use super::health::{Breaker, BreakerState};
use super::hops::{CDN_LOOP, Hops};
use super::limits::{Class, Limits, Permit};
use super::login::Login;
use super::meter::{Meter, Wait, What};
use super::pace::Pace;
use super::quota::Cost;
use super::realm;
use super::redirect::{Trail, is_redirect};
use super::status::{self, Asked};
use crate::clock;
use crate::oci::Name;

/// By which a mirror says whose images it has answered for.
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// How long a login that is rate limited without a word is left alone, if there is another one.
const NEXT_LOGIN_FOR: Duration = Duration::from_secs(60);

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question<'a> {
    pub(super) hops: &'a Hops,
    pub(super) name: &'a Name,
    pub(super) what: What,
    pub(super) is_head: bool,
    pub(super) url: Url,
    /// What is asked for by digest.
    pub(super) digest: Option<String>,
    pub(super) accept: HeaderValue,
    pub(super) range: Option<HeaderValue>,
    /// A transfer that can be done without: refused where there is no place for it at once.
    pub(super) is_extra: bool,
}

impl Question<'_> {
    const fn class(&self) -> Class {
        self.what.class(self.is_head)
    }

    const fn cost(&self) -> Cost {
        match self.class() {
            Class::ManifestHead => Cost::Head,
            Class::ManifestGet => Cost::Pull,
            Class::Blob | Class::List => Cost::Nothing,
        }
    }
}

/// A yes.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Parts,
    pub(super) flow: Flow,
    /// Who answered: the upstream or the last redirect's target.
    pub(super) host: Origin,
    /// The place in the queue; whoever reads the body holds it.
    pub(super) permit: Permit,
}

/// Everything that one upstream is asked with.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) endpoint: Endpoint,
    pub(super) instance: String,
    pub(super) clients: Arc<Clients>,
    pub(super) authenticator: Authenticator,
    pub(super) pool: Pool,
    pub(super) limits: Limits,
    pub(super) breaker: Breaker,
    pub(super) meter: Meter,
    pub(super) pace: Arc<Pace>,
    pub(super) timeouts: Timeouts,
    pub(super) accounts: Accounts,
    pub(super) holds: Mutex<[Option<Instant>; Class::COUNT]>,
    /// Whether an answer that digests do not vouch for counts only where it says for which `ns` it is.
    pub(super) must_echo: bool,
}

/// Where the redirects of one request ended.
struct Walked {
    response: Response<Incoming>,
    trail: Trail,
}

impl Exchange {
    /// Asks, and comes back with a 200 (or a 206 where a range was asked for) or an error.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Answer, Error> {
        if question.hops.contains(&self.instance) {
            let sentence = "the request has come round to this mirror again; two mirrors are each other's upstream";
            return Err(self.count(question, Error::new(Kind::Loop, sentence)));
        }
        self.fail_fast(question)
            .map_err(|error| self.count(question, error))?;
        let is_transfer = question.class() == Class::Blob && !question.is_head;
        let start = Instant::now();
        let permit = if question.is_extra {
            self.limits.try_extra()?
        } else {
            self.limits.acquire(is_transfer).await?
        };
        self.meter.waited(Wait::Place, start.elapsed());
        let admission = self
            .breaker
            .admit(Instant::now())
            .map_err(|left| self.count(question, self.resting(left)))?;
        let start = Instant::now();
        Box::pin(self.learn_quota(question)).await;
        let result = self.ask_with_some_login(question).await;
        let result = result.and_then(|walked| self.check_echo(question, walked));
        self.meter.took(start.elapsed());
        match result {
            Ok(walked) => {
                admission.worked();
                let host = walked.trail.origin().clone();
                let (head, body) = walked.response.into_parts();
                Ok(Answer {
                    head,
                    flow: Flow::new(body, host.clone(), self.timeouts),
                    host,
                    permit,
                })
            }
            Err(error) => {
                if error.is_outage() {
                    // A 5xx may be about this image alone; no answer at all is about the upstream.
                    let about_it = error.status().is_some_and(|status| status >= 500);
                    let image = about_it.then_some(question.name.as_str());
                    if admission.failed(Instant::now(), image) {
                        warn!(upstream = %self.endpoint.origin(), %error, "upstream is down; it is left alone for a while");
                    }
                } else if error.status().is_some() {
                    admission.worked();
                }
                Err(error)
            }
        }
    }

    /// Without it, the answer may be about an image of the same name in another registry.
    fn check_echo(&self, question: &Question<'_>, walked: Walked) -> Result<Walked, Error> {
        let ns = self.endpoint.ns().filter(|_| self.must_echo);
        let Some(ns) = ns.filter(|_| question.what != What::Blob) else {
            return Ok(walked);
        };
        let echo = walked.response.headers().get(OCI_NAMESPACE);
        if echo.is_some_and(|echo| echo.as_bytes().eq_ignore_ascii_case(ns.as_bytes())) {
            return Ok(walked);
        }
        let sentence = format!(
            "{} does not say in OCI-Namespace that it answers for {ns}; a parent must be a mirror that knows ?ns=",
            self.endpoint.origin()
        );
        Err(Error::new(Kind::BadAnswer, sentence))
    }

    /// What can be said without a place in the queue.
    fn fail_fast(&self, question: &Question<'_>) -> Result<(), Error> {
        self.is_held(question.class())
    }

    /// Whether requests of a class have to wait, for all that is known without a place in the queue.
    pub(super) fn is_held(&self, class: Class) -> Result<(), Error> {
        let now = Instant::now();
        let held = self
            .holds
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(class.index())
            .copied()
            .flatten()
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero());
        if let Some(left) = held {
            return Err(self.resting(left));
        }
        match self.breaker.state(now) {
            BreakerState::Open(left) => Err(self.resting(left)),
            BreakerState::Closed | BreakerState::HalfOpen => Ok(()),
        }
    }

    pub(super) fn resting(&self, left: Duration) -> Error {
        let sentence = format!(
            "{} failed a moment ago and is left alone for now",
            self.endpoint.origin()
        );
        Error::new(Kind::BreakerOpen, sentence)
            .with_retry_after(Some(left.max(Duration::from_secs(1))))
    }

    /// Counts what was answered without asking.
    fn count(&self, question: &Question<'_>, error: Error) -> Error {
        self.meter.asked(question.what, Err(&error));
        error
    }

    /// Goes through the pool until a login works.
    async fn ask_with_some_login(&self, question: &Question<'_>) -> Result<Walked, Error> {
        let class = question.class();
        let mut last = None;
        // Each login may be refused once and be replaced once (a helper's).
        for _ in 0..=self.pool.len() * 2 {
            let (cost, digest) = (question.cost(), question.digest.as_deref());
            let candidates = self.accounts.candidates(cost, digest);
            if candidates.is_empty() {
                let kept = || self.count(question, self.kept());
                return Err(last.unwrap_or_else(kept));
            }
            let (account, slot, login) = match self.pool.pick(class, &candidates).await {
                Ok(picked) => picked,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let Some(mut lease) = self.accounts.enter(account, cost, digest) else {
                // Another request was faster; whoever is next has more, or it is refused.
                continue;
            };
            let asked = self.ask_with(question, slot, login.as_ref(), &mut lease);
            let walked = match asked.await {
                Ok(walked) => walked,
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Refused) => continue,
            };
            let host = walked.trail.origin();
            // Back at home without the credentials that were taken from it, its refusal says nothing about them.
            let is_elsewhere = !walked.trail.may_authorise();
            let asked = Asked {
                class,
                host,
                is_elsewhere,
                is_ranged: question.range.is_some(),
            };
            let judged = status::judge(
                walked.response.status(),
                walked.response.headers(),
                asked,
                clock::now(),
            );
            let Err(error) = judged else {
                return Ok(walked);
            };
            debug!(upstream = %self.endpoint.origin(), %host, status = walked.response.status().as_u16(), kind = error.kind().as_str(), "upstream says no");
            discard(walked.response.into_body()).await;
            if is_elsewhere {
                return Err(error);
            }
            match (error.kind(), error.retry_after()) {
                (Kind::RateLimited, wait) => {
                    let others = self.pool.len() > 1;
                    match wait.or_else(|| others.then_some(NEXT_LOGIN_FOR)) {
                        Some(wait) => slot.wait(class, wait),
                        None => return Err(error),
                    }
                    last = Some(error);
                }
                (Kind::Unavailable, Some(wait)) if error.status() == Some(503) => {
                    if let Some(hold) = self
                        .holds
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_mut(class.index())
                    {
                        *hold = Instant::now().checked_add(wait);
                    }
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            refused(&self.endpoint.origin().to_string(), Duration::from_secs(30))
        }))
    }

    /// The refusal of a pull that what is kept of the quota would be used for.
    fn kept(&self) -> Error {
        let (left, keep) = self.accounts.refusal();
        let sentence = format!(
            "no more than limits.keep_quota = {keep} pulls of the quota at {} are left, and they are kept",
            self.endpoint.origin()
        );
        Error::new(Kind::QuotaKept, sentence).with_retry_after(Some(left))
    }

    /// Puts a question that is free before a pull of which it is not known whether there is room for it. What is answered does not matter,
    /// but for its headers.
    async fn learn_quota(&self, question: &Question<'_>) {
        if question.cost() != Cost::Pull || self.accounts.wants_probe().is_none() {
            return;
        }
        let _one = self.accounts.one_probe().await;
        for _ in 0..self.pool.len() {
            let Some(account) = self.accounts.wants_probe() else {
                return;
            };
            let free = Question {
                is_head: true,
                ..question.clone()
            };
            let picked = self.pool.pick(free.class(), &[account]).await;
            if let (Ok((_, slot, login)), Some(mut lease)) =
                (picked, self.accounts.enter(account, Cost::Nothing, None))
            {
                match self.ask_with(&free, slot, login.as_ref(), &mut lease).await {
                    Ok(walked) => discard(walked.response.into_body()).await,
                    Err(Failure::Refused) => {}
                    Err(Failure::Error(error)) => {
                        debug!(upstream = %self.endpoint.origin(), %error, "what is left of the quota could not be learnt");
                    }
                }
            }
            // Not before: whoever comes meanwhile waits for the answer.
            self.accounts.probed(account);
        }
    }

    /// Asks with one login; answers at most one challenge.
    async fn ask_with(
        &self,
        question: &Question<'_>,
        slot: &Slot,
        login: Option<&Login>,
        lease: &mut Lease<'_>,
    ) -> Result<Walked, Failure> {
        let scope = realm::scope(self.endpoint.origin(), question.name);
        let mut proof = self.authenticator.ready(slot, login, &scope).await?;
        let mut answered = false;
        loop {
            let header = proof.as_ref().map(super::authenticate::Proof::header);
            let walked = self.walk(question, header, lease).await?;
            let is_challenge = walked.response.status() == StatusCode::UNAUTHORIZED
                && walked.trail.may_authorise();
            if !is_challenge {
                if let (Some(proof), Some(login)) = (&proof, login)
                    && proof.is_basic()
                {
                    slot.proved(login);
                }
                return Ok(walked);
            }
            let (head, body) = walked.response.into_parts();
            discard(body).await;
            if answered
                && !proof
                    .as_ref()
                    .is_some_and(super::authenticate::Proof::is_basic)
            {
                return Err(self.authenticator.denied().into());
            }
            proof = Some(
                self.authenticator
                    .answer(&head.headers, slot, login, &scope, proof)
                    .await?,
            );
            answered = true;
        }
    }

    /// Sends the request and follows its redirects.
    async fn walk(
        &self,
        question: &Question<'_>,
        proof: Option<HeaderValue>,
        lease: &mut Lease<'_>,
    ) -> Result<Walked, Error> {
        let mut trail = Trail::new(self.endpoint.origin().clone(), question.url.clone());
        loop {
            let request = self
                .request(question, &trail, proof.as_ref())
                .ok_or_else(|| {
                    Error::new(
                        Kind::BadAnswer,
                        format!(
                            "{} redirects to something that cannot be asked",
                            self.endpoint.origin()
                        ),
                    )
                })?;
            let purpose = if trail.is_own() {
                Purpose::Own
            } else {
                Purpose::Redirect
            };
            if trail.is_own() {
                lease.sent();
            }
            let result = self.clients.send(purpose, trail.origin(), request).await;
            self.meter
                .asked(question.what, result.as_ref().map(Response::status));
            let response = match result {
                Ok(response) => response,
                Err(error) if trail.is_own() => {
                    if error.kind() == Kind::Throttled {
                        lease.held_back();
                    }
                    return Err(error);
                }
                Err(error) => return Err(error.elsewhere()),
            };
            if trail.is_own() {
                lease.answered(response.status(), response.headers());
            }
            if question.class() == Class::ManifestGet && response.status().is_success() {
                self.meter.pulled();
            }
            if !is_redirect(response.status()) {
                return Ok(Walked { response, trail });
            }
            let (head, body) = response.into_parts();
            let status = head.status.as_u16();
            trail
                .follow(&head.headers)
                .map_err(|error| error.with_status(status))?;
            discard(body).await;
        }
    }

    fn request(
        &self,
        question: &Question<'_>,
        trail: &Trail,
        proof: Option<&HeaderValue>,
    ) -> Option<Request<Full<Bytes>>> {
        let method = if question.is_head {
            Method::HEAD
        } else {
            Method::GET
        };
        let mut request = Request::builder()
            .method(method)
            .uri(trail.url().as_str())
            .header(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE))
            .header(ACCEPT, question.accept.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // Also to strangers: it is how a way back to us is noticed (R17).
        if let Some(chain) = question.hops.passed_on(&self.instance) {
            request = request.header(CDN_LOOP, chain);
        }
        if let Some(range) = &question.range {
            request = request.header(RANGE, range.clone());
        }
        if let Some(proof) = proof.filter(|_| trail.may_authorise()) {
            request = request.header(AUTHORIZATION, proof.clone());
        }
        request.body(Full::default()).ok()
    }
}
