//! `[virtual.<key>]` tables: members that exist, no circle, patterns, where pushes go.

use std::collections::BTreeMap;

use toml::Spanned;

use super::file;
use super::resolve::Reader;
use crate::globs::Globs;
use crate::repository::{AllSettings, Filter, Key, Settings, Unfit, VirtualSettings};

impl Reader<'_> {
    /// Adds every virtual repository. `whole`: all that is named must be there.
    pub(super) fn virtuals(
        &mut self,
        tables: BTreeMap<Spanned<String>, file::Virtual>,
        all: &mut AllSettings,
        whole: bool,
    ) {
        let mut keys = Vec::new();
        for (name, table) in tables {
            let Some(key) = self.key(&name) else {
                continue;
            };
            let settings = self.one_virtual(key.clone(), table);
            if all.contains_key(&key) {
                self.problem(
                    name.span(),
                    format!("`{key}` is a repository already"),
                    "give it a key of its own",
                );
            } else {
                all.insert(key.clone(), Settings::Virtual(settings));
                keys.push(key);
            }
        }
        for key in keys.iter().filter(|_| whole) {
            if let Some(Settings::Virtual(several)) = all.get(key)
                && let Err(unfit) = several.expand(all)
            {
                self.unfit(key, &unfit);
            }
        }
    }

    fn one_virtual(&mut self, key: Key, table: file::Virtual) -> VirtualSettings {
        let members = table.members.into_iter();
        let members = members.filter_map(|member| self.member(member)).collect();
        let deploy_to = table.deploy_to.and_then(|target| {
            self.name(&target);
            self.key(&target)
        });
        let serves = table.serves.iter().filter_map(|host| self.host(host));
        VirtualSettings {
            serves: serves.collect(),
            key,
            members,
            deploy_to,
            by_timestamp: table.resolve_tags_by_timestamp,
            exclusive_names: table.local_names != Some(file::LocalNames::Shared),
        }
    }

    fn member(&mut self, written: Spanned<file::Member>) -> Option<(Key, Filter)> {
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
        Some((self.key(&written.repository)?, filter))
    }

    /// Patterns of names or tags: `*` is within a component, `**` over several.
    pub(super) fn patterns(&mut self, written: &[Spanned<String>], like: &str) -> Globs {
        let texts: Vec<&String> = written.iter().map(Spanned::get_ref).collect();
        Globs::parse(&texts).unwrap_or_else(|error| {
            let at = written.get(error.position).map_or(0..0, Spanned::span);
            self.problem(at, error.to_string(), format!("write it like \"{like}\""));
            Globs::default()
        })
    }

    /// Says what is wrong with `key`, at the name that is wrong.
    fn unfit(&mut self, key: &Key, unfit: &Unfit) {
        let (name, remedy) = match unfit {
            // Said once, by the first of those in it; others that lead there have nothing of their own to say.
            Unfit::Circle(circle) if circle.iter().min() != Some(key) => return,
            Unfit::Circle(circle) => (circle.last(), "take one of them out"),
            Unfit::Empty(key) => (Some(key), "write members = [\"…\"]"),
            Unfit::TooMany(key) => (Some(key), "take some of its members out"),
            Unfit::NoMember(member) => (Some(member), "name a configured one"),
            Unfit::NotLocal(_, target) => (Some(target), "name a [local.<key>] in deploy_to"),
            Unfit::NotAMember(_, target) => (Some(target), "put it into members"),
        };
        let name = name.map_or("", Key::as_str);
        self.no_such_name(unfit.to_string(), name, remedy.to_owned());
    }
}
