//! The shapes of `mirror.toml`. What they mean is `resolve`'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::units::{Bandwidth, Size, Span, Timeout};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) storage: Storage,
    #[serde(default)]
    pub(super) mirror: Mirror,
    #[serde(default)]
    pub(super) remote: BTreeMap<Spanned<String>, Spanned<Remote>>,
    #[serde(default)]
    pub(super) local: BTreeMap<Spanned<String>, Local>,
    #[serde(default, rename = "virtual")]
    pub(super) virtuals: BTreeMap<Spanned<String>, Virtual>,
    pub(super) auth: Option<Spanned<Auth>>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) audit: Audit,
    #[serde(default)]
    pub(super) sync: Vec<Sync>,
}

/// One `[[sync]]` table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sync {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) lists: Vec<PathBuf>,
    #[serde(default)]
    pub(super) images: Vec<Spanned<String>>,
    pub(super) every: Option<Spanned<Span>>,
    #[serde(default)]
    pub(super) platforms: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) with_referrers: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub(super) listen: Option<Spanned<OneOrMany<String>>>,
    pub(super) external_url: Option<Spanned<String>>,
    pub(super) tls: Option<OneOrMany<Tls>>,
    pub(super) admin_listen: Option<Spanned<String>>,
    pub(super) trusted_proxies: Vec<Spanned<String>>,
    pub(super) bind: Vec<Bind>,
    pub(super) limits: ServerLimits,
}

/// A value, or a list of them. Read by hand, so that an error inside still says what it is.
#[derive(Debug)]
pub(super) struct OneOrMany<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrManyVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::deserialize(text.into_deserializer())?]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Ok(OneOrMany(vec![T::deserialize(
                    MapAccessDeserializer::new(map),
                )?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany(many))
            }
        }
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<Spanned<PathBuf>>,
    pub(super) client_auth: Option<Spanned<ClientAuth>>,
    pub(super) client_user: Option<Spanned<ClientUser>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientAuth {
    Optional,
    Required,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClientUser {
    Cn,
    Dns,
    Email,
    Uri,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auth {
    pub(super) users: Option<PathBuf>,
    pub(super) realm: Option<Spanned<String>>,
    pub(super) token_ttl: Option<Timeout>,
    pub(super) allow: Vec<Allow>,
    pub(super) groups: BTreeMap<String, Vec<Spanned<String>>>,
    pub(super) oidc: Vec<Oidc>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Oidc {
    pub(super) issuer: Spanned<String>,
    pub(super) audience: Spanned<String>,
    pub(super) user_claim: Option<Spanned<String>>,
    pub(super) user_prefix: Option<Spanned<String>>,
    pub(super) groups_claim: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) require: BTreeMap<String, String>,
    pub(super) algorithms: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) allow_addresses: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Audit {
    pub(super) path: Option<PathBuf>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) per_client: Budget,
    pub(super) manifest: Rate,
    pub(super) blob: Rate,
    pub(super) write: Rate,
    pub(super) login: Rate,
    pub(super) global: Budget,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Budget {
    pub(super) requests_per_second: Option<Spanned<f64>>,
    pub(super) burst: Option<Spanned<u32>>,
    pub(super) concurrent: Option<Spanned<usize>>,
    pub(super) bandwidth: Option<Spanned<Bandwidth>>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rate {
    pub(super) requests_per_second: Option<Spanned<f64>>,
    pub(super) burst: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {
    pub(super) who: Vec<Spanned<String>>,
    pub(super) on: Vec<Spanned<String>>,
    pub(super) may: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bind {
    pub(super) host: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<String>>,
    pub(super) repository: Spanned<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServerLimits {
    pub(super) max_connections: Option<usize>,
    pub(super) header_timeout: Option<Timeout>,
    pub(super) idle_timeout: Option<Timeout>,
    pub(super) stalled_client: Option<Timeout>,
    pub(super) drain_timeout: Option<Span>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Storage {
    pub(super) path: Option<PathBuf>,
    pub(super) max_size: Option<Size>,
    pub(super) min_free: Option<Size>,
    pub(super) collect_every: Option<Timeout>,
    pub(super) collect_grace: Option<Span>,
    pub(super) records_keep: Option<Span>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Mirror {
    pub(super) default: Option<Spanned<String>>,
    pub(super) offline: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Local {
    pub(super) max_unique_tags: usize,
    pub(super) immutable_tags: Vec<Spanned<String>>,
    pub(super) delete: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Virtual {
    pub(super) members: Vec<Spanned<Member>>,
    pub(super) deploy_to: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) serves: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) resolve_tags_by_timestamp: bool,
    pub(super) local_names: Option<LocalNames>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LocalNames {
    Exclusive,
    Shared,
}

/// A key, or a table of a key and patterns.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) repository: Spanned<String>,
    pub(super) include: Vec<Spanned<String>>,
    pub(super) exclude: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, remote = "Member")]
struct MemberTable {
    repository: Spanned<String>,
    #[serde(default)]
    include: Vec<Spanned<String>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberVisitor;
        impl<'de> Visitor<'de> for MemberVisitor {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a repository key, or { repository, include, exclude }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Member, E> {
                Ok(Member {
                    repository: Spanned::new(0..0, text.to_owned()),
                    include: Vec::new(),
                    exclude: Vec::new(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
                MemberTable::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(MemberVisitor)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remote {
    pub(super) url: Spanned<String>,
    #[serde(default)]
    pub(super) serves: Vec<Spanned<String>>,
    pub(super) ns: Option<String>,
    pub(super) tag_ttl: Option<Span>,
    pub(super) negative_ttl: Option<Span>,
    pub(super) stale_if_error: Option<Span>,
    pub(super) deleted_upstream: Option<Deleted>,
    #[serde(default)]
    pub(super) offline: bool,
    pub(super) credentials: Option<Spanned<OneOrMany<Credential>>>,
    #[serde(default)]
    pub(super) limits: RemoteLimits,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) token_hosts: Vec<String>,
    #[serde(default)]
    pub(super) allow_addresses: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) foreign_layers: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) admit: Admit,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admit {
    pub(super) min_age: Option<Span>,
    pub(super) allow: Vec<Spanned<String>>,
    pub(super) deny: Vec<Spanned<String>>,
    pub(super) max_size: Option<Size>,
    pub(super) cosign_key: Option<Spanned<PathBuf>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Deleted {
    Keep,
    Forget,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Credential {
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) password_env: Option<String>,
    pub(super) helper: Option<String>,
    pub(super) docker_config: Option<PathBuf>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RemoteLimits {
    pub(super) concurrent: Option<Spanned<usize>>,
    pub(super) requests_per_second: Option<Spanned<u32>>,
    pub(super) bandwidth: Option<Spanned<Bandwidth>>,
    pub(super) keep_quota: Option<u32>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    pub(super) connect: Option<Timeout>,
    pub(super) tls: Option<Timeout>,
    pub(super) headers: Option<Timeout>,
    pub(super) idle: Option<Timeout>,
}
