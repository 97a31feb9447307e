//! `[[sync]]` tables: lists that are brought in the background.

use std::collections::BTreeSet;

use super::file;
use super::resolve::Reader;
use crate::bundle::asked::Asked;
use crate::bundle::sync::schedule::{EVERY, EVERY_MIN, Scheduled};
use crate::repository::Key;

impl Reader<'_> {
    pub(super) fn syncs(&mut self, tables: Vec<file::Sync>) -> Vec<Scheduled> {
        let (mut all, mut names) = (Vec::new(), BTreeSet::new());
        for table in tables {
            let name = table.name.get_ref();
            if let Err(error) = Key::parse(name) {
                self.problem(
                    table.name.span(),
                    format!("sync.name: `{name}` is no name"),
                    error.to_string(),
                );
            }
            if !names.insert(name.clone()) {
                self.problem(
                    table.name.span(),
                    format!("sync.name: `{name}` is there twice"),
                    "give each a name of its own",
                );
            }
            if table.lists.is_empty() && table.images.is_empty() {
                self.problem(
                    table.name.span(),
                    format!("sync: `{name}` names no images"),
                    "write lists = [\"images.yaml\"], images = [\"nginx:1.27\"], or both",
                );
            }
            for image in &table.images {
                let asked = Asked {
                    images: vec![image.get_ref().clone()],
                    ..Asked::default()
                };
                if let Err(error) = asked.wanted() {
                    let title = format!("sync.images: `{}` is no image", image.get_ref());
                    self.problem(image.span(), title, error.to_string());
                }
            }
            for platform in &table.platforms {
                let asked = Asked {
                    platforms: vec![platform.get_ref().clone()],
                    ..Asked::default()
                };
                if let Err(error) = asked.platforms() {
                    self.problem(
                        platform.span(),
                        "sync.platforms: this is no platform",
                        error.to_string(),
                    );
                }
            }
            let every = table.every.as_ref();
            if let Some(every) = every.filter(|every| every.get_ref().0 < EVERY_MIN) {
                self.problem(
                    every.span(),
                    "sync.every: that is too often",
                    format!("write at least \"{}s\"", EVERY_MIN.as_secs()),
                );
            }
            let text = |all: Vec<toml::Spanned<String>>| -> Vec<String> {
                all.into_iter().map(toml::Spanned::into_inner).collect()
            };
            all.push(Scheduled {
                every: every.map_or(EVERY, |every| every.get_ref().0),
                lists: table.lists.iter().map(|list| self.path(list)).collect(),
                name: table.name.into_inner(),
                images: text(table.images),
                platforms: text(table.platforms),
                with_referrers: table.with_referrers,
            });
        }
        all
    }
}
