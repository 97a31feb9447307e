//! `/admin/gc` and `/admin/verify`: what the commands of that name do while the mirror runs.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::oci::ErrorCode;
use crate::repository::{Error, Repository};

impl Api {
    /// `POST /admin/gc?dry_run=&grace=`: lets go of what nothing refers to in every local repository; `grace` in seconds.
    pub(in super::super) async fn collection(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "POST")?;
        let dry_run = match call.query("dry_run") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(ApiError::bad_request("dry_run is true or false")),
        };
        let grace = match call.query("grace").map(str::parse) {
            None => self.config.grace,
            Some(Ok(seconds)) => Duration::from_secs(seconds),
            Some(Err(_)) => return Err(ApiError::bad_request("grace is a number of seconds")),
        };
        let mut locals: Vec<_> = call
            .there
            .iter()
            .filter_map(|(key, one)| match one {
                Repository::Local(local) => Some((key, local)),
                Repository::Remote(_) | Repository::Virtual(_) => None,
            })
            .collect();
        locals.sort_by_key(|(key, _)| *key);
        let mut gone: Vec<Value> = Vec::new();
        for (key, local) in locals {
            let collected = local.collect_now(grace, dry_run).await;
            let collected = collected.map_err(|error| {
                ApiError::from_repository(Error::from(error), ErrorCode::Unknown)
            })?;
            gone.extend(collected.iter().map(|one| one.to_json(key.as_str())));
        }
        Ok(respond::json(&json!({ "collected": gone })))
    }

    /// `POST /admin/verify`: hashes every blob; what is damaged is moved aside. Ends with its client.
    pub(in super::super) async fn verification(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "POST")?;
        let verified = self.config.store.verify().await;
        let verified = verified.map_err(|error| ApiError::failed(&error))?;
        Ok(respond::json(&verified.to_json()))
    }
}
