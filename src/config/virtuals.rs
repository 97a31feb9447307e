//! `[virtual.<key>]` tables: members that exist, no circle, patterns, where pushes go.

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use toml::Spanned;

use super::file;
use super::resolve::Reader;
use crate::repository::{Filter, Key};

/// A virtual repository; members that are virtual themselves have been replaced by theirs.
#[derive(Debug, Clone)]
pub struct Virtual {
    /// Its key.
    pub key: Key,
    /// The `?ns=` values and path prefixes that mean it.
    pub serves: Vec<String>,
    /// Remotes and local repositories, in their order.
    pub members: Vec<VirtualMember>,
    /// The local repository that takes pushes.
    pub deploy_to: Option<Key>,
    /// The newest tag wins instead of the first.
    pub by_timestamp: bool,
    /// Whether a name that a local member holds is kept from remotes.
    pub exclusive_names: bool,
}

/// One member.
#[derive(Debug, Clone)]
pub struct VirtualMember {
    /// Its key.
    pub key: Key,
    /// What it is asked for: what all of these take.
    pub filters: Vec<Filter>,
}

/// What a key of the configuration means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Remote,
    Local,
}

/// A table before its members are looked up.
#[derive(Debug)]
struct Written {
    table: file::Virtual,
    members: Vec<(Spanned<String>, Filter)>,
}

/// Everything that a member can be.
#[derive(Debug, Clone, Copy)]
struct Tables<'a> {
    known: &'a BTreeMap<Key, Kind>,
    written: &'a BTreeMap<Key, Written>,
    whole: bool,
}

impl Reader<'_> {
    /// Every virtual repository. `known`: what else is configured; `whole`: all that is named must be there.
    pub(super) fn virtuals(
        &mut self,
        tables: BTreeMap<Spanned<String>, file::Virtual>,
        known: &BTreeMap<Key, Kind>,
        whole: bool,
    ) -> Vec<Virtual> {
        let mut written = BTreeMap::new();
        for (name, mut table) in tables {
            let Some(key) = self.key(&name) else {
                continue;
            };
            if known.contains_key(&key) {
                self.problem(
                    name.span(),
                    format!("`{key}` is a repository already"),
                    "give it a key of its own",
                );
            }
            let members = std::mem::take(&mut table.members)
                .into_iter()
                .map(|member| self.member(member))
                .collect();
            if let Some(target) = &table.deploy_to {
                self.name(target);
            }
            written.insert(key, Written { table, members });
        }
        let mut virtuals = Vec::new();
        for (
            key,
            Written {
                table,
                members: own,
            },
        ) in &written
        {
            let mut members = Vec::new();
            let mut path = vec![key.clone()];
            let all = Tables {
                known,
                written: &written,
                whole,
            };
            self.expand(&mut path, &[], &all, &mut members);
            if own.is_empty() && whole {
                self.no_such_name(
                    format!("[virtual.{key}] has no members"),
                    key.as_str(),
                    "write members = [\"…\"]".to_owned(),
                );
            }
            let deploy_to = table
                .deploy_to
                .as_ref()
                .and_then(|target| self.deploy_to(target, key, &members, known, whole));
            let serves = table.serves.iter().filter_map(|host| self.host(host));
            virtuals.push(Virtual {
                key: key.clone(),
                serves: serves.collect(),
                members,
                deploy_to,
                by_timestamp: table.resolve_tags_by_timestamp,
                exclusive_names: table.local_names != Some(file::LocalNames::Shared),
            });
        }
        virtuals
    }

    fn member(&mut self, written: Spanned<file::Member>) -> (Spanned<String>, Filter) {
        let at = written.span();
        let mut written = written.into_inner();
        if written.repository.span().is_empty() {
            written.repository = Spanned::new(at, written.repository.into_inner());
        }
        self.name(&written.repository);
        let filter = Filter {
            include: self.patterns(&written.include, "library/**"),
            exclude: self.patterns(&written.exclude, "team/**"),
        };
        (written.repository, filter)
    }

    /// Patterns of names or tags: `*` is within a component, `**` over several.
    pub(super) fn patterns(&mut self, written: &[Spanned<String>], like: &str) -> GlobSet {
        let mut patterns = GlobSetBuilder::new();
        for pattern in written {
            match GlobBuilder::new(pattern.get_ref())
                .literal_separator(true)
                .build()
            {
                Ok(glob) => {
                    patterns.add(glob);
                }
                Err(error) => self.problem(
                    pattern.span(),
                    format!("this is no pattern: {}", error.kind()),
                    format!("write it like \"{like}\""),
                ),
            }
        }
        patterns.build().unwrap_or_default()
    }

    /// Puts the members of the last of `path` into `into`, those of virtual ones in their place.
    fn expand(
        &mut self,
        path: &mut Vec<Key>,
        filters: &[Filter],
        all: &Tables<'_>,
        into: &mut Vec<VirtualMember>,
    ) {
        let Tables {
            known,
            written,
            whole,
        } = *all;
        let Some(Written { members, .. }) = path.last().and_then(|key| written.get(key)) else {
            return;
        };
        for (name, filter) in members {
            let mut filters = filters.to_vec();
            filters.push(filter.clone());
            let key = Key::parse(name.get_ref()).ok();
            let found = key.filter(|key| known.contains_key(key) || written.contains_key(key));
            match found {
                Some(key) if path.contains(&key) => {
                    let circle: Vec<&str> = path
                        .iter()
                        .skip_while(|one| **one != key)
                        .chain([&key])
                        .map(Key::as_str)
                        .collect();
                    // Said once, from the first of its members on.
                    if path.first() == Some(&key) && path.iter().min() == Some(&key) {
                        self.no_such_name(
                            format!(
                                "virtual repositories contain each other: {}",
                                circle.join(" > ")
                            ),
                            name.get_ref(),
                            "take one of them out".to_owned(),
                        );
                    }
                }
                Some(key) if written.contains_key(&key) => {
                    path.push(key);
                    self.expand(path, &filters, all, into);
                    path.pop();
                }
                Some(key) => into.push(VirtualMember { key, filters }),
                None if whole => self.no_such_name(
                    format!(
                        "a virtual repository names no repository: `{}`",
                        name.get_ref()
                    ),
                    name.get_ref(),
                    "name a configured one".to_owned(),
                ),
                None => {}
            }
        }
    }

    fn deploy_to(
        &mut self,
        target: &Spanned<String>,
        of: &Key,
        members: &[VirtualMember],
        known: &BTreeMap<Key, Kind>,
        whole: bool,
    ) -> Option<Key> {
        let key = Key::parse(target.get_ref()).ok();
        let is_local = key
            .as_ref()
            .is_some_and(|key| known.get(key) == Some(&Kind::Local));
        let is_member = members
            .iter()
            .any(|member| Some(&member.key) == key.as_ref());
        if whole && !is_local {
            self.no_such_name(
                format!(
                    "virtual.{of}.deploy_to names no local repository: `{}`",
                    target.get_ref()
                ),
                target.get_ref(),
                "name a [local.<key>]".to_owned(),
            );
        } else if whole && !is_member {
            self.no_such_name(
                format!("virtual.{of}.deploy_to is no member, so what is pushed could not be pulled again"),
                target.get_ref(),
                "put it into members".to_owned(),
            );
        }
        key
    }
}
