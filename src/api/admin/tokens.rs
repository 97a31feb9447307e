//! `/admin/tokens`: API tokens are made, listed and revoked.

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::{self, Body, Chunks};

/// The longest body.
const BODY_MAX: usize = 64 * 1024;

impl Api {
    /// `GET /admin/tokens`; `POST /admin/tokens {"name", "user", "may", "on", "expires_in"}`, whose answer alone has the token's text; `DELETE
    /// /admin/tokens/<name>`.
    pub(in super::super) async fn tokens(
        &self,
        call: &Call<'_>,
        name: Option<&str>,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.require_admin(call)?;
        record.note_repository("-", "admin");
        let Some(auth) = &self.config.auth else {
            return Err(ApiError::bad_request(
                "without [auth] there are no users, and no tokens of theirs",
            ));
        };
        let who = &*call.identity.shown();
        let by_token = call.identity.api_token().is_some();
        match (call.method, name) {
            (&Method::GET, None) => Ok(respond::json(&json!({ "tokens": auth.list_api_tokens() }))),
            (&Method::POST, None) | (&Method::DELETE, Some(_)) if by_token => {
                Err(ApiError::no_tokens_by_token())
            }
            (&Method::POST, None) => {
                let whole = body::whole(body, BODY_MAX).await?;
                let sent: Value = serde_json::from_slice(&whole).map_err(|error| {
                    ApiError::bad_request(format!("the body is no JSON: {error}"))
                })?;
                let made = auth.create_api_token(&sent, who).await;
                let made = made.map_err(|error| ApiError::from_api_token(&error))?;
                let mut response = respond::json(&made.to_json());
                *response.status_mut() = StatusCode::CREATED;
                let no_store = HeaderValue::from_static("no-store");
                response
                    .headers_mut()
                    .insert(header::CACHE_CONTROL, no_store);
                Ok(response)
            }
            (&Method::DELETE, Some(name)) => {
                let revoked = auth.revoke_api_token(name, who).await;
                revoked.map_err(|error| ApiError::from_api_token(&error))?;
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            (_, None) => Err(ApiError::method("GET, POST")),
            (_, Some(_)) => Err(ApiError::method("DELETE")),
        }
    }
}
