//! What a login and rules add to a warm `GET` of a manifest: 1,000 users, 200 rules, the one that counts last.
//!
//! `auth` is what each request asks of [`roadstead::auth`]; `request` is the whole of [`Api::handle`], with and without `[auth]`, so that the
//! difference is what a login costs. Nothing listens and nothing is logged.
#![allow(
    clippy::unwrap_used,
    clippy::pedantic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark: a broken assumption should panic where it stands"
)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use roadstead::api::{self, Api, Peer, Role};
use roadstead::auth::{Auth, Grant, Identity, Right, Rights};
use roadstead::bundle::sync::schedule::Schedules;
use roadstead::config::{self, Resolved};
use roadstead::limits::{self, Limits};
use roadstead::oci::Digest;
use roadstead::repository::records::Records;
use roadstead::repository::{Catalog, FileSettings, Workshop};
use roadstead::secret::Secret;
use roadstead::store::Store;
use roadstead::tasks::Tasks;
use roadstead::telemetry::Metrics;
use roadstead::upstream::ProxyConfig;
use roadstead::{cache, overlay};
use tokio::runtime::Runtime;

const USERS: usize = 1_000;
const GROUPS: usize = 20;
const RULES: usize = 200;
const PASSWORD: &str = "a-password-for-everybody";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The one who asks: in the last group and the last rule.
const USER: &str = "user999";
const KEY: &str = "team-199";
const IMAGE: &str = "services/web";

/// Repositories with 200 rules: a fifth of them for everybody, a fifth for groups, the others for users.
fn configuration(data: &Path, is_guarded: bool) -> Resolved {
    let mut text = format!("[storage]\npath = \"{}\"\n", data.display());
    text.push_str("min_free = \"1MiB\"\n[mirror]\ndefault = \"team-0\"\n");
    for n in 0..RULES {
        writeln!(text, "[local.team-{n}]").unwrap();
    }
    if is_guarded {
        write!(
            text,
            "[auth]\nusers = \"{}\"\n[auth.groups]\n",
            data.join("users").display()
        )
        .unwrap();
        for group in 0..GROUPS {
            let members: Vec<String> = (0..USERS)
                .filter(|user| user % GROUPS == group)
                .map(|user| format!("\"user{user}\""))
                .collect();
            writeln!(text, "group{group} = [{}]", members.join(", ")).unwrap();
        }
        for n in 0..RULES {
            let who = match n % 5 {
                0 => "anonymous".to_owned(),
                1 => format!("@group{}", n % GROUPS),
                _ => format!("user{n}"),
            };
            let who = if n == RULES - 1 {
                format!("\"anonymous\", \"@group{}\"", GROUPS - 1)
            } else {
                format!("\"{who}\"")
            };
            write!(
                text,
                "[[auth.allow]]\nwho = [{who}]\non = [\"team-{n}/services/**\"]\nmay = [\"pull\", \"push\"]\n"
            )
            .unwrap();
        }
    }
    config::load(Some(&text), None, &[]).unwrap()
}

struct Mirror {
    api: Api,
    manifest: String,
}

impl Mirror {
    /// An API with one image in one local repository.
    async fn start(data: &Path, is_guarded: bool) -> Self {
        let config = configuration(data, is_guarded);
        let (tasks, metrics) = (Tasks::new(), Arc::new(Metrics::new()));
        let store = Store::open(config.storage.clone(), &tasks).await.unwrap();
        let workshop = Workshop {
            cache: cache::Shared::new(store.clone(), tasks.clone(), Arc::clone(&metrics)),
            overlay: overlay::Shared::new(store.clone(), &tasks).await.unwrap(),
            proxy: ProxyConfig::default(),
            instance: "bench".to_owned(),
        };
        let auth = config.auth.clone();
        let auth = auth.map(|auth| Arc::new(Auth::open(auth, data).unwrap()));
        let settings = FileSettings {
            repositories: config.repositories.clone(),
            default: config.default.clone(),
            hosts: HashMap::new(),
        };
        let records = Records::open(store.clone(), Arc::clone(&metrics), config.records);
        let records = records.await.unwrap();
        records.write_in_background(&tasks);
        let api = Api::new(
            api::Config {
                catalog: Catalog::open(workshop, settings).await.unwrap(),
                auth,
                limits: Arc::new(Limits::new(limits::Config::default())),
                grace: Duration::ZERO,
                open_writes: true,
                records,
                schedules: Schedules::default(),
                store,
                tasks,
                external_url: None,
                own_hosts: vec!["127.0.0.1:5000".to_owned()],
                roles: vec![Role::Registry],
                trusted_proxies: Vec::new(),
                instance: "bench".to_owned(),
            },
            metrics,
        );
        let mirror = Self {
            api,
            manifest: format!("/v2/{KEY}/{IMAGE}/manifests/1"),
        };
        mirror.push().await;
        mirror
    }

    async fn push(&self) {
        let login = basic();
        let config = Digest::of(b"{}");
        let upload = format!("/v2/{KEY}/{IMAGE}/blobs/uploads/?digest={config}");
        let sent = self.ask(Method::POST, &upload, Some(&login), "", "{}");
        assert_eq!(sent.await, StatusCode::CREATED);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let descriptor = format!(
            "{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"{config}\",\"size\":2}}"
        );
        let manifest = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",\"config\":{descriptor},\"layers\":[]}}"
        );
        let sent = self.ask(Method::PUT, &self.manifest, Some(&login), kind, &manifest);
        assert_eq!(sent.await, StatusCode::CREATED);
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        login: Option<&str>,
        kind: &str,
        body: &str,
    ) -> StatusCode {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:5000")
            .header(header::ACCEPT, "*/*");
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if let Some(login) = login {
            request = request.header(header::AUTHORIZATION, login);
        }
        let body = Full::new(Bytes::from(body.to_owned()));
        let peer = Peer {
            address: (CLIENT, 40_000).into(),
            tls: false,
            client: None,
            role: 0,
        };
        let answer = self.api.handle(request.body(body).unwrap(), peer).await;
        let status = answer.status();
        black_box(answer.into_body().collect().await.unwrap().to_bytes());
        status
    }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

/// A token as a client gets it for one image.
fn token(auth: &Auth) -> Secret {
    let grant = Grant {
        key: KEY.to_owned(),
        image: IMAGE.to_owned(),
        may: Rights::default().with(Right::Pull),
    };
    auth.issue(&Identity::user(USER), &[grant]).token
}

fn write_users(data: &Path) {
    // One hash for all: how a password is checked does not depend on the others.
    let hash = roadstead::auth::hash(PASSWORD).unwrap();
    let lines: Vec<String> = (0..USERS).map(|n| format!("user{n}:{hash}\n")).collect();
    std::fs::write(data.join("users"), lines.concat()).unwrap();
}

fn calls(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    write_users(dir.path());
    let config = configuration(dir.path(), true).auth.unwrap();
    let auth = Auth::open(config, dir.path()).unwrap();
    let runtime = runtime();
    let password = Secret::new(PASSWORD);
    let may = |identity: &Identity| {
        assert!(auth.may(identity, KEY, Some(IMAGE), Right::Pull));
    };
    let mut group = criterion.benchmark_group("auth");
    group.bench_function("basic", |bench| {
        bench.iter(|| {
            may(&runtime
                .block_on(auth.by_password(USER, &password, CLIENT))
                .unwrap())
        });
    });
    let token = token(&auth);
    group.bench_function("bearer", |bench| {
        bench.iter(|| may(&auth.by_token(token.expose()).unwrap()));
    });
    group.bench_function("anonymous", |bench| {
        bench.iter(|| may(&Identity::anonymous()));
    });
    group.finish();
}

fn requests(criterion: &mut Criterion) {
    let runtime = runtime();
    let (open, guarded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_users(guarded.path());
    let without = runtime.block_on(Mirror::start(open.path(), false));
    let with = runtime.block_on(Mirror::start(guarded.path(), true));
    let bearer = format!("Bearer {}", token(with.api.auth().unwrap()).expose());
    let login = basic();
    let mut group = criterion.benchmark_group("request");
    for (name, mirror, login) in [
        ("no auth", &without, None),
        ("basic", &with, Some(login.as_str())),
        ("bearer", &with, Some(bearer.as_str())),
        ("anonymous", &with, None),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let asked = mirror.ask(Method::GET, &mirror.manifest, login, "", "");
                assert_eq!(runtime.block_on(asked), StatusCode::OK);
            });
        });
    }
    group.finish();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

criterion_group!(benches, calls, requests);
criterion_main!(benches);
