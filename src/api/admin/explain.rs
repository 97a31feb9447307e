//! `/admin/explain`: why a pull does what it does.

use http::Response;

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::repository::{Explanation, Question, explain};

impl Api {
    /// `GET /admin/explain?image=[&ns=][&user=]`: where a reference leads, who may pull it, and what a pull would do now.
    pub(in super::super) async fn explain(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.administer(call, record, "GET")?;
        let Some(image) = call.query("image") else {
            return Err(ApiError::bad_request(
                "image: it is needed: ?image=[host or key/]name[:tag][@digest]",
            ));
        };
        let question = Question {
            image: image.to_owned(),
            namespace: call.query("ns").map(str::to_owned),
            user: call.query("user").map(str::to_owned),
            own_hosts: call.own_hosts.clone(),
        };
        let explained = self.explained(call, &question).await?;
        Ok(respond::json(&explained.to_json()))
    }

    /// The same, for who may know it.
    pub(super) async fn explained(
        &self,
        call: &Call<'_>,
        question: &Question,
    ) -> Result<Explanation, ApiError> {
        let auth = self.config.auth.as_deref();
        let explained = explain(&call.there, auth, question).await;
        explained.map_err(ApiError::from_explain)
    }
}
