//! The questions that a pull-through cache has, in the words of the registry API.

use std::sync::{Arc, Mutex};

use http::HeaderMap;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::accounts::Accounts;
use super::answer::{AccountQuota, BlobHead, ManifestBody, ManifestHead, Span};
use super::authenticate::Authenticator;
use super::blob::{BlobStream, length};
use super::client::Clients;
use super::config::{BuildError, Config};
use super::connect::Network;
use super::credentials::Pool;
use super::endpoint::Endpoint;
use super::error::{Error, Kind};
use super::exchange::{Answer, Exchange, Question};
use super::foreign::{Fetcher, ForeignLayers, ForeignUrl};
use super::health::{Breaker, BreakerState};
use super::hops::{Hops, is_token};
use super::limits::Limits;
use super::meter::{Meter, What};
use super::pace::Pace;
use super::parent::Guardian;
use super::realm::TokenHost;
use super::token::Tokens;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::media_type::MANIFEST_ACCEPT;
use crate::oci::{Descriptor, Digest, MediaType, Name, Reference, path};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The longest `ETag` that is kept.
const ETAG_MAX: usize = 256;

/// One upstream registry. Clones share connections, tokens and health.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub(super) exchange: Arc<Exchange>,
    foreign: Arc<Fetcher>,
    foreign_layers: Arc<ForeignLayers>,
    host: Arc<str>,
    manifest_accept: HeaderValue,
    parent: Option<Arc<Guardian>>,
}

impl Upstream {
    /// Sets an upstream up. Nothing is dialled and no credential is read yet.
    pub fn new(config: Config, tasks: &Tasks, metrics: Arc<Metrics>) -> Result<Self, BuildError> {
        let parent = Guardian::new(&config, tasks, &metrics)?;
        let itself = Self::itself(config, tasks, metrics, false)?;
        Ok(Self {
            parent: parent.map(Arc::new),
            ..itself
        })
    }

    /// The same without its parent. One that `must_echo` gives no answers that do not say for whom they are.
    pub(super) fn itself(
        config: Config,
        tasks: &Tasks,
        metrics: Arc<Metrics>,
        must_echo: bool,
    ) -> Result<Self, BuildError> {
        if !is_token(&config.instance) {
            return Err(BuildError::Instance);
        }
        let manifest_accept = HeaderValue::from_str(&MANIFEST_ACCEPT.join(", "))
            .map_err(|_unsendable| BuildError::Instance)?;
        let endpoint = Endpoint::new(&config.url, config.ns.clone())?;
        let own = endpoint.origin().clone();
        let token_hosts = config
            .token_hosts
            .iter()
            .map(|text| TokenHost::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        let network = Network::new(&config, own.clone(), token_hosts.clone())?;
        let concurrent = config.concurrent.max(1);
        let meter = Meter::new(metrics, config.key);
        let pace = Arc::new(Pace::new(own.clone(), &config.allowance, meter.clone()));
        let clients = Clients::new(
            network,
            config.timeouts,
            concurrent,
            Arc::clone(&pace),
            tasks,
        );
        let clients = Arc::new(clients);
        let tokens = Tokens::new(
            own.clone(),
            Arc::clone(&clients),
            config.timeouts,
            meter.clone(),
        );
        let host: Arc<str> = own.to_string().into();
        let foreign = Fetcher::new(
            own.clone(),
            config.instance.clone(),
            Arc::clone(&clients),
            Limits::new(concurrent),
            meter.clone(),
            config.timeouts,
        );
        let pool = Pool::new(config.credentials, host.to_string())?;
        let keep = config.allowance.keep_quota;
        let accounts = Accounts::new(pool.names(), keep, meter.clone());
        let exchange = Exchange {
            endpoint,
            instance: config.instance,
            clients,
            authenticator: Authenticator::new(own, token_hosts, tokens),
            pool,
            limits: Limits::new(concurrent),
            breaker: Breaker::default(),
            meter,
            pace,
            timeouts: config.timeouts,
            accounts,
            holds: Mutex::default(),
            must_echo,
        };
        Ok(Self {
            exchange: Arc::new(exchange),
            foreign: Arc::new(foreign),
            foreign_layers: Arc::new(config.foreign_layers),
            host,
            manifest_accept,
            parent: None,
        })
    }

    /// Asks for a manifest without its body, which costs no pull at Docker Hub.
    pub async fn head_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
    ) -> Result<ManifestHead, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) =
                parent.answer(Box::pin(parent.asked().head_manifest(hops, name, reference)).await)
        {
            return Ok(answer);
        }
        let answer = self.ask_manifest(hops, name, reference, true).await?;
        let headers = &answer.head.headers;
        Ok(ManifestHead {
            digest: digest(headers),
            media_type: media_type(headers),
            size: length(headers),
            etag: etag(headers),
        })
    }

    /// Fetches a manifest: its bytes as they were sent. Not compared with any digest here.
    pub async fn get_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
    ) -> Result<ManifestBody, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) =
                parent.answer(Box::pin(parent.asked().get_manifest(hops, name, reference)).await)
        {
            return Ok(answer);
        }
        let answer = self.ask_manifest(hops, name, reference, false).await?;
        let Answer {
            head,
            flow,
            host,
            permit,
        } = answer;
        let _place = permit;
        if length(&head.headers).is_some_and(|length| length > MANIFEST_MAX as u64) {
            return Err(Error::new(
                Kind::BadAnswer,
                format!("{host} has a manifest of more than 4 MiB"),
            ));
        }
        let bytes = flow.collect(MANIFEST_MAX).await?;
        self.exchange.meter.came(bytes.len());
        // It is counted with the rest, and waits for nothing: pulls begin with it.
        let _due = self.exchange.pace.book(bytes.len());
        Ok(ManifestBody {
            bytes,
            media_type: media_type(&head.headers),
            digest_header: digest(&head.headers),
            etag: etag(&head.headers),
        })
    }

    /// Asks whether a blob is there.
    pub async fn head_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<BlobHead, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) =
                parent.answer(Box::pin(parent.asked().head_blob(hops, name, digest)).await)
        {
            return Ok(answer);
        }
        let answer = self
            .ask_blob(hops, name, digest, Span::Whole, (true, false))
            .await?;
        Ok(BlobHead {
            size: length(&answer.head.headers),
        })
    }

    /// Fetches a blob or a part of it. What is not what was asked for is an error, save that a whole may come for a part.
    pub async fn get_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        span: Span,
    ) -> Result<BlobStream, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) =
                parent.answer(Box::pin(parent.asked().get_blob(hops, name, digest, span)).await)
        {
            return Ok(answer);
        }
        let answer = self
            .ask_blob(hops, name, digest, span, (false, false))
            .await?;
        self.stream(answer, span)
    }

    /// The same where it is not needed: refused where there is no place for it at once, so that it keeps nobody from what they need.
    pub async fn get_blob_ahead(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        span: Span,
    ) -> Result<BlobStream, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) = parent
                .answer(Box::pin(parent.asked().get_blob_ahead(hops, name, digest, span)).await)
        {
            return Ok(answer);
        }
        let answer = self
            .ask_blob(hops, name, digest, span, (false, true))
            .await?;
        self.stream(answer, span)
    }

    /// Which URLs of manifests it fetches layers from.
    pub fn foreign_layers(&self) -> &ForeignLayers {
        &self.foreign_layers
    }

    /// Fetches a foreign layer or a part of it from where a manifest says that it is, without credentials. [`Kind::NotFound`]: it is not there.
    pub async fn get_foreign(
        &self,
        hops: &Hops,
        url: &ForeignUrl,
        span: Span,
    ) -> Result<BlobStream, Error> {
        let answer = self.foreign.get(hops, url, span, false).await?;
        self.stream(answer, span)
    }

    /// The same where it is not needed, as [`Upstream::get_blob_ahead`].
    pub async fn get_foreign_ahead(
        &self,
        hops: &Hops,
        url: &ForeignUrl,
        span: Span,
    ) -> Result<BlobStream, Error> {
        let answer = self.foreign.get(hops, url, span, true).await?;
        self.stream(answer, span)
    }

    /// All tags of an image, every page of them. What is no tag is left out.
    pub async fn tags(&self, hops: &Hops, name: &Name) -> Result<Vec<String>, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) = parent.answer(Box::pin(parent.asked().tags(hops, name)).await)
        {
            return Ok(answer);
        }
        self.exchange.tags(hops, name).await
    }

    /// What refers to a manifest, every page of it. [`Kind::NotFound`]: there is no such API at this upstream.
    pub async fn referrers(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        if let Some(parent) = &self.parent
            && let Some(answer) =
                parent.answer(Box::pin(parent.asked().referrers(hops, name, digest)).await)
        {
            return Ok(answer);
        }
        self.exchange.referrers(hops, name, digest).await
    }

    /// Its credentials, and what is left of the pulls that it grants each, as of its last answer that told.
    pub fn quotas(&self) -> Vec<AccountQuota> {
        self.exchange.accounts.shown()
    }

    /// The credential that the next pull would use, by its name; none where every quota is spent as far as it may be.
    pub fn next_credential(&self) -> Option<String> {
        self.exchange.accounts.next_credential()
    }

    /// A number that is another one whenever there is something new in [`Upstream::quotas`].
    pub fn quota_changes(&self) -> u64 {
        self.exchange.accounts.changes()
    }

    /// Takes up what an earlier run was told.
    pub fn restore_quotas(&self, told: &[AccountQuota]) {
        self.exchange.accounts.restore(told);
    }

    /// How many pulls of each quota are never used; 0: nothing is kept, and no pull refused for its sake.
    pub fn keep_quota(&self) -> u64 {
        self.exchange.accounts.keep()
    }

    /// Sets pulls aside for a manifest that clients are about to be told of, so that they get it when they ask. False where that would use
    /// what is kept of the quota: then they are better not told.
    pub fn promise_pulls(&self, digest: &Digest, pulls: u64) -> bool {
        self.exchange.accounts.promise(&digest.to_string(), pulls)
    }

    /// What is left of a promise is for its children now.
    pub fn pass_promise_on<'a>(
        &self,
        digest: &Digest,
        children: impl Iterator<Item = &'a Descriptor>,
    ) {
        let children = children.map(|child| child.digest().to_string()).collect();
        self.exchange
            .accounts
            .pass_on(&digest.to_string(), children);
    }

    /// Whether it is asked at all at the moment.
    pub fn breaker(&self) -> BreakerState {
        self.exchange.breaker.state(Instant::now())
    }

    /// Whether it is all of a registry, and that one: not a part of another that stands at the same host.
    pub fn is_registry(&self, host: &str) -> bool {
        self.host() == host && self.exchange.endpoint.is_whole_host()
    }

    /// Its host, with the port where that is not the usual one.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn stream(&self, answer: Answer, span: Span) -> Result<BlobStream, Error> {
        let Exchange { meter, pace, .. } = &*self.exchange;
        BlobStream::new(answer, span, meter.clone(), Arc::clone(pace))
    }

    async fn ask_manifest(
        &self,
        hops: &Hops,
        name: &Name,
        reference: &Reference,
        is_head: bool,
    ) -> Result<Answer, Error> {
        let question = Question {
            hops,
            name,
            what: What::Manifest,
            is_head,
            url: self
                .exchange
                .endpoint
                .url(&path::manifest(name, reference), &[]),
            digest: match reference {
                Reference::Digest(digest) => Some(digest.to_string()),
                Reference::Tag(_) => None,
            },
            accept: self.manifest_accept.clone(),
            range: None,
            is_extra: false,
        };
        self.exchange.ask(&question).await
    }

    async fn ask_blob(
        &self,
        hops: &Hops,
        name: &Name,
        digest: &Digest,
        span: Span,
        (is_head, is_extra): (bool, bool),
    ) -> Result<Answer, Error> {
        let question = Question {
            hops,
            name,
            what: What::Blob,
            is_head,
            url: self.exchange.endpoint.url(&path::blob(name, digest), &[]),
            digest: None,
            accept: HeaderValue::from_static("*/*"),
            range: span.header(),
            is_extra,
        };
        self.exchange.ask(&question).await
    }
}

/// `Docker-Content-Digest`, if it stands there once and is a digest.
fn digest(headers: &HeaderMap) -> Option<Digest> {
    let mut all = headers.get_all(CONTENT_DIGEST).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return None;
    };
    Digest::parse(value.to_str().ok()?).ok()
}

fn media_type(headers: &HeaderMap) -> Option<MediaType> {
    MediaType::parse(headers.get(CONTENT_TYPE)?.to_str().ok()?)
}

fn etag(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(ETAG)?.to_str().ok()?;
    (text.len() <= ETAG_MAX).then(|| text.to_owned())
}
