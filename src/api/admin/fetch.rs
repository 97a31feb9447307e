//! What the owner's commands look up and fetch: `roadstead lock` and `sync`, over the admin socket alone.

use std::sync::Arc;

use http::Response;
use serde_json::json;

use super::super::{Api, Call};
use super::work;
use crate::body::Body;
use crate::bundle::asked::Asked;
use crate::bundle::found::Search;
use crate::bundle::locking;
use crate::bundle::sync::{Order, Sync};

impl Api {
    /// `POST /admin/lock`: what everything means now, as the text of a lock.
    pub(super) fn lock(call: &Call<'_>, asked: Asked) -> Response<Body> {
        let (there, hops) = (Arc::clone(&call.there), call.hops.clone());
        work::answer(|progress| async move {
            let search = Search {
                there: &there,
                hops: &hops,
                progress: &progress,
            };
            let lock = locking::lock(&search, &asked).await;
            let lock = lock.map_err(|error| error.to_string())?;
            Ok(json!({ "lock": lock.to_text() }))
        })
    }

    /// `POST /admin/sync`: fetches images and keeps them.
    pub(super) fn sync(&self, call: &Call<'_>, order: Order) -> Response<Body> {
        let (there, hops) = (Arc::clone(&call.there), call.hops.clone());
        let (store, who) = (
            self.config.store.clone(),
            call.identity.shown().into_owned(),
        );
        work::answer(|progress| async move {
            let sync = Sync {
                search: Search {
                    there: &there,
                    hops: &hops,
                    progress: &progress,
                },
                store: &store,
                who: &who,
            };
            let report = sync.run(&order).await.map_err(|error| error.to_string())?;
            serde_json::to_value(report).map_err(|error| error.to_string())
        })
    }
}
