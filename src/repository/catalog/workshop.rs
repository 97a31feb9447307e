//! Building repositories from what they are told, and settling what stood under their keys before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tracing::warn;

use super::{ChangeError, FileSettings, Snapshot};
use crate::cache::{self, PullThrough};
use crate::clock;
use crate::overlay::{self, Local};
use crate::repository::declared::{AllDeclared, Class, Declared, FieldError};
use crate::repository::definitions::{Definition, Definitions};
use crate::repository::image::Repository;
use crate::repository::key::Key;
use crate::repository::quotas;
use crate::repository::settings::{AllSettings, MemberSettings, RemoteSettings, Settings};
use crate::repository::virtuals::{self, Member, Virtual};
use crate::store::{Change, StoreError};
use crate::upstream::{ProxyConfig, Upstream};

/// What repositories are built from.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// What remotes share: the store, background tasks, counters.
    pub cache: cache::Shared,
    /// What local repositories share.
    pub overlay: overlay::Shared,
    /// Proxies, as the environment gives them.
    pub proxy: ProxyConfig,
    /// This process in `CDN-Loop`.
    pub instance: String,
}

/// What everything is told together; the file has the last word. What was declared and cannot be is given back with the reason.
pub(super) fn settings(
    file: &FileSettings,
    declared: &AllDeclared,
) -> (AllSettings, Vec<(Key, FieldError)>) {
    let mut all = file.repositories.clone();
    let mut wrong = Vec::new();
    // Virtual ones last: how they ask their members follows from what those are.
    let of_class = |is_virtual: bool| {
        let class = move |one: &&(&Key, &Declared)| (one.1.class() == Class::Virtual) == is_virtual;
        let mut some: Vec<(&Key, &Declared)> = declared.iter().collect();
        some.retain(|one| class(&one));
        some
    };
    for (key, one) in of_class(false).into_iter().chain(of_class(true)) {
        if file.repositories.contains_key(key) {
            continue;
        }
        match one.settings(key, &all) {
            Ok(settings) => {
                all.insert(key.clone(), settings);
            }
            Err(error) => wrong.push((key.clone(), error)),
        }
    }
    (all, wrong)
}

impl Workshop {
    /// What there is when these are told so, with everything of `before` that is told the same.
    pub(super) async fn build(
        &self,
        before: &Snapshot,
        file: &FileSettings,
        declared: &AllDeclared,
    ) -> Result<Snapshot, ChangeError> {
        for key in declared.keys() {
            if file.repositories.contains_key(key) {
                warn!(repository = %key, "the configuration file defines what was made at run time too; the file counts");
            }
        }
        let (mut all, wrong) = settings(file, declared);
        let mut left_out = before.left_out.clone();
        left_out.retain(|key| !all.contains_key(key) && !declared.contains_key(key));
        for (key, error) in wrong {
            warn!(repository = %key, %error, "a repository that was made at run time cannot be used; it is left out");
            left_out.insert(key);
        }
        let members = members(&mut all, &mut left_out);
        let mut repositories = HashMap::new();
        for (key, settings) in &all {
            let same = (before.settings.get(key) == Some(settings))
                .then(|| before.repositories.get(key))
                .flatten();
            let built = match (settings, same) {
                (Settings::Virtual(_), _) => continue,
                (_, Some(same)) => same.clone(),
                (Settings::Remote(remote), None) => {
                    Repository::Remote(self.remote(remote, before).await?)
                }
                (Settings::Local(local), None) => {
                    let (key, config) = (local.key.as_str(), local.config.clone());
                    Repository::Local(Local::new(key, config, self.overlay.clone()))
                }
            };
            repositories.insert(key.clone(), built);
        }
        for (key, members) in members {
            if let Some(Settings::Virtual(several)) = all.get(&key) {
                let config = virtuals::Config {
                    members: assemble(&members, &repositories),
                    deploy_to: several.deploy_to.as_ref().and_then(|key| {
                        match repositories.get(key)? {
                            Repository::Local(local) => Some(local.clone()),
                            Repository::Remote(_) | Repository::Virtual(_) => None,
                        }
                    }),
                    by_timestamp: several.by_timestamp,
                    exclusive_names: several.exclusive_names,
                };
                let made = Virtual::new(key.clone(), config);
                repositories.insert(key, Repository::Virtual(made));
            }
        }
        let definitions = all.values().map(Settings::definition);
        // Known to routing, so that nobody else is asked for what is theirs.
        let silent = left_out.iter().map(|key| Definition {
            key: key.clone(),
            serves: Vec::new(),
            is_docker_hub: false,
        });
        Ok(Snapshot {
            definitions: Definitions::new(
                definitions.chain(silent).collect(),
                file.default.clone(),
            ),
            left_out,
            hosts: file.hosts.clone(),
            declared: declared
                .iter()
                .filter(|(key, _)| !file.repositories.contains_key(key))
                .map(|(key, one)| (key.clone(), one.clone()))
                .collect(),
            repositories,
            settings: all,
        })
    }

    /// Every key stands for what it is told from here on; what was cached for another upstream is forgotten.
    pub(super) async fn settle(
        &self,
        before: &Snapshot,
        next: &Snapshot,
    ) -> Result<(), ChangeError> {
        let origin = |snapshot: &Snapshot, key: &Key| match snapshot.settings.get(key) {
            Some(Settings::Remote(remote)) => Some(format!("remote {}", remote.url)),
            Some(Settings::Local(_)) => Some("local".to_owned()),
            Some(Settings::Virtual(_)) | None => None,
        };
        let mut retired = Vec::new();
        for (key, repository) in &before.repositories {
            if let Repository::Remote(remote) = repository
                && origin(before, key) != origin(next, key)
            {
                remote.retire(true);
                retired.push(remote);
            }
        }
        for key in next.settings.keys() {
            let Some(stands_for) = origin(next, key) else {
                continue;
            };
            if origin(before, key).as_ref() == Some(&stands_for) {
                continue;
            }
            if let Err(error) = self.stand_for(key, &stands_for, false).await {
                for remote in retired {
                    remote.retire(false);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// What was cached under a key is forgotten.
    pub(super) async fn forget(&self, key: &Key) -> Result<(), ChangeError> {
        Ok(self.stand_for(key, "", true).await?)
    }

    /// A key stands for this from here on. What was cached for something else goes; the journal is told, or what was kept of it would come
    /// back with the next index.
    async fn stand_for(&self, key: &Key, origin: &str, afresh: bool) -> Result<(), StoreError> {
        let (store, key) = (&self.cache.store, key.as_str());
        let before = store.index().origin(key).await?;
        if before.is_some_and(|before| !before.is_empty() && (afresh || before != origin)) {
            let change = Change::forget_repository(key, clock::now());
            self.write(vec![change]).await?;
        }
        let orphans = store.index().settle_origin(key, origin, afresh).await?;
        store.drop_cached(orphans).await
    }

    pub(super) async fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let changes = changes.into_iter().map(|change| (change, None)).collect();
        self.cache.store.commit_changes(changes).await
    }

    async fn remote(
        &self,
        remote: &RemoteSettings,
        before: &Snapshot,
    ) -> Result<PullThrough, ChangeError> {
        let pushed = self.cache.store.index().has_pushed(remote.key.as_str());
        if pushed.await.map_err(StoreError::from)? {
            return Err(ChangeError::HasPushed(remote.key.clone()));
        }
        let (tasks, metrics) = (&self.cache.tasks, Arc::clone(&self.cache.metrics));
        let config = remote.upstream(&self.proxy, &self.instance);
        let upstream = Upstream::new(config, tasks, metrics)?;
        match before.get(&remote.key) {
            Some(Repository::Remote(old)) => upstream.restore_quotas(&old.upstream().quotas()),
            _ => quotas::restore(self.cache.store.index(), remote, &upstream).await,
        }
        let key = remote.key.to_string();
        let cache = PullThrough::new(key, remote.cache.clone(), upstream, self.cache.clone());
        if let Some(Repository::Remote(before)) = before.get(&remote.key) {
            return Ok(cache.with_pins_of(before));
        }
        if let Err(error) = cache.load_pins().await {
            warn!(repository = %remote.key, %error, "pinned tags cannot be read; they mean what upstream says");
        }
        Ok(cache)
    }
}

/// Whom every virtual repository asks. One that cannot be is left out whole: without a member it might ask upstream for what that kept local.
fn members(
    all: &mut AllSettings,
    left_out: &mut BTreeSet<Key>,
) -> BTreeMap<Key, Vec<MemberSettings>> {
    let mut expanded = BTreeMap::new();
    for settings in all.values() {
        if let Settings::Virtual(several) = settings {
            match several.expand(all) {
                Ok(members) => {
                    expanded.insert(several.key.clone(), members);
                }
                Err(error) => {
                    warn!(repository = %several.key, %error, "a virtual repository cannot be used; it is left out");
                    left_out.insert(several.key.clone());
                }
            }
        }
    }
    all.retain(|key, settings| {
        !matches!(settings, Settings::Virtual(_)) || expanded.contains_key(key)
    });
    expanded
}

fn assemble(members: &[MemberSettings], repositories: &HashMap<Key, Repository>) -> Vec<Member> {
    let members = members.iter().filter_map(|member| {
        Some(Member {
            key: member.key.clone(),
            repository: repositories.get(&member.key)?.clone(),
            filters: member.filters.clone(),
        })
    });
    members.collect()
}
