//! What is configured: repositories, the hosts they serve, the default.

use std::collections::HashMap;

use super::key::Key;

/// One repository as routing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its key.
    pub key: Key,
    /// The `?ns=` values and path prefixes that mean it.
    pub serves: Vec<String>,
    /// Whether its upstream is Docker Hub, where single names mean `library/…` whoever asks.
    pub is_docker_hub: bool,
}

/// Every repository, by key and by host.
#[derive(Debug, Clone)]
pub struct Definitions {
    keys: HashMap<Key, bool>,
    hosts: HashMap<String, Key>,
    /// What references call each repository that serves a host, or is Docker Hub.
    names: HashMap<Key, String>,
    default: Key,
}

/// Docker Hub's name in references.
const DOCKER_HUB: &str = "docker.io";

/// A host in the one spelling that is compared: lower case, no trailing dot, Docker Hub's other names folded.
pub fn canonical_host(host: &str) -> String {
    // One dot, however often this is asked: what is left behind two is no host.
    let rooted = host.strip_suffix('.').filter(|host| !host.ends_with('.'));
    let host = rooted.unwrap_or(host).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            DOCKER_HUB.to_owned()
        }
        _ => host,
    }
}

impl Definitions {
    /// From what is configured. The first repository that serves a host has it; the configuration refuses a second.
    pub fn new(definitions: Vec<Definition>, default: Key) -> Self {
        let mut keys = HashMap::new();
        let mut hosts = HashMap::new();
        let mut names = HashMap::new();
        for Definition {
            key,
            serves,
            is_docker_hub,
        } in definitions
        {
            let hosts_of_it: Vec<String> = serves.iter().map(|host| canonical_host(host)).collect();
            keys.insert(
                key.clone(),
                is_docker_hub || hosts_of_it.iter().any(|host| host == DOCKER_HUB),
            );
            let own = hosts_of_it.first().map(String::as_str);
            if let Some(host) = own.or(is_docker_hub.then_some(DOCKER_HUB)) {
                names.insert(key.clone(), host.to_owned());
            }
            for host in hosts_of_it {
                hosts.entry(host).or_insert_with(|| key.clone());
            }
        }
        Self {
            keys,
            hosts,
            names,
            default,
        }
    }

    /// The repository of a key.
    pub fn by_key(&self, text: &str) -> Option<&Key> {
        let key = Key::parse(text).ok()?;
        self.keys.get_key_value(&key).map(|(key, _)| key)
    }

    /// The repository that serves a host.
    pub fn by_host(&self, host: &str) -> Option<&Key> {
        self.hosts.get(&canonical_host(host))
    }

    /// The host in references to what a repository has: the first that it serves.
    pub fn host_of(&self, key: &Key) -> Option<&str> {
        self.names.get(key).map(String::as_str)
    }

    /// The repository that a word in a path means: one of its key, else one that serves a host of that name.
    pub fn by_key_or_host(&self, text: &str) -> Option<&Key> {
        self.by_key(text).or_else(|| self.by_host(text))
    }

    /// The repository that serves requests that name none.
    pub const fn default_key(&self) -> &Key {
        &self.default
    }

    /// Whether single names mean `library/…` there.
    pub fn has_library(&self, key: &Key) -> bool {
        self.keys.get(key).copied().unwrap_or(false)
    }

    /// Every key, sorted.
    pub fn keys(&self) -> Vec<&Key> {
        let mut keys: Vec<&Key> = self.keys.keys().collect();
        keys.sort_unstable();
        keys
    }
}
