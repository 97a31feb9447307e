//! Small documents of a server that is no registry: what an issuer of tokens says of itself, and its keys.
//!
//! The address guard, the certificate authorities and the proxies are those of upstreams. No credentials, and no redirect is followed: a
//! document counts for what is said at its own URL.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;

use super::USER_AGENT_VALUE;
use super::client::Clients;
use super::config::{BuildError, Config, Timeouts};
use super::connect::Network;
use super::endpoint::{Origin, parse};
use super::error::{Error, Kind};
use super::flow::{Flow, discard};
use super::guard::Purpose;
use super::meter::{Meter, What};
use super::pace::Pace;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Fetches documents of one server, and those that it keeps elsewhere.
#[derive(Debug)]
pub struct Documents {
    own: Origin,
    clients: Clients,
    meter: Meter,
    timeouts: Timeouts,
}

impl Documents {
    /// Of the server at `config.url`, which may be inside because it is configured; what it keeps on other hosts may be there only as
    /// `allow_addresses` says, or at a private address where it has one itself.
    pub fn new(config: Config, tasks: &Tasks, metrics: Arc<Metrics>) -> Result<Self, BuildError> {
        let url = parse(config.url.as_str(), None).map_err(|_unusable| BuildError::Url)?;
        let own = Origin::of(&url).ok_or(BuildError::Url)?;
        let network = Network::new(&config, own.clone(), Vec::new())?;
        let meter = Meter::new(metrics, config.key);
        let pace = Arc::new(Pace::new(own.clone(), &config.allowance, meter.clone()));
        let clients = Clients::new(network, config.timeouts, config.concurrent, pace, tasks);
        Ok(Self {
            own,
            clients,
            meter,
            timeouts: config.timeouts,
        })
    }

    /// The document at a URL, at most `max` bytes of it.
    pub async fn get(&self, url: &str, max: usize) -> Result<Bytes, Error> {
        let bad = |sentence: String| Error::new(Kind::BadAnswer, sentence);
        let url = parse(url, None).map_err(|error| bad(format!("a document's URL {error}")))?;
        let host =
            Origin::of(&url).ok_or_else(|| bad("a document's URL has no host".to_owned()))?;
        // In the clear anybody on the way could put in keys of their own.
        if !host.is_https() && !is_loopback(&host) {
            return Err(bad(format!("{host} is asked over https alone")));
        }
        let purpose = if host == self.own {
            Purpose::Own
        } else {
            Purpose::Token
        };
        let request = Request::get(url.as_str())
            .header(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .body(Full::default())
            .map_err(|_unsendable| bad(format!("{host} cannot be asked for this URL")))?;
        let result = self.clients.send(purpose, &host, request).await;
        let status = result.as_ref().map(http::Response::status);
        self.meter.asked(What::Document, status);
        let (head, body) = result?.into_parts();
        if head.status != StatusCode::OK {
            discard(body).await;
            let code = head.status.as_u16();
            let error = match code {
                300..=399 => bad(format!("{host} redirects, which is not followed")),
                _ => bad(format!("{host} answered {code}")),
            };
            return Err(error.with_status(code));
        }
        let encoding = head.headers.get(CONTENT_ENCODING);
        if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let sentence = format!("{host} answers in an encoding that was not asked for");
            return Err(bad(sentence));
        }
        Flow::new(body, host, self.timeouts).collect(max).await
    }
}

fn is_loopback(host: &Origin) -> bool {
    match host.host() {
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
        url::Host::Domain(name) => name == "localhost",
    }
}
