//! The composition root: builds what the configuration says, wires it, runs it until a signal, ends it in order.

mod alone;
mod check;
mod issuers;
mod reload;
mod signals;
mod syncs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use alone::verify;
pub use check::check;

use issuers::Issuers;
use signals::{Reloading, Running};
use syncs::Syncs;

use crate::api::{self, Api, Role};
use crate::audit::AuditFile;
use crate::auth::{ApiTokens, Auth};
use crate::body::Body;
use crate::bundle::sync::schedule::Schedules;
use crate::cache::Shared;
use crate::config::Resolved;
use crate::limits::Limits;
use crate::overlay;
use crate::repository::records::Records;
use crate::repository::{Catalog, Definitions, FileSettings, Settings, Workshop};
use crate::server::{self, Connection, Handler, ListenerConfig, RequestBody, Server};
use crate::store::{Store, Trimmed};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::ProxyConfig;

/// How often what is remembered of failed logins is looked through.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How long background tasks may take to end.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the configuration once more, as it was read at the start.
pub type ReadAgain = Box<dyn Fn() -> Result<Resolved, String> + Send + Sync>;

/// What ends a mirror.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub enum Until {
    /// SIGTERM or SIGINT, a second one at once; SIGHUP has configuration and certificates read again.
    Signals(ReadAgain),
    /// A command that has it in its own process.
    Told(Told),
}

/// How a command and the mirror in its process hear of each other.
#[derive(Debug)]
pub struct Told {
    /// Where the mirror listens, as soon as it takes requests.
    pub ready: oneshot::Sender<Vec<SocketAddr>>,
    /// Cancelled when it is to end.
    pub stop: CancellationToken,
    /// What whoever started it wants to have done and to hear at the end.
    pub last: Option<Last>,
}

/// What a mirror does when everything has ended but the store.
#[derive(Debug)]
pub struct Last {
    /// The most bytes that stay cached; parts and what is in quarantine go.
    pub max_size: u64,
    /// Hears of it.
    pub told: oneshot::Sender<Ended>,
}

/// What a mirror has done.
#[derive(Debug)]
pub struct Ended {
    /// All its metrics, as `/metrics` tells them.
    pub metrics: String,
    /// What became of the store.
    pub trimmed: Trimmed,
}

/// Runs the mirror until it is told to end.
///
/// The admin socket lies in the data directory, or in a directory of its own in `runtime`.
pub async fn run(
    config: Resolved,
    proxy: ProxyConfig,
    (audit, runtime): (AuditFile, PathBuf),
    until: Until,
) -> anyhow::Result<()> {
    if let Some(path) = &config.audit {
        let opened = audit.open(path);
        opened.with_context(|| format!("cannot open audit.path {}", path.display()))?;
    }
    let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
    // Listening comes first: an address that is taken must not cost a recovery.
    let (mut roles, listeners) = listeners(&config);
    let mut server = Server::bind(
        server::Config {
            listeners,
            limits: config.limits,
        },
        Arc::clone(&metrics),
    )
    .await?;
    let certificates = server.certificates();
    let store = Store::open(config.storage.clone(), &tasks).await?;
    roles.push(Role::Owner);
    listen_to_owner(
        &mut server,
        &store,
        (&config.storage.path, &runtime),
        roles.len() - 1,
    );
    show(&metrics, &store);
    let lines = audit.clone();
    metrics.before_render(move |metrics| {
        metrics.audit_failed.inner().store(lines.failed(), Relaxed);
    });
    let instance = format!("roadstead-{}", uuid::Uuid::new_v4().simple());
    let workshop = Workshop {
        cache: Shared::new(store.clone(), tasks.clone(), Arc::clone(&metrics)),
        overlay: overlay::Shared::new(store.clone(), &tasks)
            .await
            .context("cannot take up the uploads")?,
        proxy: proxy.clone(),
        instance: instance.clone(),
    };
    let tokens = ApiTokens::open(store.clone(), &tasks).await?;
    let auth = config
        .auth
        .clone()
        .map(|auth| Auth::open(auth, &config.storage.path))
        .transpose()?
        .map(|auth| Arc::new(auth.with_api_tokens(tokens)));
    let limits = Arc::new(Limits::new(config.client_limits));
    let issuers = Issuers {
        proxy: proxy.clone(),
        instance: instance.clone(),
        tasks: tasks.clone(),
        metrics: Arc::clone(&metrics),
    };
    if let (Some(auth), Some(told)) = (&auth, &config.auth) {
        auth.trust(issuers.sources(&told.oidc)?, &tasks);
    }
    let catalog = Catalog::open(workshop, file_settings(&config)).await?;
    catalog.collect_in_background(config.collection);
    catalog.keep_quotas_in_background();
    let records = Records::open(store.clone(), Arc::clone(&metrics), config.records).await?;
    records.write_in_background(&tasks);
    let (addresses, has_tls) = (server.addresses(), !config.tls.is_empty());
    let mut own_hosts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    own_hosts.extend(
        config
            .external_url
            .as_ref()
            .and_then(url::Url::host_str)
            .map(str::to_owned),
    );
    let schedules = Schedules::default();
    let api = Api::new(
        api::Config {
            catalog: catalog.clone(),
            auth: auth.clone(),
            limits: Arc::clone(&limits),
            open_writes: config.open_writes(),
            store: store.clone(),
            tasks: tasks.clone(),
            records,
            schedules: schedules.clone(),
            grace: config.collection.grace,
            external_url: config
                .external_url
                .as_ref()
                .map(|url| url.as_str().trim_end_matches('/').to_owned()),
            own_hosts,
            trusted_proxies: config.trusted_proxies.clone(),
            roles: roles.clone(),
            instance,
        },
        Arc::clone(&metrics),
    );
    let api = Arc::new(api);
    let shutdown = CancellationToken::new();
    let running = Running {
        api: Arc::clone(&api),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
    };
    // Before anybody is told that it listens: from there on it is stopped in order.
    let ready = match until {
        Until::Signals(read_again) => {
            // A mirror that is there for one command has nothing else to do.
            let syncs = Arc::new(Syncs {
                catalog: catalog.clone(),
                store: store.clone(),
                metrics: Arc::clone(&metrics),
                schedules,
                tasks: tasks.clone(),
                running: Mutex::default(),
            });
            syncs.take(&config.syncs);
            let reload = Reloading {
                audit,
                certificates,
                catalog,
                issuers,
                limits,
                syncs,
                config,
                read_again,
            };
            running.end_by_signals()?;
            running.reload_by_signals(reload)?;
            (None, None)
        }
        Until::Told(Told { ready, stop, last }) => {
            running.end_when(stop);
            (Some(ready), last)
        }
    };
    let (ready, last) = ready;
    for (address, role) in addresses.iter().zip(&roles) {
        let tls = *role != Role::Admin && has_tls;
        let role = match role {
            Role::Admin | Role::Owner => "admin",
            Role::Bound(_) => "bound",
            Role::Registry => "registry",
        };
        info!(address = %address, tls, role, "listening");
    }
    if let Some(auth) = api.auth() {
        let (auth, stopping) = (Arc::clone(auth), tasks.stopping());
        tasks.spawn("logins", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => {
                        auth.write_api_token_uses().await;
                        return;
                    }
                    () = tokio::time::sleep(TIDY_EVERY) => {
                        auth.tidy();
                        auth.write_api_token_uses().await;
                    }
                }
            }
        });
    }
    if let Some(ready) = ready {
        // Whoever asked may have gone; then `stop` says so.
        let _gone = ready.send(addresses);
    }
    server.run(Arc::new(Front { api }), &tasks, shutdown).await;
    tasks.stop(TASKS_PATIENCE).await;
    if let Some(Last { max_size, told }) = last {
        // By now nothing is downloaded any more, so that what is counted is all, and what is cut stays cut.
        let trimmed = store.trim(max_size).await.unwrap_or_else(|error| {
            warn!(%error, "the store could not be cut down");
            Trimmed::default()
        });
        let metrics = metrics.render();
        let _whoever_asked_may_be_gone = told.send(Ended { metrics, trimmed });
    }
    store.close().await;
    info!("stopped");
    Ok(())
}

/// Takes commands of whoever owns the process. What stands in the way costs the commands, and nothing else.
fn listen_to_owner(
    server: &mut Server,
    store: &Store,
    (data, runtime): (&Path, &Path),
    role: usize,
) {
    if let Some(left) = store.left_socket() {
        server::forget_socket(&left);
    }
    let listening = std::fs::canonicalize(data)
        .and_then(|data| server.listen_to_owner(&data, runtime, role))
        .and_then(|socket| store.name_socket(&socket).map(|()| socket));
    match listening {
        Ok(socket) => info!(socket = %socket.display(), "commands are taken"),
        Err(error) => {
            warn!(%error, "no admin socket; commands such as gc need this mirror stopped");
        }
    }
}

/// What routing knows of every configured repository.
pub fn definitions(config: &Resolved) -> Definitions {
    let settings = config.repositories.values();
    Definitions::new(
        settings.map(Settings::definition).collect(),
        config.default.clone(),
    )
}

/// What the file says of repositories.
fn file_settings(config: &Resolved) -> FileSettings {
    let hosts = config.binds.iter().filter_map(|bind| {
        let host = bind.host.as_ref()?.to_ascii_lowercase();
        Some((host, bind.repository.clone()))
    });
    FileSettings {
        repositories: config.repositories.clone(),
        default: config.default.clone(),
        hosts: hosts.collect(),
    }
}

/// Shows how full the store is whenever the metrics are read.
fn show(metrics: &Metrics, store: &Store) {
    let store = store.clone();
    metrics.before_render(move |metrics| {
        let usage = store.usage();
        let shown = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        metrics.cached_bytes.set(shown(usage.cached_bytes));
        metrics.kept_bytes.set(shown(usage.kept_bytes));
        metrics.part_bytes.set(shown(usage.part_bytes));
        metrics
            .quarantined_bytes
            .set(shown(usage.quarantined_bytes));
        metrics.reserved_bytes.set(shown(usage.reserved_bytes));
        metrics.cached_bytes_max.set(shown(usage.max_size));
        metrics.cached_blobs.set(shown(usage.blobs));
        metrics.pushed_bytes.set(shown(usage.pushed_bytes));
        metrics.upload_bytes.set(shown(usage.upload_bytes));
        metrics.evictions.inner().store(usage.evictions, Relaxed);
        metrics
            .quarantined
            .inner()
            .store(usage.quarantined, Relaxed);
    });
}

/// The API behind the server's sockets.
struct Front {
    api: Arc<Api>,
}

impl Handler for Front {
    async fn handle(
        &self,
        request: Request<RequestBody>,
        connection: Connection,
    ) -> Response<Body> {
        let peer = api::Peer {
            address: connection.peer,
            tls: connection.tls,
            client: connection.client,
            role: connection.role,
        };
        self.api.handle(request, peer).await
    }
}

/// Every listener with its role.
fn listeners(config: &Resolved) -> (Vec<Role>, Vec<ListenerConfig>) {
    let registry = config
        .listen
        .iter()
        .map(|address| (*address, Role::Registry));
    let bound = config
        .binds
        .iter()
        .filter_map(|bind| Some((bind.listen?, Role::Bound(bind.repository.clone()))));
    let admin = config
        .admin_listen
        .iter()
        .map(|address| (*address, Role::Admin));
    let all: Vec<_> = registry.chain(bound).chain(admin).collect();
    let roles = all.iter().map(|(_, role)| role.clone()).collect();
    let listeners = all
        .into_iter()
        .enumerate()
        .map(|(number, (address, role))| ListenerConfig {
            address,
            tls: (role != Role::Admin && !config.tls.is_empty()).then(|| config.tls.clone()),
            clients: config.clients.clone(),
            role: number,
        })
        .collect();
    (roles, listeners)
}
