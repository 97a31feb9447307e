//! `POST …/v2/promote` (PROTOCOL E2): an image becomes one of a local repository.

use http::{HeaderValue, Method, Response, header};
use serde_json::{Map, Value, json};

use super::super::error::ApiError;
use super::super::record::Record;
use super::super::{Api, Call, Place, respond};
use crate::auth::Right;
use crate::body::{self, Body, Chunks};
use crate::oci::{Name, Tag};
use crate::overlay;
use crate::repository::{Chosen, Error, Key, Promoted, Promotion, Repository, Unresolved, resolve};

/// The longest body.
const BODY_MAX: usize = 64 * 1024;

/// What the body asks for. Fields that are not known are passed over, and empty ones are as good as absent: clients send both.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target_repo: String,
    image: String,
    target_image: Option<String>,
    tag: Option<String>,
    target_tag: Option<String>,
    copy: bool,
    dry_run: bool,
}

impl Api {
    /// Promotes. 200 with a sentence; with `dry_run`, JSON that says what would be promoted.
    pub(in super::super) async fn promote(
        &self,
        call: &Call<'_>,
        place: Place<'_>,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        if *call.method != Method::POST {
            return Err(ApiError::method("POST"));
        }
        // Without users nobody who could read the body's answers may ask at all.
        if self.config.auth.is_none() {
            self.require_admin(call)?;
        }
        self.require_login(call)?;
        let chosen = match call.choose(place) {
            Err(Unresolved::UnknownRepository) => {
                return Err(ApiError::no_repository(place.prefix.unwrap_or_default()));
            }
            chosen => chosen?,
        };
        let Some(key) = chosen.key() else {
            let sentence = "name the source: /api/docker/<repository key>/v2/promote, or by a Host or port that means one";
            return Err(ApiError::bad_request(sentence));
        };
        record.note_repository(key.as_str(), "promote");
        let wanted = parse(&body::whole(body, BODY_MAX).await?)?;
        // Which repositories there are, and of what kind, is told to those who may do something there.
        for (named, right) in [
            (key.as_str(), Right::Pull),
            (wanted.target_repo.as_str(), Right::Promote),
        ] {
            if !self.may_see(call, named) && !self.may_somewhere(call, named, right) {
                return Err(ApiError::no_repository(named));
            }
        }
        let chosen = Chosen::Repository(key);
        let (source, name) = Self::image(call, &chosen, &wanted.image, "dockerRepository")?;
        let (target, into) = Self::target(call, &wanted)?;
        self.require_on(call, (source.key(), name.as_str()), Right::Pull)?;
        if !wanted.copy {
            self.require_on(call, (source.key(), name.as_str()), Right::Delete)?;
        }
        self.require_on(call, (target.key(), into.as_str()), Right::Promote)?;
        let tag = |text: &Option<String>, field: &str| {
            let parsed = text.as_deref().map(Tag::parse).transpose();
            parsed.map_err(|error| ApiError::bad_request(format!("{field}: {error}")))
        };
        let tags = match (
            tag(&wanted.tag, "tag")?,
            tag(&wanted.target_tag, "targetTag")?,
        ) {
            (Some(tag), Some(target)) => Some((tag, target)),
            (Some(tag), None) => Some((tag.clone(), tag)),
            (None, None) => None,
            (None, Some(_)) => {
                let sentence = "targetTag: it renames one tag, and without tag all of them are promoted; name the tag";
                return Err(ApiError::bad_request(sentence));
            }
        };
        let Some(local) = target.writable(&into) else {
            return Err(ApiError::bad_request("targetRepo: it takes no writes"));
        };
        let promotion = Promotion {
            from: (source, &name),
            into: (local, &into),
            tag: tags,
            copy: wanted.copy,
            dry_run: wanted.dry_run,
            who: &call.identity.shown(),
        };
        let promoted = promotion.run(&call.hops).await.map_err(failed)?;
        if wanted.dry_run {
            return Ok(respond::json(&describe(&promoted)));
        }
        let mut response = Response::new(Body::full("Promotion ended successfully"));
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        Ok(response)
    }

    /// An image of a chosen repository.
    fn image<'a>(
        call: &'a Call<'_>,
        chosen: &Chosen<'_>,
        text: &str,
        field: &str,
    ) -> Result<(&'a Repository, Name), ApiError> {
        let wrong = |error: Unresolved| ApiError::bad_request(format!("{field}: {error}"));
        let target = resolve(call.there.definitions(), chosen, text).map_err(wrong)?;
        match call.there.get(&target.key) {
            Some(Repository::Virtual(_)) => Err(ApiError::bad_request(format!(
                "{} is virtual; promote from the member that has the image, into a local repository",
                target.key
            ))),
            Some(repository) => Ok((repository, target.name)),
            None => Err(ApiError::not_found()),
        }
    }

    fn target<'a>(call: &'a Call<'_>, wanted: &Wanted) -> Result<(&'a Repository, Name), ApiError> {
        let known = Key::parse(&wanted.target_repo)
            .ok()
            .filter(|key| call.there.get(key).is_some());
        let Some(key) = known else {
            return Err(ApiError::no_repository(&wanted.target_repo));
        };
        let chosen = Chosen::Repository(&key);
        let image = wanted.target_image.as_ref().unwrap_or(&wanted.image);
        let (repository, name) = Self::image(call, &chosen, image, "targetDockerRepository")?;
        match repository {
            Repository::Local(_) => Ok((repository, name)),
            Repository::Remote(_) | Repository::Virtual(_) => Err(ApiError::bad_request(format!(
                "targetRepo: {key} is a mirror of another registry; name a local repository"
            ))),
        }
    }
}

fn failed(error: Error) -> ApiError {
    let absent = crate::oci::ErrorCode::ManifestUnknown;
    match &error {
        Error::Local(overlay::Error::Missing(_)) => {
            ApiError::from_repository(error, absent).conflict()
        }
        Error::Local(_) | Error::Remote(_) | Error::ReadOnly => {
            ApiError::from_repository(error, absent)
        }
    }
}

fn describe(promoted: &Promoted) -> Value {
    let tags: Vec<_> = promoted
        .tags
        .iter()
        .map(|(tag, target, digest)| {
            json!({ "tag": tag.as_str(), "targetTag": target.as_str(), "digest": digest.to_string() })
        })
        .collect();
    let manifests: Vec<_> = promoted.manifests.iter().map(ToString::to_string).collect();
    json!({ "tags": tags, "manifests": manifests, "blobs": promoted.blobs })
}

fn parse(body: &[u8]) -> Result<Wanted, ApiError> {
    let fields: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is a JSON object with targetRepo and dockerRepository: {error}"
        ))
    })?;
    let text = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(ApiError::bad_request(format!("{field}: it is a text"))),
    };
    let flag = |field: &str| match fields.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text.is_empty() => Ok(false),
        Some(Value::String(text)) if text == "true" || text == "false" => Ok(text == "true"),
        Some(_) => Err(ApiError::bad_request(format!(
            "{field}: it is true or false"
        ))),
    };
    let needed = |field: &str| {
        text(field)?.ok_or_else(|| ApiError::bad_request(format!("{field}: it is needed")))
    };
    Ok(Wanted {
        target_repo: needed("targetRepo")?,
        image: needed("dockerRepository")?,
        target_image: text("targetDockerRepository")?,
        tag: text("tag")?,
        target_tag: text("targetTag")?,
        copy: flag("copy")?,
        dry_run: flag("dry_run")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_unknown_is_passed_over() {
        let body = br#"{"targetRepo":"prod","dockerRepository":"a/b","targetDockerRepository":"","tag":"","targetTag":null,"copy":true,"more":[1]}"#;
        let wanted = parse(body).unwrap();
        assert_eq!(
            wanted,
            Wanted {
                target_repo: "prod".to_owned(),
                image: "a/b".to_owned(),
                target_image: None,
                tag: None,
                target_tag: None,
                copy: true,
                dry_run: false,
            }
        );
        for bad in [
            &b"[]"[..],
            b"{}",
            b"",
            br#"{"targetRepo":"p"}"#,
            br#"{"targetRepo":"","dockerRepository":"a"}"#,
            br#"{"targetRepo":1,"dockerRepository":"a"}"#,
            br#"{"targetRepo":"p","dockerRepository":"a","copy":"yes"}"#,
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
