//! What repositories are told, from the file or at run time, and what must be true of all of them together. Pure.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ipnet::IpNet;
use url::Url;

use super::definitions::{Definition, canonical_host};
use super::key::Key;
use super::member::Filter;
use crate::upstream::{
    self, Allowance, CONCURRENT_DEFAULT, CredentialConfig, ForeignLayers, Parent, ProxyConfig,
    Timeouts,
};
use crate::{cache, overlay};

/// The most members of a virtual repository with those of its members in their place, and the most ways that are gone to find them.
pub(super) const EXPANDED_MAX: usize = 1000;

/// One repository.
#[derive(Debug, Clone, PartialEq)]
pub enum Settings {
    /// A mirror of a registry elsewhere.
    Remote(Box<RemoteSettings>),
    /// What people push here.
    Local(LocalSettings),
    /// Others under one name.
    Virtual(VirtualSettings),
}

/// One remote.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteSettings {
    /// Its key.
    pub key: Key,
    /// The `?ns=` values and path prefixes that mean it.
    pub serves: Vec<String>,
    /// Its upstream's base URL.
    pub url: Url,
    /// Sent upstream as `?ns=`.
    pub ns: Option<String>,
    /// A mirror that is asked before the upstream itself.
    pub parent: Option<Parent>,
    /// How long its answers are good for.
    pub cache: cache::Config,
    /// What to log in with.
    pub credentials: Vec<CredentialConfig>,
    /// Other hosts whose token service may see the credentials.
    pub token_hosts: Vec<String>,
    /// Inside addresses that redirects, token services and foreign layers may use.
    pub allow_addresses: Vec<IpNet>,
    /// The URLs in manifests that layers are fetched from.
    pub foreign_layers: ForeignLayers,
    /// Further certificate authorities.
    pub ca: Option<PathBuf>,
    /// Requests under way at a time.
    pub concurrent: usize,
    /// What else it may be asked for.
    pub allowance: Allowance,
    /// Time-outs towards it.
    pub timeouts: Timeouts,
}

/// A local repository.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalSettings {
    /// Its key.
    pub key: Key,
    /// What it is told.
    pub config: overlay::Config,
}

/// A virtual repository.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualSettings {
    /// Its key.
    pub key: Key,
    /// The `?ns=` values and path prefixes that mean it.
    pub serves: Vec<String>,
    /// Repositories of any kind, in the order in which they are asked.
    pub members: Vec<(Key, Filter)>,
    /// The local repository that takes pushes.
    pub deploy_to: Option<Key>,
    /// The newest tag wins instead of the first.
    pub by_timestamp: bool,
    /// Whether a name that a local member holds is kept from remotes.
    pub exclusive_names: bool,
}

/// A remote or local repository that a virtual one asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSettings {
    /// Its key.
    pub key: Key,
    /// What it is asked for: what all of these take.
    pub filters: Vec<Filter>,
}

/// Every repository, by key.
pub type AllSettings = BTreeMap<Key, Settings>;

/// Why a virtual repository cannot be what it is told to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It contains itself, by these.
    #[error("virtual repositories contain each other: {}", circle(.0))]
    Circle(Vec<Key>),
    /// It has no members.
    #[error("`{0}` has no members")]
    Empty(Key),
    /// It has more than [`EXPANDED_MAX`] members, with those of its members.
    #[error(
        "`{0}` leads to more than {EXPANDED_MAX} repositories, counted once for each way and pattern"
    )]
    TooMany(Key),
    /// A member is no repository.
    #[error("a virtual repository names no repository: `{0}`")]
    NoMember(Key),
    /// What takes pushes is no local repository.
    #[error("pushes to `{0}` go to no local repository: `{1}`")]
    NotLocal(Key, Key),
    /// What takes pushes is no member, so what is pushed could not be pulled again.
    #[error(
        "pushes to `{0}` go to `{1}`, which is no member, so what is pushed could not be pulled again"
    )]
    NotAMember(Key, Key),
}

impl Unfit {
    /// The field of Artifactory's JSON that is wrong.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Circle(_) | Self::Empty(_) | Self::TooMany(_) | Self::NoMember(_) => {
                "repositories"
            }
            Self::NotLocal(..) | Self::NotAMember(..) => "defaultDeploymentRepo",
        }
    }
}

fn circle(keys: &[Key]) -> String {
    let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
    keys.join(" > ")
}

impl Settings {
    /// Its key.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Remote(remote) => &remote.key,
            Self::Local(local) => &local.key,
            Self::Virtual(several) => &several.key,
        }
    }

    /// What routing knows of it.
    pub fn definition(&self) -> Definition {
        let (serves, is_docker_hub) = match self {
            Self::Remote(remote) => {
                let host = remote.url.host_str().unwrap_or_default();
                let is_docker_hub = canonical_host(host) == canonical_host("docker.io");
                (remote.serves.clone(), is_docker_hub)
            }
            Self::Local(_) => (Vec::new(), false),
            Self::Virtual(several) => (several.serves.clone(), false),
        };
        Definition {
            key: self.key().clone(),
            serves,
            is_docker_hub,
        }
    }
}

impl RemoteSettings {
    /// A remote with defaults for everything but where it is.
    pub fn new(key: Key, url: Url) -> Self {
        Self {
            key,
            serves: Vec::new(),
            url,
            ns: None,
            parent: None,
            cache: cache::Config::default(),
            credentials: Vec::new(),
            token_hosts: Vec::new(),
            allow_addresses: Vec::new(),
            foreign_layers: ForeignLayers::default(),
            ca: None,
            concurrent: CONCURRENT_DEFAULT,
            allowance: Allowance::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// What the client of its upstream is told.
    pub fn upstream(&self, proxy: &ProxyConfig, instance: &str) -> upstream::Config {
        upstream::Config {
            key: self.key.to_string(),
            url: self.url.clone(),
            ns: self.ns.clone(),
            parent: self.parent.clone(),
            credentials: self.credentials.clone(),
            token_hosts: self.token_hosts.clone(),
            allow_addresses: self.allow_addresses.clone(),
            foreign_layers: self.foreign_layers.clone(),
            ca: self.ca.clone(),
            proxy: proxy.clone(),
            concurrent: self.concurrent,
            allowance: self.allowance,
            timeouts: self.timeouts,
            instance: instance.to_owned(),
        }
    }
}

/// An upstream's base URL.
pub fn upstream_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
    let url = url.ok_or("write it like \"https://registry.example.com\"")?;
    let has_more = !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some();
    if has_more {
        return Err("it has scheme, host, port and path; credentials are fields of their own");
    }
    Ok(url)
}

impl VirtualSettings {
    /// Its members, those of virtual ones in their place; an error where it cannot be used.
    pub fn expand(&self, all: &AllSettings) -> Result<Vec<MemberSettings>, Unfit> {
        if self.members.is_empty() {
            return Err(Unfit::Empty(self.key.clone()));
        }
        let mut expansion = Expansion {
            all,
            path: Vec::new(),
            seen: HashMap::new(),
            steps: 0,
            members: Vec::new(),
        };
        if !expansion.enter(self, &[])? {
            return Err(Unfit::TooMany(self.key.clone()));
        }
        let members = expansion.members;
        if let Some(target) = &self.deploy_to {
            let (key, target) = (self.key.clone(), target.clone());
            if !matches!(all.get(&target), Some(Settings::Local(_))) {
                return Err(Unfit::NotLocal(key, target));
            }
            if members.iter().all(|member| member.key != target) {
                return Err(Unfit::NotAMember(key, target));
            }
        }
        Ok(members)
    }
}

/// The members of a virtual repository as they are found.
struct Expansion<'a> {
    all: &'a AllSettings,
    path: Vec<Key>,
    /// What has been met, of whatever kind, with what it is asked for: a second time it adds nothing.
    seen: HashMap<Key, Vec<Vec<Filter>>>,
    steps: usize,
    members: Vec<MemberSettings>,
}

impl Expansion<'_> {
    /// Adds the members of `several`, asked for what `filters` take; false where there are too many.
    fn enter(&mut self, several: &VirtualSettings, filters: &[Filter]) -> Result<bool, Unfit> {
        if let Some(at) = self.path.iter().position(|key| *key == several.key) {
            let mut circle = self.path.split_off(at);
            circle.push(several.key.clone());
            return Err(Unfit::Circle(circle));
        }
        self.path.push(several.key.clone());
        for (key, filter) in &several.members {
            let Some(member) = self.all.get(key) else {
                return Err(Unfit::NoMember(key.clone()));
            };
            let mut filters = filters.to_vec();
            // What takes everything, or is among them already, narrows nothing.
            if *filter != Filter::default() && !filters.contains(filter) {
                filters.push(filter.clone());
            }
            let is_in_path = self.path.contains(key);
            let seen = self.seen.entry(key.clone()).or_default();
            if seen.contains(&filters) && !is_in_path {
                continue;
            }
            seen.push(filters.clone());
            self.steps += 1;
            if self.steps > EXPANDED_MAX {
                return Ok(false);
            }
            match member {
                Settings::Virtual(inner) => {
                    if !self.enter(inner, &filters)? {
                        return Ok(false);
                    }
                }
                Settings::Remote(_) | Settings::Local(_) => self.members.push(MemberSettings {
                    key: key.clone(),
                    filters,
                }),
            }
        }
        self.path.pop();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn several(name: &str, members: &[&str], deploy_to: Option<&str>) -> Settings {
        Settings::Virtual(VirtualSettings {
            key: key(name),
            serves: Vec::new(),
            members: members
                .iter()
                .map(|member| (key(member), Filter::default()))
                .collect(),
            deploy_to: deploy_to.map(key),
            by_timestamp: false,
            exclusive_names: true,
        })
    }

    fn expand(settings: &[Settings], of: &str) -> Result<Vec<String>, String> {
        let all: AllSettings = settings
            .iter()
            .map(|settings| (settings.key().clone(), settings.clone()))
            .collect();
        let Some(Settings::Virtual(wanted)) = all.get(&key(of)) else {
            panic!("{of} is virtual");
        };
        let members = wanted.expand(&all).map_err(|error| error.to_string())?;
        Ok(members
            .iter()
            .map(|member| member.key.to_string())
            .collect())
    }

    fn local(name: &str) -> Settings {
        Settings::Local(LocalSettings {
            key: key(name),
            config: overlay::Config::default(),
        })
    }

    #[test]
    fn who_is_led_to_more_than_once_is_asked_once() {
        let diamond = [
            local("a-local"),
            several("left-v", &["a-local"], None),
            several("right-v", &["left-v", "a-local"], None),
            several("top-v", &["left-v", "right-v", "a-local"], Some("a-local")),
        ];
        assert_eq!(expand(&diamond, "top-v").unwrap(), ["a-local"]);
        // Other patterns are another member.
        let only = Filter {
            include: crate::globs::Globs::parse(&["team/**"]).unwrap(),
            ..Filter::default()
        };
        let mut narrowed = diamond.to_vec();
        for settings in &mut narrowed {
            if let Settings::Virtual(several) = settings
                && several.key == key("right-v")
            {
                several.members[0].1 = only.clone();
            }
        }
        assert_eq!(expand(&narrowed, "right-v").unwrap(), ["a-local"; 2]);
        // Each level leads to the one below twice, so that there are 2^40 ways down.
        let mut tower = vec![local("a-local"), several("v-0", &["a-local"], None)];
        for level in 1..40 {
            let below = format!("v-{}", level - 1);
            tower.push(several(&format!("v-{level}"), &[&below, &below], None));
        }
        assert_eq!(expand(&tower, "v-39").unwrap(), ["a-local"]);
        // The same with a pattern of its own for each way.
        for (level, settings) in tower.iter_mut().enumerate() {
            if let Settings::Virtual(several) = settings {
                for (way, (_, filter)) in several.members.iter_mut().enumerate() {
                    let pattern = format!("team/{level}/{way}");
                    filter.exclude = crate::globs::Globs::parse(&[pattern]).unwrap();
                }
            }
        }
        let error = expand(&tower, "v-39").unwrap_err();
        assert_eq!(
            error,
            "`v-39` leads to more than 1000 repositories, counted once for each way and pattern"
        );
    }

    #[test]
    fn members_of_members_stand_in_their_place() {
        let base = [local("a-local"), local("b-local"), local("c-local")];
        let with = |more: &[Settings]| [base.as_slice(), more].concat();
        let nested = with(&[
            several("inner-v", &["b-local", "c-local"], None),
            several("outer-v", &["a-local", "inner-v"], Some("c-local")),
        ]);
        assert_eq!(
            expand(&nested, "outer-v").unwrap(),
            ["a-local", "b-local", "c-local"]
        );
        let circle = with(&[
            several("x-v", &["a-local", "y-v"], None),
            several("y-v", &["x-v"], None),
        ]);
        assert_eq!(
            expand(&circle, "x-v").unwrap_err(),
            "virtual repositories contain each other: x-v > y-v > x-v"
        );
        for (members, deploy_to, wrong) in [
            (&[][..], None, "has no members"),
            (&["none-local"], None, "names no repository"),
            (&["a-local"], Some("none-local"), "no local repository"),
            (&["a-local"], Some("b-local"), "no member"),
        ] {
            let error = expand(&with(&[several("v-v", members, deploy_to)]), "v-v").unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
