//! `/admin/audit`: what was done, by whom.

use http::{Response, header};
use serde_json::json;

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;

/// The most records in one answer.
const PAGE_MAX: usize = 1000;

impl Api {
    /// `GET /admin/audit?n=&last=`: records behind the number `last`, the oldest first.
    pub(in super::super) async fn audit(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "GET")?;
        let number = |name: &str, usual: u64| {
            let found = call.query.iter().find(|(key, _)| key == name);
            let Some((_, text)) = found else {
                return Ok(usual);
            };
            let sentence = format!("{name} is a number from 0");
            text.parse::<u64>()
                .map_err(|_none| ApiError::bad_request(sentence))
        };
        let (last, n) = (number("last", 0)?, number("n", PAGE_MAX as u64)?);
        let most = usize::try_from(n).unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let found = self.config.store.index().audit(last, most).await;
        let found = found.map_err(|error| ApiError::failed(&error))?;
        let next = found
            .last()
            .filter(|_| found.len() == most && most > 0)
            .map(|(number, ..)| format!("/admin/audit?n={most}&last={number}"));
        let records: Vec<_> = found
            .into_iter()
            .map(|(number, at, event)| {
                let event: serde_json::Value = serde_json::from_str(&event).unwrap_or_default();
                json!({ "number": number, "time": at.to_string(), "event": event })
            })
            .collect();
        let mut response = respond::json(&json!({ "records": records }));
        if let Some(next) = next {
            let link = crate::oci::link::render_next(&next);
            respond::set(response.headers_mut(), header::LINK, &link);
        }
        Ok(response)
    }
}
