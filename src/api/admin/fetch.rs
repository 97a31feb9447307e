//! What the owner's commands look up, fetch and push: `roadstead lock`, `sync` and `copy`, over the admin socket alone.

use std::sync::Arc;

use http::Response;
use serde_json::json;

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use super::work;
use crate::body::Body;
use crate::bundle::asked::Asked;
use crate::bundle::copy::{self, Account, Destination};
use crate::bundle::found::Search;
use crate::bundle::locking;
use crate::bundle::sync::{Order, Sync};
use crate::repository::Repository;
use crate::upstream::{self, CredentialConfig, SecretSource, Upstream};

/// The label of what is told and counted of registries that are no repositories here.
const ELSEWHERE: &str = "copy";

impl Api {
    /// `GET /admin/sync`: the lists that are brought in the background, and how that went.
    pub(in super::super) fn schedules(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "GET")?;
        Ok(respond::json(&self.config.schedules.to_json()))
    }

    /// `POST /admin/lock`: what everything means now, as the text of a lock.
    pub(super) async fn lock(
        &self,
        call: &Call<'_>,
        asked: Asked,
    ) -> Result<Response<Body>, ApiError> {
        let pulled = self.pulled_as_asked(&asked).await?;
        let (there, hops) = (Arc::clone(&call.there), call.hops.clone());
        Ok(work::answer(&self.config.tasks, |progress| async move {
            let search = Search {
                there: &there,
                hops: &hops,
                pulled: &pulled,
                progress: &progress,
            };
            let lock = locking::lock(&search, &asked).await;
            let lock = lock.map_err(|error| error.to_string())?;
            Ok(json!({ "lock": lock.to_text() }))
        }))
    }

    /// `POST /admin/sync`: fetches images and keeps them.
    pub(super) async fn sync(
        &self,
        call: &Call<'_>,
        order: Order,
    ) -> Result<Response<Body>, ApiError> {
        let pulled = self.pulled_as_asked(&order.asked).await?;
        let (there, hops) = (Arc::clone(&call.there), call.hops.clone());
        let (store, who) = (
            self.config.store.clone(),
            call.identity.shown().into_owned(),
        );
        Ok(work::answer(&self.config.tasks, |progress| async move {
            let sync = Sync {
                search: Search {
                    there: &there,
                    hops: &hops,
                    pulled: &pulled,
                    progress: &progress,
                },
                store: &store,
                who: &who,
            };
            let report = sync.run(&order).await.map_err(|error| error.to_string())?;
            serde_json::to_value(report).map_err(|error| error.to_string())
        }))
    }

    /// `POST /admin/copy`: pushes images to another registry.
    pub(super) async fn copy(
        &self,
        call: &Call<'_>,
        order: copy::Order,
    ) -> Result<Response<Body>, ApiError> {
        let pulled = self.pulled_as_asked(&order.asked).await?;
        let target = self.registry_of(call, &order.to);
        let target = target.map_err(ApiError::bad_request)?;
        let (there, hops) = (Arc::clone(&call.there), call.hops.clone());
        let store = self.config.store.clone();
        Ok(work::answer(&self.config.tasks, |progress| async move {
            let search = Search {
                there: &there,
                hops: &hops,
                pulled: &pulled,
                progress: &progress,
            };
            let report = copy::copy(&search, &store, &target, &order).await;
            let report = report.map_err(|error| error.to_string())?;
            serde_json::to_value(report).map_err(|error| error.to_string())
        }))
    }

    /// The registry that is pushed to: the upstream of a remote with that host, which has its login and its limits; else one of its own.
    fn registry_of(&self, call: &Call<'_>, to: &Destination) -> Result<Upstream, String> {
        let is_explicit = to.login.as_ref().is_some_and(|login| login.is_explicit);
        let configured = call.there.iter().find_map(|(_, one)| match one {
            Repository::Remote(remote) if remote.upstream().is_registry(&to.registry) => {
                Some(remote.upstream())
            }
            Repository::Remote(_) | Repository::Local(_) | Repository::Virtual(_) => None,
        });
        if let (Some(upstream), false) = (configured, is_explicit) {
            return Ok(upstream.clone());
        }
        let url = to.url().map_err(|error| error.to_string())?;
        let built = self.config.catalog.elsewhere(|proxy, instance| {
            let mut config = upstream::Config::new(ELSEWHERE, url, instance);
            config.proxy = proxy.clone();
            config.token_hosts.clone_from(&to.token_hosts);
            config.credentials = to.login.iter().map(credential).collect();
            config
        });
        built.map_err(|error| error.to_string())
    }
}

fn credential(login: &Account) -> CredentialConfig {
    CredentialConfig::Static {
        username: login.username.clone(),
        password: SecretSource::Value(login.password.clone()),
    }
}
