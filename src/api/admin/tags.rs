//! `/admin/tags/<key>/<image>/<tag>`: what a tag means, what it meant, and making it mean something else.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, respond};
use crate::auth::Right;
use crate::body::{self, Body, Chunks};
use crate::oci::{Digest, ErrorCode, Name, Tag};
use crate::repository::{Chosen, Error, Question, Repository, resolve};

/// The longest body.
const BODY_MAX: usize = 4096;

impl Api {
    /// `GET` tells; `PUT {"digest": "sha256:…"}` rolls a local tag back or pins a remote one; `DELETE` lets a pin go.
    pub(in super::super) async fn tag(
        &self,
        call: &Call<'_>,
        path: &str,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        let sentence = "name a tag: /admin/tags/<repository key>/<image>/<tag>";
        let parts = path
            .split_once('/')
            .and_then(|(key, rest)| Some((key, rest.rsplit_once('/')?)));
        let Some((key, (image, tag))) = parts else {
            return Err(ApiError::bad_request(sentence));
        };
        let definitions = call.there.definitions();
        Name::parse(image)?;
        let Some(key) = definitions.by_key(key) else {
            return Err(self.unknown(call, key));
        };
        let target = resolve(definitions, &Chosen::Repository(key), image)?;
        self.require_on(call, (key.as_str(), target.name.as_str()), Right::Admin)?;
        let tag =
            Tag::parse(tag).map_err(|error| ApiError::invalid(ErrorCode::TagInvalid, error))?;
        let Some(repository) = call.there.get(key) else {
            return Err(ApiError::no_repository(key.as_str()));
        };
        record.note_repository(key.as_str(), "admin");
        let name = target.name;
        match *call.method {
            Method::GET => {}
            Method::PUT => {
                let digest = wanted(body).await?;
                let event = event(call, repository, (&name, &tag), Some(&digest));
                change(call, repository, (&name, &tag), &digest, event).await?;
            }
            Method::DELETE => {
                let Repository::Remote(remote) = repository else {
                    return Err(ApiError::method("GET, PUT"));
                };
                let event = event(call, repository, (&name, &tag), None);
                let unpinned = remote.unpin(&name, &tag, event).await;
                if !unpinned.map_err(|error| failed(error.into()))? {
                    return Err(failed(crate::cache::Error::NotFound.into()));
                }
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(response);
            }
            _ => return Err(ApiError::method("GET, PUT, DELETE")),
        }
        let question = Question {
            image: format!("{key}/{name}:{tag}"),
            ..Question::default()
        };
        let explained = self.explained(call, &question).await?;
        let (digest, pinned, history) = match repository {
            Repository::Local(local) => {
                let digest = local.tag(&name, &tag).await;
                (
                    digest.ok(),
                    false,
                    local
                        .history(&name, &tag)
                        .await
                        .map_err(|error| failed(error.into()))?,
                )
            }
            Repository::Remote(remote) => {
                let pin = remote.pinned(&name, &tag);
                let known = remote.served(&name, &tag).await;
                let history = remote.history(&name, &tag).await;
                (
                    pin.clone().or(known),
                    pin.is_some(),
                    history.map_err(|error| failed(error.into()))?,
                )
            }
            // What happened to it is told by the members.
            Repository::Virtual(_) => (explained.digest().cloned(), false, Vec::new()),
        };
        if digest.is_none() && history.is_empty() {
            return Err(failed(crate::overlay::Error::ManifestUnknown.into()));
        }
        let history: Vec<Value> = history
            .iter()
            .map(|row| {
                json!({
                    "digest": row.digest.to_string(),
                    "first": row.first.to_string(),
                    "last": row.last.to_string(),
                    "cause": row.cause,
                })
            })
            .collect();
        let observed = match repository {
            Repository::Remote(remote) => remote.held_back(&name, &tag).await,
            Repository::Local(_) | Repository::Virtual(_) => None,
        };
        Ok(respond::json(&json!({
            "repository": repository.key(),
            "image": name.as_str(),
            "tag": tag.as_str(),
            "digest": digest.map(|digest| digest.to_string()),
            // What upstream says and is not served: not fetched yet, or not admitted.
            "observed": observed.map(|digest| digest.to_string()),
            "pinned": pinned,
            // It names every member, and what they know.
            "explain": self.require_admin(call).is_ok().then(|| explained.to_json()),
            "history": history,
        })))
    }
}

async fn change(
    call: &Call<'_>,
    repository: &Repository,
    (name, tag): (&Name, &Tag),
    digest: &Digest,
    event: Value,
) -> Result<(), ApiError> {
    let done = match repository {
        Repository::Local(local) => local
            .roll_back(name, tag, digest, event)
            .await
            .map_err(Error::from),
        Repository::Remote(remote) => remote
            .pin(&call.hops, name, tag, digest, event)
            .await
            .map_err(Error::from),
        Repository::Virtual(_) => Err(Error::ReadOnly),
    };
    done.map_err(failed)
}

fn event(
    call: &Call<'_>,
    repository: &Repository,
    (name, tag): (&Name, &Tag),
    digest: Option<&Digest>,
) -> Value {
    let action = match (repository, digest) {
        (Repository::Remote(_), Some(_)) => "pin",
        (Repository::Remote(_), None) => "unpin",
        (Repository::Local(_) | Repository::Virtual(_), _) => "roll back",
    };
    json!({
        "action": action,
        "who": call.identity.shown(),
        "repository": repository.key(),
        "image": name.as_str(),
        "tag": tag.as_str(),
        "digest": digest.map(ToString::to_string),
    })
}

fn failed(error: Error) -> ApiError {
    ApiError::from_repository(error, ErrorCode::ManifestUnknown)
}

async fn wanted(body: Chunks) -> Result<Digest, ApiError> {
    let whole = body::whole(body, BODY_MAX).await?;
    let sentence = "the body is {\"digest\": \"sha256:…\"}";
    let body: Value =
        serde_json::from_slice(&whole).map_err(|_malformed| ApiError::bad_request(sentence))?;
    let text = body.get("digest").and_then(Value::as_str);
    let text = text.ok_or_else(|| ApiError::bad_request(sentence))?;
    Digest::parse(text).map_err(|error| ApiError::invalid(ErrorCode::DigestInvalid, error))
}
