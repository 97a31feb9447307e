//! Asking the URLs of foreign layers.
//!
//! A way of its own beside `exchange`: what a [`Fetcher`] is made of has no credentials, so that none can get into a request. It has
//! places of its own as well, and its failures say nothing of the upstream's health.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue, RANGE, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::debug;

use super::ForeignUrl;
use crate::clock;
use crate::upstream::USER_AGENT_VALUE;
use crate::upstream::answer::Span;
use crate::upstream::client::Clients;
use crate::upstream::config::Timeouts;
use crate::upstream::endpoint::Origin;
use crate::upstream::error::{Error, Kind};
use crate::upstream::exchange::Answer;
use crate::upstream::flow::{Flow, discard};
use crate::upstream::guard::Purpose;
use crate::upstream::hops::{CDN_LOOP, Hops};
use crate::upstream::limits::{Class, Limits};
use crate::upstream::meter::{Meter, What};
use crate::upstream::redirect::{Trail, is_redirect};
use crate::upstream::status::{self, Asked};

/// Fetches from URLs that manifests name.
#[derive(Debug)]
pub(in crate::upstream) struct Fetcher {
    own: Origin,
    instance: String,
    clients: Arc<Clients>,
    limits: Limits,
    meter: Meter,
    timeouts: Timeouts,
}

impl Fetcher {
    /// With the upstream's connections, so that the address guard is the same; `own` is the upstream itself.
    pub(in crate::upstream) const fn new(
        own: Origin,
        instance: String,
        clients: Arc<Clients>,
        limits: Limits,
        meter: Meter,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            own,
            instance,
            clients,
            limits,
            meter,
            timeouts,
        }
    }

    /// Asks for the layer or a part of it. `is_extra`: refused where there is no place for it at once.
    pub(in crate::upstream) async fn get(
        &self,
        hops: &Hops,
        url: &ForeignUrl,
        span: Span,
        is_extra: bool,
    ) -> Result<Answer, Error> {
        if hops.contains(&self.instance) {
            let sentence = "the request has come round to this mirror again";
            return Err(Error::new(Kind::Loop, sentence));
        }
        let permit = if is_extra {
            self.limits.try_extra()?
        } else {
            self.limits.acquire(true).await?
        };
        let start = Instant::now();
        let walked = self.walk(hops, url, span).await;
        self.meter.took(start.elapsed());
        let (response, host) = walked?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            head,
            flow: Flow::new(body, host.clone(), self.timeouts),
            host,
            permit,
        })
    }

    /// Sends the request, follows its redirects, and lets a good answer pass.
    async fn walk(
        &self,
        hops: &Hops,
        url: &ForeignUrl,
        span: Span,
    ) -> Result<(Response<Incoming>, Origin), Error> {
        let range = span.header();
        let mut trail = Trail::elsewhere(self.own.clone(), url.url.clone(), url.origin.clone());
        loop {
            let request = self.request(hops, &trail, range.as_ref()).ok_or_else(|| {
                let sentence = format!("{url} leads to something that cannot be asked");
                Error::new(Kind::BadAnswer, sentence)
            })?;
            let purpose = if trail.is_own() {
                Purpose::Own
            } else {
                Purpose::Foreign
            };
            let result = self.clients.send(purpose, trail.origin(), request).await;
            self.meter
                .asked(What::Foreign, result.as_ref().map(Response::status));
            let response = result.map_err(Error::elsewhere)?;
            if is_redirect(response.status()) {
                let (head, body) = response.into_parts();
                trail
                    .follow(&head.headers)
                    .map_err(|error| error.with_status(head.status.as_u16()))?;
                discard(body).await;
                continue;
            }
            let was_redirected = trail.url() != &url.url;
            let judged = judge(&response, trail.origin(), range.is_some(), was_redirected);
            let Err(error) = judged else {
                return Ok((response, trail.origin().clone()));
            };
            debug!(host = %trail.origin(), status = response.status().as_u16(), kind = error.kind().as_str(), "the URL of a foreign layer says no");
            discard(response.into_body()).await;
            return Err(error);
        }
    }

    fn request(
        &self,
        hops: &Hops,
        trail: &Trail,
        range: Option<&HeaderValue>,
    ) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::get(trail.url().as_str())
            .header(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE))
            .header(ACCEPT, HeaderValue::from_static("*/*"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // It is how a way back to us is noticed.
        if let Some(chain) = hops.passed_on(&self.instance) {
            request = request.header(CDN_LOOP, chain);
        }
        if let Some(range) = range {
            request = request.header(RANGE, range.clone());
        }
        request.body(Full::default()).ok()
    }
}

/// Lets a good answer pass. That it is not there is believed of the URL itself, and not of what it redirects to.
fn judge(
    response: &Response<Incoming>,
    host: &Origin,
    is_ranged: bool,
    was_redirected: bool,
) -> Result<(), Error> {
    let status = response.status();
    if !was_redirected && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
        let sentence = format!("{host} does not have it");
        return Err(Error::new(Kind::NotFound, sentence).with_status(status.as_u16()));
    }
    let asked = Asked {
        class: Class::Blob,
        host,
        is_elsewhere: true,
        is_ranged,
    };
    status::judge(status, response.headers(), asked, clock::now())
}
