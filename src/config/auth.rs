//! The `[auth]` table: users, rules, groups.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use super::file;
use super::oidc::Names;
use super::resolve::{Reader, within};
use crate::auth::{Config, On, Policy, Right, Rights, Rule, TOKEN_TTL, Who, is_user_name};
use crate::repository::AllSettings;
use crate::server::ClientUser;

/// The name of this mirror in tokens, unless the file says otherwise.
const REALM: &str = "roadstead";
/// The longest realm.
const REALM_MAX: usize = 255;

impl Reader<'_> {
    pub(super) fn auth(
        &mut self,
        table: Spanned<file::Auth>,
        (all, clients): (&AllSettings, Option<ClientUser>),
        warnings: &mut Vec<String>,
    ) -> Config {
        let at = table.span();
        let table = table.into_inner();
        let realm = table
            .realm
            .unwrap_or_else(|| Spanned::new(at, REALM.to_owned()));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte);
        let text = realm.get_ref();
        if text.is_empty() || text.len() > REALM_MAX || !text.bytes().all(fits) {
            self.problem(
                realm.span(),
                "auth.realm is no name for this mirror",
                "write letters, digits and . _ - : / such as \"mirror.example.com\"",
            );
        }
        let oidc = self.issuers(table.oidc, realm.get_ref());
        let names = Names {
            issuers: &oidc,
            are_uris: clients == Some(ClientUser::Uri),
        };
        let groups = self.groups(table.groups, &names);
        let mut rules = Vec::new();
        for rule in table.allow {
            rules.push(self.rule(rule, (&groups, &names), all, warnings));
        }
        Config {
            users: table.users.map(|path| self.path(&path)),
            realm: realm.into_inner(),
            token_ttl: within(table.token_ttl, TOKEN_TTL),
            policy: Policy { rules, groups },
            oidc,
            certificates: clients.is_some(),
        }
    }

    fn groups(
        &mut self,
        written: BTreeMap<String, Vec<Spanned<String>>>,
        names: &Names<'_>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let mut groups = BTreeMap::new();
        for (name, members) in written {
            for member in &members {
                if name.contains(':') {
                    self.problem(
                        member.span(),
                        format!(
                            "auth.groups: `{name}` has a colon, as only groups of issuers have"
                        ),
                        "write the name without it",
                    );
                }
                if member.get_ref().contains(':') && !member.get_ref().starts_with('@') {
                    self.outside(member, member.get_ref(), names);
                } else if !is_user_name(member.get_ref()) {
                    self.problem(
                        member.span(),
                        format!("auth.groups.{name}: `{}` is no user name", member.get_ref()),
                        "name users; groups have no groups in them",
                    );
                }
            }
            let members = members.into_iter().map(Spanned::into_inner).collect();
            groups.insert(name, members);
        }
        groups
    }

    fn rule(
        &mut self,
        rule: file::Allow,
        (groups, names): (&BTreeMap<String, BTreeSet<String>>, &Names<'_>),
        all: &AllSettings,
        warnings: &mut Vec<String>,
    ) -> Rule {
        let mut who = Vec::new();
        for text in rule.who {
            let parsed = Who::parse(text.get_ref());
            match &parsed {
                Who::User(name) | Who::Group(name) if name.contains(':') => {
                    self.outside(&text, name, names);
                }
                Who::Group(group) if !groups.contains_key(group) => self.problem(
                    text.span(),
                    format!("auth.allow names no group: `@{group}`"),
                    format!("write its members: [auth.groups] {group} = [\"…\"]"),
                ),
                Who::User(user) if !is_user_name(user) => self.problem(
                    text.span(),
                    format!("auth.allow: `{user}` is nobody"),
                    "name a user, \"@group\", \"anonymous\" or \"*\"",
                ),
                Who::User(_) | Who::Group(_) | Who::Anonymous | Who::Everyone => {}
            }
            who.push(parsed);
        }
        let mut on = Vec::new();
        for text in rule.on {
            match On::parse(text.get_ref()) {
                Ok(place) => {
                    let unknown = place
                        .key
                        .as_ref()
                        .filter(|key| all.keys().all(|known| known.as_str() != key.as_str()));
                    if let Some(key) = unknown {
                        warnings.push(format!(
                            "auth.allow names `{key}`, which the file does not define; it counts when a repository of that key is made at run time"
                        ));
                    }
                    on.push(place);
                }
                Err(error) => self.problem(
                    text.span(),
                    format!("auth.allow: {error}"),
                    "write \"<repository key>\", \"<repository key>/<image pattern>\" or \"*\"",
                ),
            }
        }
        let mut may = Rights::default();
        for text in rule.may {
            match Right::parse(text.get_ref()) {
                Ok(right) => may = may.with(right),
                Err(error) => {
                    self.problem(
                        text.span(),
                        format!("auth.allow: {error}"),
                        "write one of them",
                    );
                }
            }
        }
        Rule { who, on, may }
    }
}
