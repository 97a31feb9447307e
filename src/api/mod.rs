//! HTTP towards clients: which request means what, and what each answer looks like.
//!
//! One column: route → own host → identify → limits → resolve the repository → handle → respond → record. Handlers return values and errors; status codes live in
//! [`error`], headers in [`respond`], the one log line in [`record`].

mod access;
mod admin;
mod artifactory;
mod audited;
mod error;
mod forwarded;
mod paging;
mod record;
mod respond;
mod route;
mod token;
mod v2;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use lru::LruCache;
use tokio::time::Instant;

use crate::auth::{Auth, Identity};
use crate::body::{self, Body, Chunks};
use crate::bundle::sync::schedule::Schedules;
use crate::limits::{Limits, Passage};
use crate::recent::recent;
use crate::repository::records::Records;
use crate::repository::{
    Ask, Catalog, Chosen, Key, Repository, Snapshot, Target, Unresolved, choose, resolve,
};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::Hops;

use artifactory::system;
use error::ApiError;
use record::Record;
use route::{Carry, Route};

/// What a listener is for; the server hands its number back with every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The registry.
    Registry,
    /// The registry, one repository of it.
    Bound(Key),
    /// Health, metrics and administration.
    Admin,
    /// The same for whoever owns the process, who is asked nothing.
    Owner,
}

impl Role {
    /// Whether nothing but health, metrics and administration is there.
    const fn is_administration(&self) -> bool {
        match self {
            Self::Admin | Self::Owner => true,
            Self::Registry | Self::Bound(_) => false,
        }
    }
}

/// What the API needs.
#[derive(Debug)]
pub struct Config {
    /// Every repository.
    pub catalog: Catalog,
    /// Who may do what; without it, whoever reaches us may pull.
    pub auth: Option<Arc<Auth>>,
    /// How much clients may ask.
    pub limits: Arc<Limits>,
    /// Without [`Self::auth`]: whether whoever reaches us may push, delete, promote and administer.
    pub open_writes: bool,
    /// What stands on record, by whom; properties.
    pub store: Store,
    /// What takes its time runs among them.
    pub tasks: Tasks,
    /// What was pulled, and what was missing.
    pub records: Records,
    /// Lists that are brought in the background.
    pub schedules: Schedules,
    /// How long ago what `gc` removes must have been pushed, unless it is told otherwise.
    pub grace: Duration,
    /// How clients call this mirror, without a slash at the end.
    pub external_url: Option<String>,
    /// Our own names, which as `ns` mean none.
    pub own_hosts: Vec<String>,
    /// What each listener is for.
    pub roles: Vec<Role>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// This process in `CDN-Loop`.
    pub instance: String,
}

/// The API. One for the whole process.
#[derive(Debug)]
pub struct Api {
    config: Config,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
    /// Logins that were written down of late, by user and address.
    logins: Mutex<LruCache<(String, IpAddr), Instant>>,
}

/// Whom a request comes from, and by which listener.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client.
    pub address: SocketAddr,
    /// Whether nobody in between can read along.
    pub tls: bool,
    /// The name in the client's certificate.
    pub client: Option<Arc<str>>,
    /// The listener's place in [`Config::roles`].
    pub role: usize,
}

/// One request, as handlers see it.
#[derive(Debug)]
struct Call<'a> {
    method: &'a Method,
    headers: &'a http::HeaderMap,
    /// The repositories, as they were when the request came in.
    there: Arc<Snapshot>,
    /// The path as the client wrote it, for `Link`.
    path: &'a str,
    query: Vec<(String, String)>,
    /// The values of `ns`.
    namespaces: Vec<String>,
    /// Our own names, the one that the client used last.
    own_hosts: Vec<String>,
    hops: Hops,
    /// The other end of the connection.
    peer: SocketAddr,
    /// Whether the connection is TLS.
    tls: bool,
    /// Whether it came to a Host or a listener that means one repository.
    is_bound: bool,
    /// The name in the client's certificate.
    client: Option<Arc<str>>,
    identity: Identity,
}

/// Where a request came in, as far as that chooses a repository.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    role: &'a Role,
    /// The key or host before `/v2`.
    prefix: Option<&'a str>,
}

impl Call<'_> {
    /// The first value of a query parameter; an empty one counts as absent.
    fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The repository that a listener, or the Host that the client used, is bound to.
    fn bound<'a>(&'a self, role: &'a Role) -> Option<&'a Key> {
        let hosts = self.there.hosts();
        let host = self.own_hosts.last().map_or("", String::as_str);
        let without_port = host.rsplit_once(':').map_or(host, |(name, _)| name);
        match role {
            Role::Bound(key) => Some(key),
            Role::Registry | Role::Admin | Role::Owner => {
                hosts.get(host).or_else(|| hosts.get(without_port))
            }
        }
    }

    /// What the request has chosen before its path names an image.
    fn choose<'a>(&'a self, place: Place<'a>) -> Result<Chosen<'a>, Unresolved> {
        choose(
            self.there.definitions(),
            &Ask {
                bound: self.bound(place.role),
                prefix: place.prefix,
                namespaces: &self.namespaces,
                own_hosts: &self.own_hosts,
            },
        )
    }

    /// The repository key and image that `name` means for this request.
    fn resolve(&self, chosen: &Chosen<'_>, name: &str) -> Result<Target, ApiError> {
        Ok(resolve(self.there.definitions(), chosen, name)?)
    }

    /// The repository of a key that the one who asks may know of.
    fn repository(&self, key: &Key) -> Result<&Repository, ApiError> {
        match self.there.get(key) {
            Some(repository) => Ok(repository),
            None if self.there.is_left_out(key) => Err(ApiError::left_out(key.as_str())),
            None => Err(ApiError::not_found()),
        }
    }
}

impl Api {
    /// An API over these repositories.
    pub fn new(config: Config, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            metrics,
            draining: AtomicBool::new(false),
            logins: Mutex::new(recent(access::LOGINS_NOTED)),
        }
    }

    /// Who may do what.
    pub const fn auth(&self) -> Option<&Arc<Auth>> {
        self.config.auth.as_ref()
    }

    /// From now on `/readyz` says that nothing new should be sent here.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Answers one request: whatever happens, there is an answer and one line in the log.
    pub async fn handle<B>(&self, request: Request<B>, peer: Peer) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: fmt::Display + Send,
    {
        let client = forwarded::client(
            peer.address,
            request.headers(),
            &self.config.trusted_proxies,
        );
        let mut record = Record::begin(&request, client, Arc::clone(&self.metrics));
        let (parts, incoming) = request.into_parts();
        let incoming = body::chunks(incoming);
        let mut response = match self.dispatch(&parts, incoming, peer, &mut record).await {
            Ok(response) => response,
            Err(error) => error.into_response(&mut record),
        };
        respond::common(&mut response, record.request_id());
        record.finish(response)
    }

    async fn dispatch(
        &self,
        request: &Parts,
        body: Chunks,
        peer: Peer,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let role = self.config.roles.get(peer.role).unwrap_or(&Role::Registry);
        let route = route::parse(request.uri.path())?;
        record.note_action(audited::action(&request.method, &route));
        match route {
            Route::Ready if self.draining.load(Ordering::Relaxed) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return plain(&request.method, status, "draining\n");
            }
            Route::Live | Route::Ready => {
                return plain(&request.method, StatusCode::OK, "ok\n");
            }
            Route::Metrics if role.is_administration() => {
                return self.metrics_page(&request.method, |_| true);
            }
            Route::Metrics
            | Route::Promote { .. }
            | Route::Artifact { .. }
            | Route::Storage { .. }
            | Route::Search { .. }
            | Route::Repositories { .. }
            | Route::System { .. }
            | Route::Audit
            | Route::Collection
            | Route::Pins
            | Route::Quota
            | Route::Explain
            | Route::Pulls
            | Route::Pulled
            | Route::Missing
            | Route::Tag { .. }
            | Route::Token { .. }
            | Route::Tokens { .. }
            | Route::Verification
            | Route::Carry(_)
            | Route::Registry { .. } => {}
        }
        if role.is_administration() && !route.is_administration() {
            return Err(ApiError::not_found());
        }
        let is_artifactory = route.is_artifactory();
        let answer = self.identified(request, (route, role), body, peer, record);
        answer
            .await
            .map_err(|error| error.in_envelope(is_artifactory))
    }

    /// Answers one of whom it is asked who they are.
    async fn identified(
        &self,
        request: &Parts,
        (route, role): (Route, &Role),
        body: Chunks,
        peer: Peer,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let mut call = self.call(request, peer, role)?;
        if *role != Role::Owner {
            self.require_own_host(&call, &route)?;
        }
        let class = route.class(call.method);
        if let Route::Token { prefix } = &route {
            // Nobody knows yet who it is.
            let passage = self.enter(&call, class).await?;
            let place = Place {
                role,
                prefix: prefix.as_deref(),
            };
            let answer = self.token(&call, place, body, record).await?;
            return Ok(paced(passage, answer));
        }
        call.identity = match role {
            Role::Owner => Identity::owner(),
            Role::Registry | Role::Bound(_) | Role::Admin => self.identify(&call).await?,
        };
        record.note_user(&call.identity.shown());
        // Administration goes on however busy the registry is.
        let passage = match role {
            Role::Admin | Role::Owner => None,
            Role::Registry | Role::Bound(_) => self.enter(&call, class).await?,
        };
        let body = match &passage {
            Some(passage) => passage.request(body),
            None => body,
        };
        let response = self.answer(&call, (route, role), body, record).await?;
        let mut response = paced(passage, response);
        // The members of a virtual repository are named to those who may read them.
        if let Some(member) = record.member()
            && !self.may_see(&call, member.as_str())
        {
            response.headers_mut().remove(respond::MEMBER);
        }
        Ok(response)
    }

    async fn answer(
        &self,
        call: &Call<'_>,
        (route, role): (Route, &Role),
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        // What is seldom asked for is boxed, so that pulls and pushes do not take its room while they wait.
        match route {
            Route::Artifact { path } => Box::pin(self.delete_path(call, &path, record)).await,
            Route::Storage { path } => Box::pin(self.storage(call, &path, record)).await,
            Route::Search { kind } => Box::pin(self.search(call, &kind, body, record)).await,
            Route::Repositories { key } => {
                let key = key.as_deref();
                Box::pin(self.repositories(call, key, body, record)).await
            }
            Route::System { what } => system::answer(call.method, &what),
            Route::Audit => self.audit(call, record).await,
            Route::Tag { path } => Box::pin(self.tag(call, &path, body, record)).await,
            Route::Metrics => {
                self.require_login(call)?;
                self.metrics_page(call.method, |key| self.may_anything(call, key))
            }
            Route::Collection => self.collection(call, record).await,
            Route::Pins => Box::pin(self.pins(call, record)).await,
            Route::Quota => self.quota(call, record),
            Route::Explain => Box::pin(self.explain(call, record)).await,
            Route::Pulls => Box::pin(self.pulls(call, record)).await,
            Route::Pulled => Box::pin(self.pulled(call, record)).await,
            Route::Missing => Box::pin(self.missing(call, record)).await,
            Route::Tokens { name } => {
                Box::pin(self.tokens(call, name.as_deref(), body, record)).await
            }
            Route::Verification => self.verification(call, record).await,
            Route::Carry(Carry::Sync) if call.method == Method::GET => self.schedules(call, record),
            Route::Carry(carry) if *role == Role::Owner => {
                Box::pin(self.carry(call, carry, body, record)).await
            }
            Route::Promote { prefix, .. } => {
                let prefix = prefix.as_deref();
                let place = Place { role, prefix };
                Box::pin(self.promote(call, place, body, record)).await
            }
            Route::Registry { prefix, endpoint } => {
                let prefix = prefix.as_deref();
                self.registry(call, Place { role, prefix }, endpoint, body, record)
                    .await
            }
            // Answered before anybody was asked who they are, or the owner's alone.
            Route::Live | Route::Ready | Route::Token { .. } | Route::Carry(_) => {
                Err(ApiError::not_found())
            }
        }
    }

    /// A request as handlers see it.
    fn call<'a>(&self, request: &'a Parts, peer: Peer, role: &Role) -> Result<Call<'a>, ApiError> {
        let hops = Hops::from_headers(&request.headers);
        if hops.contains(&self.config.instance) {
            return Err(ApiError::looped());
        }
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(request.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let named = |(name, value): &(String, String)| (name == "ns").then(|| value.clone());
        let mut own_hosts = self.config.own_hosts.clone();
        let Config {
            trusted_proxies, ..
        } = &self.config;
        let host = forwarded::host(peer.address, &request.headers, trusted_proxies);
        if changes(&request.method) && forwarded::is_foreign_page(&request.headers, &host) {
            return Err(ApiError::foreign_page());
        }
        own_hosts.push(host);
        let mut call = Call {
            there: self.config.catalog.current(),
            peer: peer.address,
            tls: peer.tls,
            client: peer.client,
            identity: Identity::anonymous(),
            method: &request.method,
            headers: &request.headers,
            path: request.uri.path(),
            namespaces: query.iter().filter_map(named).collect(),
            query,
            own_hosts,
            hops,
            is_bound: false,
        };
        call.is_bound = call.bound(role).is_some();
        Ok(call)
    }

    /// How the client calls this mirror: scheme and host, without a slash at the end.
    fn base(&self, call: &Call<'_>) -> String {
        let trusted = &self.config.trusted_proxies;
        let host = call.own_hosts.last().map_or("", String::as_str);
        forwarded::base(call.peer, call.headers, trusted)
            // Under that URL the same path means something else.
            .or_else(|| self.config.external_url.clone().filter(|_| !call.is_bound))
            .unwrap_or_else(|| format!("{}://{host}", if call.tls { "https" } else { "http" }))
    }

    /// The metrics, of repositories that the one who asks may know of.
    fn metrics_page(
        &self,
        method: &Method,
        may_know: impl Fn(&str) -> bool,
    ) -> Result<Response<Body>, ApiError> {
        let of = |line: &str| {
            let (_, behind) = line.split_once("repository=\"")?;
            Some(behind.split_once('"')?.0.to_owned())
        };
        let rendered = self.metrics.render();
        let shown = rendered.split_inclusive('\n').filter(|line| {
            let key = of(line);
            key.is_none_or(|key| key == "-" || may_know(&key))
        });
        let mut response = plain(method, StatusCode::OK, &shown.collect::<String>())?;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        );
        Ok(response)
    }
}

/// An answer at its client's pace; the request is under way until it has gone.
fn paced(passage: Option<Passage>, response: Response<Body>) -> Response<Body> {
    match passage {
        Some(passage) => response.map(|body| passage.answer(body)),
        None => response,
    }
}

/// Whether a request may be more than a question.
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

fn plain(method: &Method, status: StatusCode, text: &str) -> Result<Response<Body>, ApiError> {
    if changes(method) {
        return Err(ApiError::method("GET, HEAD"));
    }
    let mut response = Response::new(Body::full(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}
