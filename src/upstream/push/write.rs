//! One request that writes, from its place in the queue to the head of an answer that means yes.
//!
//! It goes the way of every question (`exchange`): loop check, breaker, a place, a login, at most one answer to a challenge. It follows
//! nothing, and waits only where it is told for how long, which also says that nothing was done.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};
use url::Url;

use super::{RATE_MIN, WAIT_MAX, WAITS_MAX};
use crate::clock;
use crate::oci::Name;
use crate::upstream::USER_AGENT_VALUE;
use crate::upstream::accounts::Lease;
use crate::upstream::authenticate::{Failure, Proof};
use crate::upstream::credentials::{Slot, refused};
use crate::upstream::endpoint::Origin;
use crate::upstream::error::{Error, Kind};
use crate::upstream::exchange::Exchange;
use crate::upstream::flow::discard;
use crate::upstream::guard::Purpose;
use crate::upstream::hops::{CDN_LOOP, Hops};
use crate::upstream::limits::Class;
use crate::upstream::login::Login;
use crate::upstream::meter::{Wait, What};
use crate::upstream::quota::{Cost, retry_after};

/// What is written.
#[derive(Debug, Clone)]
pub(super) struct Write<'a> {
    pub(super) hops: &'a Hops,
    pub(super) name: &'a Name,
    pub(super) what: What,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
    pub(super) scope: String,
}

impl Write<'_> {
    const fn class(&self) -> Class {
        self.what.class(true)
    }

    fn is_transfer(&self) -> bool {
        self.what == What::Blob && !self.body.is_empty()
    }
}

impl Exchange {
    /// Sends it; comes back with a 2xx or an error, which has the status if there was one.
    pub(super) async fn write(&self, write: &Write<'_>) -> Result<Parts, Error> {
        let mut waits = 0;
        loop {
            let error = match self.write_once(write).await {
                Ok(parts) => return Ok(parts),
                Err(error) => error,
            };
            let is_told = matches!(error.status(), Some(429 | 503));
            let wait = error.retry_after().filter(|wait| *wait <= WAIT_MAX);
            let Some(wait) = wait.filter(|_| is_told && waits < WAITS_MAX) else {
                return Err(error);
            };
            waits += 1;
            sleep(wait).await;
        }
    }

    pub(super) async fn write_once(&self, write: &Write<'_>) -> Result<Parts, Error> {
        if write.hops.contains(&self.instance) {
            let sentence = "the request has come round to this mirror again; two mirrors are each other's upstream";
            return Err(Error::new(Kind::Loop, sentence));
        }
        self.is_held(write.class())?;
        let start = Instant::now();
        let _place = self.limits.acquire(write.is_transfer()).await?;
        self.meter.waited(Wait::Place, start.elapsed());
        let target = Origin::of(&write.url)
            .ok_or_else(|| Error::new(Kind::BadAnswer, "an upload without a host"))?;
        let own = self.endpoint.origin();
        if target != *own {
            let response = self.dispatch(write, &target, None).await;
            let response = response.map_err(Error::elsewhere)?;
            return judge(response, &target).await.map_err(Error::elsewhere);
        }
        let admission = self
            .breaker
            .admit(Instant::now())
            .map_err(|left| self.resting(left))?;
        let result = match self.write_with_some_login(write).await {
            Ok(response) => judge(response, own).await,
            // The sentences of reading say reading.
            Err(error) if error.kind() == Kind::Denied => {
                let status = error.status().unwrap_or(401);
                Err(denied(own).with_status(status))
            }
            Err(error) => Err(error),
        };
        match &result {
            Err(error) if error.is_outage() => {
                let about_it = error.status().is_some_and(|status| status >= 500);
                let image = about_it.then_some(write.name.as_str());
                if admission.failed(Instant::now(), image) {
                    warn!(upstream = %own, %error, "upstream is down; it is left alone for a while");
                }
            }
            Err(error) if error.status().is_none() => {}
            Ok(_) | Err(_) => admission.worked(),
        }
        result
    }

    /// Goes through the pool until a login works.
    async fn write_with_some_login(&self, write: &Write<'_>) -> Result<Response<Incoming>, Error> {
        // Each login may be refused once and be replaced once (a helper's).
        for _ in 0..=self.pool.len() * 2 {
            let candidates = self.accounts.candidates(Cost::Nothing, None);
            let (account, slot, login) = self.pool.pick(write.class(), &candidates).await?;
            let Some(mut lease) = self.accounts.enter(account, Cost::Nothing, None) else {
                continue;
            };
            match self
                .write_with(write, slot, login.as_ref(), &mut lease)
                .await
            {
                Ok(response) => return Ok(response),
                Err(Failure::Error(error)) => return Err(error),
                Err(Failure::Refused) => {}
            }
        }
        Err(refused(
            &self.endpoint.origin().to_string(),
            Duration::from_secs(30),
        ))
    }

    /// Writes with one login; answers at most one challenge. A token that ended in the middle of an upload is one.
    async fn write_with(
        &self,
        write: &Write<'_>,
        slot: &Slot,
        login: Option<&Login>,
        lease: &mut Lease<'_>,
    ) -> Result<Response<Incoming>, Failure> {
        let own = self.endpoint.origin();
        let mut proof = self.authenticator.ready(slot, login, &write.scope).await?;
        let mut answered = false;
        loop {
            let header = proof.as_ref().map(Proof::header);
            let response = self.dispatch(write, own, header).await?;
            lease.answered(response.status(), response.headers());
            if response.status() != StatusCode::UNAUTHORIZED {
                if let (Some(proof), Some(login)) = (&proof, login)
                    && proof.is_basic()
                {
                    slot.proved(login);
                }
                return Ok(response);
            }
            let (head, body) = response.into_parts();
            discard(body).await;
            if answered && !proof.as_ref().is_some_and(Proof::is_basic) {
                return Err(denied(own).with_status(401).into());
            }
            let answer = self
                .authenticator
                .answer(&head.headers, slot, login, &write.scope, proof);
            proof = Some(answer.await?);
            answered = true;
        }
    }

    /// The request itself. `proof` is only ever given for the upstream's own origin.
    async fn dispatch(
        &self,
        write: &Write<'_>,
        target: &Origin,
        proof: Option<HeaderValue>,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::builder()
            .method(write.method.clone())
            .uri(write.url.as_str())
            .header(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        if let Some(chain) = write.hops.passed_on(&self.instance) {
            request = request.header(CDN_LOOP, chain);
        }
        for (name, value) in &write.headers {
            request = request.header(name, value);
        }
        if let Some(proof) = proof {
            request = request.header(AUTHORIZATION, proof);
        }
        let request = request
            .body(Full::new(write.body.clone()))
            .map_err(|_unsendable| {
                Error::new(
                    Kind::BadAnswer,
                    format!("{target} sends the upload to what cannot be asked"),
                )
            })?;
        let is_own = target == self.endpoint.origin();
        let purpose = if is_own {
            Purpose::Own
        } else {
            Purpose::Redirect
        };
        let length = write.body.len() as u64;
        if let Some(due) = self.pace.book(write.body.len()).filter(|_| length > 0) {
            self.pace.pause(due).await;
        }
        let extra = Duration::from_secs(length / RATE_MIN);
        let result = self
            .clients
            .send_within(purpose, target, request, extra)
            .await;
        self.meter
            .asked(write.what, result.as_ref().map(Response::status));
        if let Ok(response) = &result {
            debug!(upstream = %self.endpoint.origin(), host = %target, method = %write.method, status = response.status().as_u16(), "pushed to upstream");
        }
        result
    }
}

fn denied(host: &Origin) -> Error {
    Error::new(Kind::Denied, format!("{host} does not let us push there"))
}

/// What a status means for something that was written.
async fn judge(response: Response<Incoming>, host: &Origin) -> Result<Parts, Error> {
    let (head, body) = response.into_parts();
    discard(body).await;
    let code = head.status.as_u16();
    let error = |kind, what: &str| Error::new(kind, format!("{host} {what}"));
    let wait = retry_after(&head.headers, clock::now());
    Err(match code {
        200..=299 => return Ok(head),
        300..=399 => error(Kind::BadAnswer, "redirects a push, which is not followed"),
        400 => error(Kind::BadAnswer, "does not take what was sent (400)"),
        401 | 402 | 403 | 451 => denied(host),
        404 | 410 => error(Kind::NotFound, "does not have it"),
        405 | 501 => error(Kind::BadAnswer, &format!("takes no pushes there ({code})")),
        408 | 504 => error(Kind::Timeout, &format!("answered {code}")),
        413 => error(Kind::BadAnswer, "finds it too large (413)"),
        429 => error(Kind::RateLimited, "asks us to slow down").with_retry_after(wait),
        500..=599 => error(Kind::Unavailable, &format!("answered {code}")).with_retry_after(wait),
        _ => error(
            Kind::BadAnswer,
            &format!("answered {code}, which is no answer to this"),
        ),
    }
    .with_status(code))
}
