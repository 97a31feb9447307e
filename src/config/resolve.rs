//! From the file's shapes to what the components take.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use toml::{Spanned, Table, Value};
use url::Url;

use super::diagnose::{ConfigError, Problem};
use super::environment;
use super::file::{self, File};
use super::units::{Span, Timeout};
use crate::bundle::sync::schedule::Scheduled;
use crate::repository::{
    AllSettings, Key, LocalSettings, RemoteSettings, Settings, VirtualSettings, canonical_host,
    records,
};
use crate::{auth, limits, overlay, server, store};

/// The tables of repositories.
const KINDS: [&str; 3] = ["remote", "local", "virtual"];

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Where the registry listens.
    pub listen: Vec<SocketAddr>,
    /// Where administration listens, apart from the registry.
    pub admin_listen: Option<SocketAddr>,
    /// Certificate and key, chosen by SNI; empty: cleartext.
    pub tls: Vec<server::CertificatePair>,
    /// Certificates of clients that are taken over TLS.
    pub clients: Option<server::ClientCertificates>,
    /// How clients call this mirror.
    pub external_url: Option<Url>,
    /// Whose `X-Forwarded-*` count.
    pub trusted_proxies: Vec<IpNet>,
    /// The server's limits.
    pub limits: server::Limits,
    /// Where content is kept.
    pub storage: store::Config,
    /// What requests without a key mean.
    pub default: Key,
    /// Hosts and listeners that mean one repository.
    pub binds: Vec<Bind>,
    /// The repositories.
    pub repositories: AllSettings,
    /// Where audit lines go besides the log.
    pub audit: Option<PathBuf>,
    /// How much clients may ask.
    pub client_limits: limits::Config,
    /// Who may do what; without it, whoever reaches us.
    pub auth: Option<auth::Config>,
    /// How what nothing refers to is collected.
    pub collection: overlay::Collection,
    /// How long what was pulled, and what was missing, is known.
    pub records: records::Config,
    /// Lists that are brought in the background.
    pub syncs: Vec<Scheduled>,
    /// What is allowed but perhaps not meant.
    pub warnings: Vec<String>,
}

impl Resolved {
    /// The remotes.
    pub fn remotes(&self) -> impl Iterator<Item = &RemoteSettings> {
        self.repositories.values().filter_map(|one| match one {
            Settings::Remote(remote) => Some(&**remote),
            Settings::Local(_) | Settings::Virtual(_) => None,
        })
    }

    /// The local repositories.
    pub fn locals(&self) -> impl Iterator<Item = &LocalSettings> {
        self.repositories.values().filter_map(|one| match one {
            Settings::Local(local) => Some(local),
            Settings::Remote(_) | Settings::Virtual(_) => None,
        })
    }

    /// The virtual repositories.
    pub fn virtuals(&self) -> impl Iterator<Item = &VirtualSettings> {
        self.repositories.values().filter_map(|one| match one {
            Settings::Virtual(several) => Some(several),
            Settings::Remote(_) | Settings::Local(_) => None,
        })
    }

    /// What of `other` is not taken before a restart, by the keys of the file.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let listeners = |config: &Self| -> Vec<Bind> {
            let bound = config.binds.iter().filter(|bind| bind.listen.is_some());
            bound.cloned().collect()
        };
        [
            (self.listen != other.listen, "server.listen"),
            (
                self.admin_listen != other.admin_listen,
                "server.admin_listen",
            ),
            (
                self.tls != other.tls || self.clients != other.clients,
                "server.tls",
            ),
            (
                self.external_url != other.external_url,
                "server.external_url",
            ),
            (
                self.trusted_proxies != other.trusted_proxies,
                "server.trusted_proxies",
            ),
            (self.limits != other.limits, "server.limits"),
            (listeners(self) != listeners(other), "server.bind"),
            (self.audit != other.audit, "audit.path"),
            (self.auth.is_some() != other.auth.is_some(), "auth"),
            (
                self.storage != other.storage
                    || self.collection != other.collection
                    || self.records != other.records,
                "storage",
            ),
        ]
        .into_iter()
        .filter_map(|(differs, key)| differs.then_some(key))
        .collect()
    }

    /// Whether whoever reaches this mirror may push and delete: only while nobody else can.
    pub fn open_writes(&self) -> bool {
        let listeners = self
            .listen
            .iter()
            .chain(&self.admin_listen)
            .chain(self.binds.iter().filter_map(|bind| bind.listen.as_ref()));
        self.trusted_proxies.is_empty()
            && listeners
                .into_iter()
                .all(|address| address.ip().is_loopback())
    }
}

/// A host or a listener that means one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The `Host`.
    pub host: Option<String>,
    /// The listener; it is opened for this.
    pub listen: Option<SocketAddr>,
    /// What it means.
    pub repository: Key,
}

/// Reads a configuration: the text of the file over the built-in one, the environment over both.
///
/// `path` is where the text came from (paths in it are relative to that); `None` means the built-in configuration alone.
pub fn load(
    text: Option<&str>,
    path: Option<&Path>,
    environment: &[(String, String)],
) -> Result<Resolved, ConfigError> {
    let shown = path.map_or_else(
        || "mirror.toml (built in)".to_owned(),
        |path| path.display().to_string(),
    );
    let text = text.unwrap_or(super::BUILT_IN);
    // Once as it stands, so that errors point into it.
    let written: File =
        toml::from_str(text).map_err(|error| ConfigError::from_toml(text, &shown, &error))?;
    let mut reader = Reader {
        problems: Vec::new(),
        base: path.and_then(Path::parent).map(Path::to_owned),
        environment,
        spans: true,
        named: HashMap::new(),
    };
    let checked = reader.resolve(written, false);
    if !reader.problems.is_empty() {
        return Err(ConfigError::report(text, &shown, &reader.problems));
    }
    drop(checked);
    // Then over the built-in one and under the environment, where no line can be pointed at.
    let parse = |text: &str| {
        text.parse::<Table>()
            .map_err(|error| ConfigError::plain(error.to_string()))
    };
    let mut merged = parse(super::BUILT_IN)?;
    let own = parse(text)?;
    if KINDS.iter().any(|kind| own.contains_key(*kind)) {
        // A file that names any repository replaces the built-in ones.
        for kind in KINDS {
            merged.remove(kind);
        }
        if !own
            .get("mirror")
            .and_then(Value::as_table)
            .is_some_and(|mirror| mirror.contains_key("default"))
        {
            merged.remove("mirror");
        }
    }
    merge(&mut merged, own);
    let read = |table: &Table| {
        let text = toml::to_string(table).map_err(|error| error.to_string())?;
        toml::from_str::<File>(&text).map_err(|error| error.message().to_owned())
    };
    environment::apply(&mut merged, environment, |table| read(table).map(drop))
        .map_err(ConfigError::plain)?;
    let file = read(&merged).map_err(|problem| {
        ConfigError::plain(format!("{problem} (from {shown} and the environment)"))
    })?;
    reader.spans = false;
    let resolved = reader.resolve(file, true);
    match resolved {
        Some(resolved) if reader.problems.is_empty() => Ok(resolved),
        _ => Err(ConfigError::report(text, &shown, &reader.problems)),
    }
}

/// Puts `over` over `under`, table by table, key by key.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// What requests without a key mean where the file does not say: what serves Docker Hub, else the first there is, virtual ones first.
fn usual_default(all: &AllSettings) -> Option<Key> {
    let rank = |settings: &&Settings| match settings {
        Settings::Virtual(_) => 0,
        Settings::Remote(_) => 1,
        Settings::Local(_) => 2,
    };
    let mut ordered: Vec<&Settings> = all.values().collect();
    ordered.sort_by_key(rank);
    let serves_hub = |settings: &&&Settings| {
        let serves = settings.definition().serves;
        serves
            .iter()
            .any(|host| canonical_host(host) == "docker.io")
    };
    let hub = ordered.iter().find(serves_hub);
    hub.or_else(|| ordered.first())
        .map(|settings| settings.key().clone())
}

pub(super) fn span(written: Option<Span>, default: Duration) -> Duration {
    written.map_or(default, |span| span.0)
}

pub(super) fn within(written: Option<Timeout>, default: Duration) -> Duration {
    written.map_or(default, |timeout| timeout.0)
}

fn hidden(key: &Key) -> String {
    format!(
        "the repository key `{key}` has no '-' or '.', so it hides the Docker Hub namespace of that name"
    )
}

/// Collects everything that is wrong on the way.
pub(super) struct Reader<'a> {
    pub(super) problems: Vec<Problem>,
    base: Option<PathBuf>,
    pub(super) environment: &'a [(String, String)],
    /// Whether spans point into a text that people can see.
    spans: bool,
    /// Where the file names repositories, for when it turns out that they do not exist.
    named: HashMap<String, Range<usize>>,
}

impl Reader<'_> {
    pub(super) fn problem(
        &mut self,
        at: Range<usize>,
        title: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let at = self.spans.then_some(at);
        self.problems.push(Problem {
            title: title.into(),
            at,
            remedy: remedy.into(),
        });
    }

    /// A repository is named: takes note of where, or finds that place again.
    pub(super) fn name(&mut self, name: &Spanned<String>) {
        if self.spans {
            self.named.insert(name.get_ref().clone(), name.span());
        }
    }

    pub(super) fn no_such_name(&mut self, title: String, name: &str, remedy: String) {
        let at = self.named.get(name).cloned();
        self.problems.push(Problem { title, at, remedy });
    }

    /// A repository key, as the file has it.
    pub(super) fn key(&mut self, name: &Spanned<String>) -> Option<Key> {
        match Key::parse(name.get_ref()) {
            Ok(key) => Some(key),
            Err(error) => {
                self.problem(
                    name.span(),
                    format!("`{}` cannot be a repository key", name.get_ref()),
                    error.to_string(),
                );
                None
            }
        }
    }

    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.base
            .as_ref()
            .map_or_else(|| path.to_owned(), |base| base.join(path))
    }

    /// `whole`: the merged configuration, in which everything that must exist exists.
    fn resolve(&mut self, file: File, whole: bool) -> Option<Resolved> {
        let syncs = self.syncs(file.sync);
        let client_limits = self.limits(&file.limits);
        let mut warnings = Vec::new();
        let mut hosts: BTreeMap<String, String> = BTreeMap::new();
        let mut all = AllSettings::new();
        for (name, remote) in file.remote {
            let Some(key) = self.key(&name) else {
                continue;
            };
            if key.could_be_a_namespace() {
                warnings.push(hidden(&key));
            }
            self.serves(&key, &remote.get_ref().serves, &mut hosts);
            if let Some(mut remote) = self.remote(key.clone(), remote.into_inner()) {
                remote.cache.offline |= file.mirror.offline;
                all.insert(key, Settings::Remote(Box::new(remote)));
            }
        }
        for (name, local) in file.local {
            if let Some(local) = self.local(&name, &local, &all, &mut warnings) {
                all.insert(local.key.clone(), Settings::Local(local));
            }
        }
        for (name, table) in &file.virtuals {
            if let Ok(key) = Key::parse(name.get_ref()) {
                self.serves(&key, &table.serves, &mut hosts);
                if key.could_be_a_namespace() {
                    warnings.push(hidden(&key));
                }
            }
        }
        self.virtuals(file.virtuals, &mut all, whole);
        let known: Vec<Key> = all.keys().cloned().collect();
        let server = self.server(file.server, &known, whole)?;
        let clients = server.clients.as_ref().map(|clients| clients.user);
        let told = (&all, clients);
        let auth = file.auth.map(|table| self.auth(table, told, &mut warnings));
        if let Some(default) = &file.mirror.default {
            self.name(default);
        }
        let default = match &file.mirror.default {
            Some(default) => Key::parse(default.get_ref())
                .ok()
                .filter(|key| !whole || known.contains(key))
                .or_else(|| {
                    let known: Vec<&str> = known.iter().map(Key::as_str).collect();
                    self.no_such_name(
                        format!(
                            "mirror.default names no repository: `{}`",
                            default.get_ref()
                        ),
                        default.get_ref(),
                        format!("name one of: {}", known.join(", ")),
                    );
                    None
                }),
            None => usual_default(&all),
        };
        if default.is_none() && whole && self.problems.is_empty() {
            self.problem(0..0, "there is no repository", "write a [remote.<key>] table with a url or a [local.<key>] table, or no repository at all for the built-in ones");
        }
        let collection = overlay::Collection::default();
        let storage = store::Config {
            path: self.path(&file.storage.path.unwrap_or_else(|| "data".into())),
            max_size: file.storage.max_size.map_or(20 << 30, |size| size.0),
            min_free: file.storage.min_free.map_or(1 << 30, |size| size.0),
        };
        Some(Resolved {
            storage,
            default: default?,
            audit: file.audit.path.map(|path| self.path(&path)),
            auth,
            client_limits,
            syncs,
            repositories: all,
            collection: overlay::Collection {
                every: within(file.storage.collect_every, collection.every),
                grace: span(file.storage.collect_grace, collection.grace),
            },
            records: records::Config {
                keep: span(file.storage.records_keep, records::KEEP),
            },
            warnings,
            ..server
        })
    }

    /// A host is served by one repository.
    fn serves(
        &mut self,
        key: &Key,
        written: &[Spanned<String>],
        hosts: &mut BTreeMap<String, String>,
    ) {
        for host in written {
            if self.host(host).is_none() {
                continue;
            }
            if let Some(other) = hosts.insert(canonical_host(host.get_ref()), key.to_string()) {
                self.problem(
                    host.span(),
                    format!("{} is served by {other} already", host.get_ref()),
                    "a host is served by one repository",
                );
            }
        }
    }

    /// One `[local.<key>]` table.
    fn local(
        &mut self,
        name: &Spanned<String>,
        local: &file::Local,
        all: &AllSettings,
        warnings: &mut Vec<String>,
    ) -> Option<LocalSettings> {
        let key = self.key(name)?;
        if all.contains_key(&key) {
            self.problem(
                name.span(),
                format!("`{key}` is a remote already"),
                "give it a key of its own",
            );
        }
        if key.could_be_a_namespace() {
            warnings.push(hidden(&key));
        }
        let immutable_tags = self.patterns(&local.immutable_tags, "v*");
        Some(LocalSettings {
            key,
            config: overlay::Config {
                max_unique_tags: local.max_unique_tags,
                immutable_tags,
                delete: local.delete.unwrap_or(true),
            },
        })
    }

    /// A host as clients name it, with its port where that is not the usual one.
    pub(super) fn host(&mut self, host: &Spanned<String>) -> Option<String> {
        let text = host.get_ref();
        let is_host = Url::parse(&format!("http://{text}/")).is_ok_and(|url| {
            url.host_str().is_some()
                && url.path() == "/"
                && url.username().is_empty()
                && url.query().is_none()
                && url.fragment().is_none()
                && !text.ends_with('/')
        });
        if is_host {
            return Some(text.to_ascii_lowercase());
        }
        self.problem(
            host.span(),
            format!("`{text}` is no host"),
            "write it like \"docker.io\" or \"registry.example.com:5000\"",
        );
        None
    }

    pub(super) fn networks(&mut self, written: &[Spanned<String>], key: &str) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for network in written {
            match network.get_ref().parse::<IpNet>().or_else(|_no_prefix| {
                network
                    .get_ref()
                    .parse::<std::net::IpAddr>()
                    .map(IpNet::from)
            }) {
                Ok(network) => networks.push(network),
                Err(_) => self.problem(
                    network.span(),
                    format!("{key}: `{}` is no network", network.get_ref()),
                    "write it like \"10.0.0.0/8\"",
                ),
            }
        }
        networks
    }
}
