//! What the owner's commands carry out and in: `roadstead export`, `import` and their like, over the admin socket alone.

use std::str::FromStr as _;
use std::sync::Arc;

use futures_util::StreamExt as _;
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::route::Carry;
use super::super::{Api, Call, respond};
use super::work;
use crate::body::{self, Body, Chunks};
use crate::bundle::export::{Export, Order};
use crate::bundle::found::Search;
use crate::bundle::import::{self, Import};
use crate::bundle::inventory;
use crate::bundle::progress::Event;
use crate::cache::{CacheStatus, OpenBlob, Outcome, Promise, Reason};
use crate::oci::Digest;

/// The longest request: lists of images, and what the other side has.
const BODY_MAX: usize = 64 << 20;

impl Api {
    /// Whatever the owner's commands carry.
    pub(in super::super) async fn carry(
        &self,
        call: &Call<'_>,
        carry: Carry,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        match carry {
            Carry::Export => {
                self.administer(call, record, "POST")?;
                self.export(call, order(body).await?).await
            }
            Carry::Lock => {
                self.administer(call, record, "POST")?;
                self.lock(call, order(body).await?).await
            }
            Carry::Copy => {
                self.administer(call, record, "POST")?;
                self.copy(call, order(body).await?).await
            }
            Carry::Sync => {
                self.administer(call, record, "POST")?;
                self.sync(call, order(body).await?).await
            }
            Carry::Inventory => {
                self.administer(call, record, "GET")?;
                let digests = self.config.store.every_digest().await;
                let digests = digests.map_err(|error| ApiError::failed(&error))?;
                let file = inventory::write(digests);
                Ok(respond::text(
                    file.map_err(|error| ApiError::failed(&error))?,
                ))
            }
            Carry::Import { commit } => {
                self.administer(call, record, "POST")?;
                Ok(self.import(call, order(body).await?, commit))
            }
            Carry::Content { digest } if call.method == Method::PUT => {
                self.administer(call, record, "PUT")?;
                self.take_content(call, &digest, body).await
            }
            Carry::Content { digest } => {
                self.administer(call, record, "GET")?;
                self.content(&digest).await
            }
        }
    }

    /// `POST /admin/export`: gets everything together, says what there is, and keeps it until the client leaves.
    async fn export(&self, call: &Call<'_>, order: Order) -> Result<Response<Body>, ApiError> {
        let pulled = self.pulled_as_asked(&order.asked).await?;
        let (there, hops) = (Arc::clone(&call.there), call.hops.clone());
        let store = self.config.store.clone();
        Ok(work::answer(&self.config.tasks, |progress| async move {
            let search = Search {
                there: &there,
                hops: &hops,
                pulled: &pulled,
                progress: &progress,
            };
            let export = Export::prepare(&search, &store, &order).await;
            let export = export.map_err(|error| error.to_string())?;
            let table = export
                .contents
                .to_json()
                .map_err(|error| error.to_string())?;
            let table = String::from_utf8(table).map_err(|error| error.to_string())?;
            let result = json!({ "contents": table });
            progress.tell(Event::Done { result }).await;
            // Until the client has all of it and goes.
            std::future::pending().await
        }))
    }

    /// `POST /admin/import`: says what has to be sent, and holds all of it until the client leaves. `POST /admin/import/commit`: lets what
    /// is complete be there.
    fn import(&self, call: &Call<'_>, order: import::Order, commit: bool) -> Response<Body> {
        let there = Arc::clone(&call.there);
        let (store, who) = (self.config.store.clone(), call.identity.shown().to_string());
        work::answer(&self.config.tasks, move |progress| async move {
            let import = Import::prepare(&there, &store, order, &progress).await;
            let import = import.map_err(|error| error.to_string())?;
            if commit {
                let committed = import.commit(&who, &progress).await;
                return committed.map_err(|error| error.to_string());
            }
            let result = import.to_json();
            progress.tell(Event::Done { result }).await;
            // Until the client has sent all of it, and committed it, and goes.
            std::future::pending().await
        })
    }

    /// `PUT /admin/content/<digest>?size=[&local=true]`: content that somebody is about to import. Nobody can read it before it is linked.
    async fn take_content(
        &self,
        call: &Call<'_>,
        digest: &str,
        mut body: Chunks,
    ) -> Result<Response<Body>, ApiError> {
        let digest = Digest::from_str(digest).map_err(|_other| ApiError::not_found())?;
        let size = call.query("size").and_then(|size| size.parse().ok());
        let Some(size) = size else {
            return Err(ApiError::bad_request(
                "size: how many bytes there are is needed",
            ));
        };
        let store = &self.config.store;
        let failed = |error| ApiError::from_stage(&error);
        let staged = if call.query("local") == Some("true") {
            store.stage_to_link(&digest, Some(size)).await
        } else {
            store.stage(&digest, Some(size)).await
        };
        let mut staged = staged.map_err(failed)?;
        if staged.held() > 0 {
            // What a download left is begun anew: its bytes are not known to be good.
            staged.discard().await;
            staged = store.stage(&digest, Some(size)).await.map_err(failed)?;
        }
        while let Some(chunk) = body.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    staged.discard().await;
                    return Err(ApiError::bad_request(format!(
                        "the body broke off: {error}"
                    )));
                }
            };
            staged.append(chunk).await.map_err(failed)?;
        }
        let committed = staged.commit().await;
        committed.map_err(|error| ApiError::from_commit(&error))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    }

    /// `GET /admin/content/<digest>`: bytes of the store, whoever has them.
    async fn content(&self, digest: &str) -> Result<Response<Body>, ApiError> {
        let digest = Digest::from_str(digest).map_err(|_other| ApiError::not_found())?;
        let found = self.config.store.open_blob(&digest).await;
        let found = found.map_err(|error| ApiError::failed(&error))?;
        let blob = found.ok_or_else(ApiError::not_found)?;
        let size = blob.size();
        let open = OpenBlob::stored(blob, CacheStatus::new(Outcome::Hit, Reason::Immutable));
        let bytes = open.read(0, Some(size), Promise::ToEnd);
        let mut response = Response::new(Body::stream(bytes, Some(size)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        Ok(response)
    }
}

/// What a request asks for.
async fn order<T: DeserializeOwned>(body: Chunks) -> Result<T, ApiError> {
    let whole = body::whole(body, BODY_MAX).await?;
    serde_json::from_slice(&whole).map_err(|error| {
        ApiError::bad_request(format!("the body is not what is expected: {error}"))
    })
}
