//! Repositories as Artifactory's clients declare them at run time (PROTOCOL E9): JSON, and what of it means something here. Pure.
//!
//! What is kept is what was sent, so that a client that compares finds what it asked for. What it means is worked out anew each time, and
//! what cannot mean anything here is named, never dropped in silence.

mod class;
mod fields;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

pub use class::Class;
pub use fields::FieldError;
use fields::{Fields, wrong};

use super::key::Key;
use super::member::Filter;
use super::settings::{
    AllSettings, LocalSettings, RemoteSettings, Settings, VirtualSettings, upstream_url,
};
use crate::globs::Globs;
use crate::overlay;
use crate::secret::Secret;
use crate::upstream::{CredentialConfig, ForeignLayers, SecretSource, UrlPattern};

/// The most tags that `maxUniqueTags` can say.
const TAGS_MAX: u64 = 1_000_000;
/// The most bytes of JSON that one repository is told.
const FIELDS_MAX: usize = 64 * 1024;
/// The most members of a virtual repository.
const MEMBERS_MAX: usize = 100;

/// A repository as it was declared.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    class: Class,
    fields: Map<String, Value>,
    password: Option<Secret>,
}

/// Fields that are only kept and shown, or have been read before the others.
const TOLD: [&str; 6] = [
    "key",
    "rclass",
    "packageType",
    "description",
    "notes",
    "password",
];
/// Fields that ask for what is done here anyway.
const ANYWAY: [(&str, Value); 4] = [
    // Upstream's challenge is always answered with a token.
    ("enableTokenAuthentication", Value::Bool(true)),
    // An outage never reads as absence.
    ("hardFail", Value::Bool(true)),
    ("storeArtifactsLocally", Value::Bool(true)),
    // Schema 1 is neither taken nor fetched.
    ("blockPushingSchema1", Value::Bool(true)),
];

impl Declared {
    /// A new one, from what a client sent.
    pub fn create(key: &Key, mut sent: Map<String, Value>) -> Result<Self, FieldError> {
        let class = match Fields(&sent).text("rclass")? {
            Some("local") => Class::Local,
            Some("remote") => Class::Remote,
            Some("virtual") => Class::Virtual,
            Some(other) => {
                let problem = format!("there are local, remote and virtual, not `{other}`");
                return Err(wrong("rclass", problem));
            }
            None => {
                return Err(wrong("rclass", "it is needed: local, remote or virtual"));
            }
        };
        identity(key, &sent)?;
        let password = take_password(&mut sent)?.over(None);
        let class_name = json!(class.as_str());
        sent.insert("rclass".to_owned(), class_name);
        sent.retain(|field, _| !is_secret(field));
        fits(&sent)?;
        Ok(Self {
            class,
            fields: sent,
            password,
        })
    }

    /// The same with what a client sent now; what it did not send stays as it was.
    pub fn update(&self, key: &Key, mut sent: Map<String, Value>) -> Result<Self, FieldError> {
        identity(key, &sent)?;
        if let Some(class) = Fields(&sent).text("rclass")?
            && class != self.class.as_str()
        {
            let problem = format!(
                "it stays what it is, {}; delete the repository and make another",
                self.class.as_str()
            );
            return Err(wrong("rclass", problem));
        }
        let password = take_password(&mut sent)?;
        // They stay what they are, however a client says that it does not mean them.
        for field in ["key", "rclass", "packageType"] {
            sent.remove(field);
        }
        sent.retain(|field, _| !is_secret(field));
        let mut fields = self.fields.clone();
        fields.extend(sent);
        fits(&fields)?;
        if matches!(password, Sent::Nothing) && self.password.is_some() {
            let origin = |fields: &Map<String, Value>| {
                let url = Fields(fields).text("url").ok().flatten();
                url.and_then(|url| upstream_url(url).ok())
                    .map(|url| url.origin())
            };
            if origin(&fields) != origin(&self.fields) {
                let problem = "send it again with the url of another host, so that it goes nowhere by accident";
                return Err(wrong("password", problem));
            }
        }
        Ok(Self {
            class: self.class,
            fields,
            password: password.over(self.password.as_ref()),
        })
    }

    /// One that was kept.
    pub fn kept(key: &Key, json: &str, password: Option<Secret>) -> Result<Self, FieldError> {
        let fields =
            serde_json::from_str(json).map_err(|error| wrong("json", error.to_string()))?;
        let declared = Self::create(key, fields)?;
        Ok(Self {
            password,
            ..declared
        })
    }

    /// What is kept; without the password.
    pub const fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// What is kept apart.
    pub const fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// What kind it is.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Fields that were sent and mean nothing here, sorted.
    pub fn ignored(&self) -> Vec<String> {
        let defaults = self.class.defaults();
        let is_ignored = |(field, value): &(&String, &Value)| {
            let (field, value) = (field.as_str(), *value);
            let is_empty = value.is_null()
                || value.as_str().is_some_and(str::is_empty)
                || value.as_array().is_some_and(Vec::is_empty);
            !(is_empty
                || TOLD.contains(&field)
                || self.class.applied().contains(&field)
                || defaults.get(field) == Some(value)
                || ANYWAY
                    .iter()
                    .any(|(name, done)| *name == field && done == value))
        };
        let ignored = self.fields.iter().filter(is_ignored);
        let mut ignored: Vec<String> = ignored.map(|(field, _)| field.clone()).collect();
        ignored.sort_unstable();
        ignored
    }

    /// Everything that a client is shown.
    pub fn shown(&self, key: &Key) -> Map<String, Value> {
        let mut shown = self.class.defaults();
        shown.extend(self.fields.clone());
        told(&mut shown, key, self.class);
        shown
    }

    /// What it means. `all`: the other repositories, for the order in which a virtual one asks its members.
    pub fn settings(&self, key: &Key, all: &AllSettings) -> Result<Settings, FieldError> {
        let fields = Fields(&self.fields);
        if fields.text("dockerApiVersion")? == Some("V1") {
            return Err(wrong("dockerApiVersion", "only V2 is served"));
        }
        match self.class {
            Class::Local => {
                let config = overlay::Config {
                    max_unique_tags: fields
                        .number("maxUniqueTags", TAGS_MAX)?
                        .and_then(|tags| usize::try_from(tags).ok())
                        .unwrap_or(0),
                    ..overlay::Config::default()
                };
                Ok(Settings::Local(LocalSettings {
                    key: key.clone(),
                    config,
                }))
            }
            Class::Remote => Ok(Settings::Remote(Box::new(self.remote(key, &fields)?))),
            Class::Virtual => Ok(Settings::Virtual(several(key, &fields, all)?)),
        }
    }

    fn remote(&self, key: &Key, fields: &Fields<'_>) -> Result<RemoteSettings, FieldError> {
        let url = fields.text("url")?.unwrap_or_default();
        let url = upstream_url(url).map_err(|problem| wrong("url", problem))?;
        let mut remote = RemoteSettings::new(key.clone(), url);
        let seconds = |field| fields.time(field, Duration::from_secs);
        if let Some(ttl) = seconds("retrievalCachePeriodSecs")? {
            remote.cache.tag_ttl = ttl;
        }
        if let Some(ttl) = seconds("missedRetrievalCachePeriodSecs")? {
            remote.cache.negative_ttl = ttl;
        }
        if let Some(timeout) = fields.time("socketTimeoutMillis", Duration::from_millis)? {
            if timeout.is_zero() {
                return Err(wrong("socketTimeoutMillis", "it is at least 1"));
            }
            remote.timeouts.headers = timeout;
            remote.timeouts.idle = timeout;
        }
        remote.cache.offline = fields.flag("offline")?;
        remote.foreign_layers = foreign_layers(fields)?;
        match (fields.text("username")?, &self.password) {
            (Some(username), Some(password)) => remote.credentials.push(CredentialConfig::Static {
                username: username.to_owned(),
                password: SecretSource::Value(password.clone()),
            }),
            (Some(_), None) => {
                return Err(wrong("password", "it is needed where there is a username"));
            }
            (None, Some(_)) => {
                return Err(wrong("username", "it is needed where there is a password"));
            }
            (None, None) => {}
        }
        Ok(remote)
    }
}

/// A configured repository in the same shape.
pub fn shown(settings: &Settings) -> Map<String, Value> {
    let class = Class::of(settings);
    let mut shown = class.defaults();
    let mut say = |field: &str, value: Value| shown.insert(field.to_owned(), value);
    match settings {
        Settings::Local(local) => {
            say("maxUniqueTags", json!(local.config.max_unique_tags));
        }
        Settings::Remote(remote) => {
            let millis = u64::try_from(remote.timeouts.idle.as_millis()).unwrap_or(u64::MAX);
            for (field, value) in [
                ("url", json!(remote.url.as_str())),
                ("offline", json!(remote.cache.offline)),
                (
                    "retrievalCachePeriodSecs",
                    json!(remote.cache.tag_ttl.as_secs()),
                ),
                (
                    "missedRetrievalCachePeriodSecs",
                    json!(remote.cache.negative_ttl.as_secs()),
                ),
                ("socketTimeoutMillis", json!(millis)),
                ("enableTokenAuthentication", json!(true)),
                ("hardFail", json!(true)),
                ("blockPushingSchema1", json!(true)),
            ] {
                say(field, value);
            }
            let username = remote.credentials.iter().find_map(|one| match one {
                CredentialConfig::Static { username, .. } => Some(username.as_str()),
                CredentialConfig::Helper { .. } | CredentialConfig::DockerConfig { .. } => None,
            });
            say("username", json!(username.unwrap_or_default()));
        }
        Settings::Virtual(several) => {
            let members = several.members.iter().map(|(key, _)| key.as_str());
            say("repositories", json!(members.collect::<Vec<_>>()));
            let target = several.deploy_to.as_ref().map_or("", Key::as_str);
            say("defaultDeploymentRepo", json!(target));
            say("resolveDockerTagsByTimestamp", json!(several.by_timestamp));
        }
    }
    told(&mut shown, settings.key(), class);
    shown
}

/// What every answer says of a repository.
fn told(shown: &mut Map<String, Value>, key: &Key, class: Class) {
    for (field, value) in [
        ("key", key.as_str()),
        ("rclass", class.as_str()),
        ("packageType", "docker"),
    ] {
        shown.insert(field.to_owned(), json!(value));
    }
}

/// `key` and `packageType`, which clients repeat.
fn identity(key: &Key, sent: &Map<String, Value>) -> Result<(), FieldError> {
    let fields = Fields(sent);
    if let Some(named) = fields.text("key")?
        && named != key.as_str()
    {
        return Err(wrong("key", format!("the path says `{key}`")));
    }
    match fields.text("packageType")? {
        None => Ok(()),
        Some(package)
            if package.eq_ignore_ascii_case("docker") || package.eq_ignore_ascii_case("oci") =>
        {
            Ok(())
        }
        Some(other) => {
            let problem = format!("only docker and oci are served, not `{other}`");
            Err(wrong("packageType", problem))
        }
    }
}

/// Whether a field that means nothing here may hold something that must not be shown.
fn is_secret(field: &str) -> bool {
    let field = field.to_ascii_lowercase();
    let means_something = field == "enabletokenauthentication";
    !means_something
        && ["password", "passphrase", "secret", "token", "privatekey"]
            .iter()
            .any(|word| field.contains(word))
}

/// What is kept has an end.
fn fits(fields: &Map<String, Value>) -> Result<(), FieldError> {
    let length = serde_json::to_string(fields).map_or(usize::MAX, |text| text.len());
    if length <= FIELDS_MAX {
        return Ok(());
    }
    let problem = format!("all fields together have at most {FIELDS_MAX} bytes of JSON");
    Err(wrong("notes", problem))
}

/// What was sent of a password.
enum Sent {
    Nothing,
    /// There is none from now on.
    Removed,
    Set(Secret),
}

impl Sent {
    /// The password from now on.
    fn over(self, before: Option<&Secret>) -> Option<Secret> {
        match self {
            Self::Nothing => before.cloned(),
            Self::Removed => None,
            Self::Set(password) => Some(password),
        }
    }
}

/// Takes the password out of what is kept with everything else.
fn take_password(sent: &mut Map<String, Value>) -> Result<Sent, FieldError> {
    match sent.remove("password") {
        None | Some(Value::Null) => Ok(Sent::Nothing),
        Some(Value::String(text)) if text.is_empty() => Ok(Sent::Removed),
        Some(Value::String(text)) => Ok(Sent::Set(Secret::new(text))),
        Some(_) => Err(wrong("password", "it is a text")),
    }
}

fn several(
    key: &Key,
    fields: &Fields<'_>,
    all: &AllSettings,
) -> Result<VirtualSettings, FieldError> {
    let mut members: Vec<Key> = Vec::new();
    for text in fields.list("repositories")? {
        let member = Key::parse(text)
            .map_err(|error| wrong("repositories", format!("`{text}`: {error}")))?;
        if !members.contains(&member) {
            members.push(member);
        }
    }
    if members.len() > MEMBERS_MAX {
        let problem = format!("a virtual repository has at most {MEMBERS_MAX} members");
        return Err(wrong("repositories", problem));
    }
    // Local ones first, as Artifactory asks them.
    members.sort_by_key(|member| match all.get(member) {
        Some(Settings::Local(_)) => 0,
        Some(Settings::Virtual(_)) => 1,
        Some(Settings::Remote(_)) | None => 2,
    });
    let filter = Filter {
        include: patterns(fields, "includesPattern")?,
        exclude: patterns(fields, "excludesPattern")?,
    };
    let deploy_to = fields
        .text("defaultDeploymentRepo")?
        .map(Key::parse)
        .transpose()
        .map_err(|error| wrong("defaultDeploymentRepo", error.to_string()))?;
    Ok(VirtualSettings {
        key: key.clone(),
        serves: Vec::new(),
        members: members
            .into_iter()
            .map(|member| (member, filter.clone()))
            .collect(),
        deploy_to,
        by_timestamp: fields.flag("resolveDockerTagsByTimestamp")?,
        exclusive_names: true,
    })
}

/// The URLs of manifests that layers are fetched from; all of them where nobody says which.
fn foreign_layers(fields: &Fields<'_>) -> Result<ForeignLayers, FieldError> {
    let field = "externalDependenciesPatterns";
    let written = fields.list(field)?;
    let written = if written.is_empty() {
        vec!["**"]
    } else {
        written
    };
    let parsed = written.into_iter().map(|pattern| {
        let parsed = UrlPattern::parse(pattern);
        parsed.map_err(|error| wrong(field, format!("`{pattern}` {error}")))
    });
    let patterns = parsed.collect::<Result<Vec<_>, _>>()?;
    if !fields.flag("externalDependenciesEnabled")? {
        return Ok(ForeignLayers::default());
    }
    Ok(ForeignLayers::new(patterns))
}

/// Patterns of paths, as far as they are about images: `team/**`.
fn patterns(fields: &Fields<'_>, field: &str) -> Result<Globs, FieldError> {
    let text = fields.text(field)?.unwrap_or_default();
    let patterns: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|pattern| !pattern.is_empty())
        .collect();
    // Everything, as Artifactory writes it.
    if field == "includesPattern" && patterns.iter().any(|one| matches!(*one, "**/*" | "**")) {
        return Ok(Globs::default());
    }
    Globs::parse(&patterns).map_err(|error| wrong(field, error.to_string()))
}

/// Every repository that was declared, by key.
pub(super) type AllDeclared = BTreeMap<Key, Declared>;

#[cfg(test)]
mod tests;
