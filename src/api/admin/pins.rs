//! `/admin/pins`: images of remotes that stay, and tags that are frozen.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::body::Body;
use crate::oci::Platform;
use crate::repository::{Pin, Pinning, Question, Taken, pins, unpin};

impl Api {
    /// `GET` lists; `PUT ?image=[&freeze=true][&platform=…]` fetches an image whole and keeps it, `DELETE ?image=` lets it go.
    pub(in super::super) async fn pins(
        &self,
        call: &Call<'_>,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        self.require_admin(call)?;
        record.note_repository("-", "admin");
        let (there, store) = (&*call.there, &self.config.store);
        let who = call.identity.shown();
        match *call.method {
            Method::GET => {
                let pins = pins(there, store).await.map_err(ApiError::from_pin)?;
                let pins: Vec<Value> = pins.iter().map(Pin::to_json).collect();
                Ok(respond::json(&json!({ "pins": pins })))
            }
            Method::PUT => {
                let pinning = Pinning {
                    image: image(call)?,
                    taken: Taken::Platforms(platforms(call)?),
                    freeze: freeze(call)?,
                    who: &who,
                    hops: &call.hops,
                };
                let pin = pinning.run(there).await.map_err(ApiError::from_pin)?;
                Ok(respond::json(&pin.to_json()))
            }
            Method::DELETE => {
                let done = unpin(there, store, &image(call)?, &who).await;
                done.map_err(ApiError::from_pin)?;
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            _ => Err(ApiError::method("GET, PUT, DELETE")),
        }
    }
}

fn image(call: &Call<'_>) -> Result<Question, ApiError> {
    let Some(image) = call.query("image") else {
        return Err(ApiError::bad_request(
            "image: it is needed: ?image=[host or key/]name[:tag][@digest]",
        ));
    };
    Ok(Question {
        image: image.to_owned(),
        own_hosts: call.own_hosts.clone(),
        ..Question::default()
    })
}

fn freeze(call: &Call<'_>) -> Result<bool, ApiError> {
    match call.query("freeze") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::bad_request("freeze is true or false")),
    }
}

fn platforms(call: &Call<'_>) -> Result<Vec<Platform>, ApiError> {
    let named = call.query.iter().filter(|(key, _)| key == "platform");
    let parsed = named.map(|(_, text)| Platform::parse(text));
    parsed
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::bad_request(format!("platform: {error}")))
}
