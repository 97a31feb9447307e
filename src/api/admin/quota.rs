//! `/admin/quota`: what is left of the upstreams' pull quotas.

use http::Response;
use serde_json::json;

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::repository::QuotaLine;

impl Api {
    /// `GET /admin/quota`: every remote with its credentials, by name.
    pub(in super::super) fn quota(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "GET")?;
        let lines = call.there.quotas();
        let quotas: Vec<_> = lines.iter().map(QuotaLine::to_json).collect();
        Ok(respond::json(&json!({ "quotas": quotas })))
    }
}
