//! The composition root: builds what the configuration says, wires it, runs it until a signal, ends it in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use http::{Request, Response};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::api::{self, Api, Role};
use crate::audit::{self, AuditFile};
use crate::auth::oidc::{self, Fetch};
use crate::auth::{self, ApiTokens, Auth, Identity, Prepared, Table};
use crate::body::Body;
use crate::cache::Shared;
use crate::config::Resolved;
use crate::limits::Limits;
use crate::overlay;
use crate::repository::{
    Catalog, Definitions, FileSettings, Question, Settings, Workshop, explain as explain_pull,
};
use crate::server::{self, Connection, Handler, ListenerConfig, RequestBody, Server};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{
    self, CredentialConfig, Documents, ProxyConfig, SecretSource, Timeouts, Upstream,
};

/// How often what is remembered of failed logins is looked through.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How often the files of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(10);
/// How long background tasks may take to end.
const TASKS_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the configuration once more, as it was read at the start.
pub type ReadAgain = Box<dyn Fn() -> Result<Resolved, String> + Send + Sync>;

/// Runs the mirror until SIGTERM or SIGINT. A second signal ends it at once. SIGHUP has configuration and certificates read again.
///
/// The admin socket lies in the data directory, or in a directory of its own in `runtime`.
pub async fn run(
    config: Resolved,
    proxy: ProxyConfig,
    (audit, runtime): (AuditFile, PathBuf),
    read_again: ReadAgain,
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
    let addresses = server.addresses();
    let mut own_hosts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    own_hosts.extend(
        config
            .external_url
            .as_ref()
            .and_then(url::Url::host_str)
            .map(str::to_owned),
    );
    let api = Api::new(
        api::Config {
            catalog: catalog.clone(),
            auth: auth.clone(),
            limits: Arc::clone(&limits),
            open_writes: config.open_writes(),
            store: store.clone(),
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
    // Before anybody is told that it listens: from there on it is stopped in order.
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let mut hangup = signal(SignalKind::hangup())?;
    for (address, role) in addresses.iter().zip(&roles) {
        let tls = *role != Role::Admin && !config.tls.is_empty();
        let role = match role {
            Role::Admin | Role::Owner => "admin",
            Role::Bound(_) => "bound",
            Role::Registry => "registry",
        };
        info!(address = %address, tls, role, "listening");
    }
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (signalled, draining) = (shutdown.clone(), Arc::clone(&api));
    let reloading = tasks.stopping();
    tasks.spawn("reload", async move {
        let mut look = tokio::time::interval(CERTIFICATES_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => match certificates.reload_changed().await {
                    Ok(true) => info!("certificates changed, and were read again"),
                    Ok(false) => {}
                    Err(error) => warn!(%error, "certificates changed, and cannot be used; the ones in use stay"),
                },
                _ = hangup.recv() => {
                    if let Err(error) = audit.reopen() {
                        warn!(%error, "SIGHUP: audit.path cannot be opened again; lines go to the file that was open");
                    }
                    match certificates.reload().await {
                        Ok(()) => info!("SIGHUP: certificates were read again"),
                        Err(error) => warn!(%error, "SIGHUP: these certificates cannot be used; the ones in use stay"),
                    }
                    reload(&catalog, (auth.as_deref(), &issuers, &limits), &config, &read_again).await;
                }
                () = reloading.cancelled() => return,
            }
        }
    });
    let stopping = tasks.stopping();
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
    tasks.spawn("signals", async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stopping.cancelled() => return,
        }
        info!("stopping: requests under way are finished first; a second signal ends at once");
        draining.drain();
        signalled.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stopping.cancelled() => return,
        }
        warn!("ended by a second signal");
        std::process::exit(1);
    });
    server.run(Arc::new(Front { api }), &tasks, shutdown).await;
    tasks.stop(TASKS_PATIENCE).await;
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

/// Takes the users, rules and repositories that the file has now. Anything wrong with it leaves everything as it is.
async fn reload(
    catalog: &Catalog,
    (auth, issuers, limits): (Option<&Auth>, &Issuers, &Limits),
    running: &Resolved,
    read_again: &ReadAgain,
) {
    let fresh = match read_again() {
        Ok(fresh) => fresh,
        Err(error) => {
            warn!("SIGHUP: this configuration cannot be used; the one in use stays\n{error}");
            configured("failed");
            return;
        }
    };
    for key in running.needs_restart(&fresh) {
        warn!(key, "SIGHUP: a change of this needs a restart");
    }
    // Everything that may be wrong is found before anything is taken: rules that are in force without their repositories would be others.
    let prepared = match (auth, &fresh.auth) {
        (Some(auth), Some(fresh)) => match prepare(issuers, fresh) {
            Ok((prepared, sources)) => Some((auth, prepared, sources)),
            Err(error) => {
                warn!(
                    error = format!("{error:#}"),
                    "SIGHUP: these users or issuers cannot be used; users, rules and repositories in use stay"
                );
                configured("failed");
                return;
            }
        },
        _ => None,
    };
    if let Err(error) = catalog.reload(file_settings(&fresh)).await {
        warn!(%error, "SIGHUP: these repositories cannot be used; users, rules and repositories in use stay");
        configured("failed");
        return;
    }
    if let Some((auth, prepared, sources)) = prepared {
        auth.take(prepared);
        auth.trust(sources, &issuers.tasks);
    }
    limits.reload(fresh.client_limits);
    configured("done");
    info!("SIGHUP: the repositories of the configuration were read again, and its limits");
}

/// Reads users, and sets up what issuers need, of a configuration that is not in force yet.
fn prepare(
    issuers: &Issuers,
    fresh: &auth::Config,
) -> anyhow::Result<(Prepared, Vec<(oidc::Config, Fetch)>)> {
    let sources = issuers.sources(&fresh.oidc)?;
    Ok((Auth::prepare(fresh.clone())?, sources))
}

fn configured(outcome: &str) {
    info!(target: audit::TARGET, action = "configure", outcome, "the configuration was read again");
}

/// What can be found wrong with a configuration without listening, dialling or touching the store. Answers warnings.
pub fn check(config: &Resolved, proxy: &ProxyConfig) -> anyhow::Result<Vec<String>> {
    let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
    server::check_certificates(&config.tls, config.clients.as_ref())
        .context("cannot set up server.tls")?;
    let mut warnings = Vec::new();
    if let Some(users) = config.auth.as_ref().and_then(|auth| auth.users.as_ref()) {
        let text = std::fs::read_to_string(users).with_context(|| {
            format!(
                "cannot read auth.users {}; make it with `roadstead user add NAME`",
                users.display()
            )
        })?;
        Table::parse(&text, users)?;
    }
    if let Some(auth) = &config.auth {
        let issuers = Issuers {
            proxy: proxy.clone(),
            instance: "check".to_owned(),
            tasks: tasks.clone(),
            metrics: Arc::clone(&metrics),
        };
        issuers.sources(&auth.oidc)?;
    }
    for remote in config.remotes() {
        Upstream::new(
            remote.upstream(proxy, "check"),
            &tasks,
            Arc::clone(&metrics),
        )
        .with_context(|| format!("cannot set up remote.{}", remote.key))?;
        for credential in &remote.credentials {
            let path = match credential {
                CredentialConfig::Static {
                    password: SecretSource::File(path),
                    ..
                }
                | CredentialConfig::DockerConfig { path } => path,
                CredentialConfig::Static {
                    password: SecretSource::Value(_),
                    ..
                }
                | CredentialConfig::Helper { .. } => continue,
            };
            if let Err(error) = std::fs::File::open(path) {
                warnings.push(format!(
                    "remote.{}.credentials: {} cannot be read: {error}",
                    remote.key,
                    path.display()
                ));
            }
        }
    }
    Ok(warnings)
}

/// Collects what nothing refers to in the local repositories of a store that nobody else has; answers as `POST /admin/gc` does.
pub async fn collect(config: Resolved, dry_run: bool) -> anyhow::Result<Value> {
    let (tasks, store, catalog) = alone(&config, ProxyConfig::default()).await?;
    let mut gone = Vec::new();
    // Those that were made at run time too.
    let locals = catalog.current().locals();
    for local in locals {
        let collected = local.collect_now(config.collection.grace, dry_run);
        let collected = collected.await?;
        gone.extend(collected.iter().map(|one| one.to_json(local.key())));
    }
    drop(catalog);
    tasks.stop(TASKS_PATIENCE).await;
    store.close().await;
    Ok(serde_json::json!({ "collected": gone }))
}

/// Everything there is in a store that nobody else has, with nothing running in the background.
async fn alone(config: &Resolved, proxy: ProxyConfig) -> anyhow::Result<(Tasks, Store, Catalog)> {
    let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
    let store = Store::open(config.storage.clone(), &tasks).await?;
    let workshop = Workshop {
        cache: Shared::new(store.clone(), tasks.clone(), metrics),
        overlay: overlay::Shared::new(store.clone(), &tasks).await?,
        proxy,
        instance: "command".to_owned(),
    };
    let catalog = Catalog::open(workshop, file_settings(config)).await?;
    Ok((tasks, store, catalog))
}

/// Explains a pull from a store that nobody else has; answers as `GET /admin/explain` does.
pub async fn explain(
    config: Resolved,
    proxy: ProxyConfig,
    question: Question,
) -> anyhow::Result<Value> {
    let (tasks, store, catalog) = alone(&config, proxy).await?;
    let auth = config.auth.clone();
    let auth = auth.map(|auth| Auth::open(auth, &config.storage.path));
    let auth = auth.transpose()?;
    let told = explain_pull(&catalog.current(), auth.as_ref(), &question).await;
    let told = told.map(|told| told.to_json());
    drop(catalog);
    tasks.stop(TASKS_PATIENCE).await;
    store.close().await;
    Ok(told?)
}

/// Hashes every blob of a store that nobody else has; with `anew`, from a fresh index. Answers as `POST /admin/verify` does.
pub async fn verify(config: Resolved, anew: bool) -> anyhow::Result<Value> {
    let tasks = Tasks::new();
    if anew {
        Store::forget_index(&config.storage)?;
    }
    let store = Store::open(config.storage, &tasks).await?;
    let verified = store.verify().await?;
    tasks.stop(TASKS_PATIENCE).await;
    store.close().await;
    Ok(verified.to_json())
}

/// What is done with API tokens.
#[derive(Debug)]
pub enum TokenCommand {
    /// One is made, as `POST /admin/tokens` takes it.
    Create(Value),
    /// All are told.
    List,
    /// One is revoked.
    Revoke(String),
}

/// Makes, tells or revokes API tokens in a store that nobody else has; answers as `/admin/tokens` does.
pub async fn tokens(config: Resolved, command: TokenCommand) -> anyhow::Result<Value> {
    let auth = config.auth.context(
        "the configuration has no [auth], so there are no users and no tokens of theirs; write [auth] users = \"users.htpasswd\"",
    )?;
    let tasks = Tasks::new();
    let store = Store::open(config.storage.clone(), &tasks).await?;
    let tokens = ApiTokens::open(store.clone(), &tasks).await?;
    let auth = Auth::open(auth, &config.storage.path)?.with_api_tokens(tokens);
    let owner = Identity::owner();
    let done = match command {
        TokenCommand::Create(sent) => {
            let made = auth.create_api_token(&sent, owner.subject()).await;
            made.map(|made| made.to_json())
        }
        TokenCommand::List => Ok(serde_json::json!({ "tokens": auth.list_api_tokens() })),
        TokenCommand::Revoke(name) => {
            let revoked = auth.revoke_api_token(&name, owner.subject()).await;
            revoked.map(|()| Value::Null)
        }
    };
    tasks.stop(TASKS_PATIENCE).await;
    store.close().await;
    Ok(done?)
}

/// Shows how full the store is whenever the metrics are read.
fn show(metrics: &Metrics, store: &Store) {
    let store = store.clone();
    metrics.before_render(move |metrics| {
        let usage = store.usage();
        let shown = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        metrics.cached_bytes.set(shown(usage.cached_bytes));
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

/// What issuers of tokens are asked with.
struct Issuers {
    proxy: ProxyConfig,
    instance: String,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Issuers {
    /// Each issuer with what fetches its keys, like an upstream's answers.
    fn sources(&self, told: &[oidc::Config]) -> anyhow::Result<Vec<(oidc::Config, Fetch)>> {
        let source = |told: &oidc::Config| {
            let url = url::Url::parse(&told.issuer)?;
            let config = upstream::Config {
                allow_addresses: told.allow_addresses.clone(),
                ca: told.ca.clone(),
                proxy: self.proxy.clone(),
                concurrent: 1,
                timeouts: Timeouts {
                    connect: oidc::PATIENCE,
                    tls: oidc::PATIENCE,
                    headers: oidc::PATIENCE,
                    idle: oidc::PATIENCE,
                    ..Timeouts::default()
                },
                ..upstream::Config::new("auth.oidc", url, self.instance.clone())
            };
            let documents = Documents::new(config, &self.tasks, Arc::clone(&self.metrics))?;
            let documents = Arc::new(documents);
            let fetch = Fetch::new(move |url, max| {
                let documents = Arc::clone(&documents);
                async move {
                    let document = documents.get(&url, max).await;
                    document.map_err(|error| error.to_string())
                }
            });
            anyhow::Ok((told.clone(), fetch))
        };
        told.iter()
            .map(|told| {
                source(told).with_context(|| format!("cannot set up auth.oidc {}", told.issuer))
            })
            .collect()
    }
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
