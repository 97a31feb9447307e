//! `/api/search/{prop,artifact,checksum}` (PROTOCOL E10); `aql` is next door.

use http::{Method, Response};
use serde_json::{Map, Value, json};

use super::path::Tagged;
use super::storage::manifest_path;
use crate::api::error::ApiError;
use crate::api::record::Record;
use crate::api::{Api, Call, respond};
use crate::auth::Right;
use crate::body::{Body, Chunks};
use crate::oci::{Algorithm, Digest, Name, Tag};
use crate::repository::Repository;
use crate::store::index::items::ITEMS_TIME_MAX;
use crate::store::index::{Criterion, FoundImage, IndexError};

/// The most images in one answer.
const FOUND_MAX: usize = 10_000;
/// The most criteria in one question.
const CRITERIA_MAX: usize = 50;

impl Api {
    /// Images by what they have.
    pub(in crate::api) async fn search(
        &self,
        call: &Call<'_>,
        kind: &str,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        if kind == "aql" {
            return self.aql(call, body, record).await;
        }
        if *call.method != Method::GET {
            return Err(ApiError::method("GET"));
        }
        record.note_repository("-", "search");
        let mut criteria = Vec::new();
        let fields = call.query.iter().filter(|(key, _)| key != "repos");
        for (key, value) in fields {
            criteria.push(match kind {
                "prop" => property(key, &patterns(value)),
                "artifact" if key == "name" => Criterion::Name(vec![format!("*{value}*")]),
                "checksum" if key == "sha256" => {
                    let digest = Digest::parse(&format!("{}:{value}", Algorithm::Sha256.as_str()));
                    let wrong = |_malformed| {
                        ApiError::bad_request("sha256: it is 64 lower-case hex digits")
                    };
                    Criterion::Contains(digest.map_err(wrong)?)
                }
                "artifact" => return Err(ApiError::bad_request(format!("{key}: ask by name="))),
                "checksum" => return Err(ApiError::bad_request(format!("{key}: ask by sha256="))),
                _ => return Err(ApiError::not_found()),
            });
        }
        if !matches!(kind, "prop" | "artifact" | "checksum") {
            return Err(ApiError::not_found());
        }
        if criteria.is_empty() || criteria.len() > CRITERIA_MAX {
            return Err(ApiError::bad_request(format!(
                "ask for between 1 and {CRITERIA_MAX} things, such as docker.repoName=team/app"
            )));
        }
        let repos = self.searched(call)?;
        self.require_listing(call, repos.is_empty())?;
        if repos.is_empty() {
            return Ok(respond::json(&json!({ "results": [] })));
        }
        let index = self.config.store.index();
        let found = index.find(&criteria, &repos, FOUND_MAX).await;
        let found = found.map_err(|error| match error {
            IndexError::TookTooLong => ApiError::bad_request(format!(
                "this takes more than {} s; name repositories in repos=, and an image, a label or a digest",
                ITEMS_TIME_MAX.as_secs()
            )),
            IndexError::Closed | IndexError::RolledBack | IndexError::Database(_) => {
                ApiError::failed(&error)
            }
        })?;
        let detail = call
            .headers
            .get("x-result-detail")
            .and_then(|detail| detail.to_str().ok())
            .unwrap_or_default();
        let mut results = Vec::new();
        for image in found {
            if !self.may(call, &image.repo, &image.name, Right::Pull) {
                continue;
            }
            results.extend(self.result(call, &image, detail).await?);
        }
        Ok(respond::json(&json!({ "results": results })))
    }

    /// The keys in `repos`, of those that the one who asks may see; of a remote, by the name of its cache too. Where none is named, all that are there: the index knows others as
    /// well, which have been taken away.
    fn searched(&self, call: &Call<'_>) -> Result<Vec<String>, ApiError> {
        let repos = call.query.iter().filter(|(key, _)| key == "repos");
        let keys = repos.flat_map(|(_, value)| value.split(','));
        let mut known = Vec::new();
        for key in keys.map(str::trim).filter(|key| !key.is_empty()) {
            let repository = call
                .there
                .named(key)
                .filter(|found| self.may_see(call, found.key()))
                .ok_or_else(|| self.unknown(call, key))?;
            match repository {
                Repository::Virtual(several) => {
                    known.extend(several.members().map(|key| key.as_str().to_owned()));
                }
                Repository::Local(_) | Repository::Remote(_) => {
                    known.push(repository.key().to_owned());
                }
            }
        }
        if known.is_empty() {
            let all = call.there.iter();
            let holding = all.filter(|(key, one)| {
                !matches!(one, Repository::Virtual(_)) && self.may_see(call, key.as_str())
            });
            known.extend(holding.map(|(key, _)| key.as_str().to_owned()));
        }
        Ok(known)
    }

    async fn result(
        &self,
        call: &Call<'_>,
        image: &FoundImage,
        detail: &str,
    ) -> Result<Option<Value>, ApiError> {
        let FoundImage {
            repo, name, tag, ..
        } = image;
        let (Ok(parsed), Ok(parsed_tag)) = (Name::parse(name), Tag::parse(tag)) else {
            return Ok(None);
        };
        let row = self
            .config
            .store
            .index()
            .tag(repo, &parsed, &parsed_tag)
            .await;
        let Some(row) = row.map_err(|error| ApiError::failed(&error))? else {
            return Ok(None);
        };
        // Artifactory keeps what remotes cached under a key of its own.
        let is_remote = call
            .there
            .named(repo)
            .is_some_and(|repository| matches!(repository, Repository::Remote(_)));
        let shown = if is_remote {
            format!("{repo}-cache")
        } else {
            repo.clone()
        };
        let path = manifest_path(name, tag, &row.media_type);
        let mut told = Map::new();
        let uri = format!("{}/artifactory/api/storage/{shown}/{path}", self.base(call));
        told.insert("uri".to_owned(), json!(uri));
        let tagged = Tagged {
            name: parsed,
            tag: parsed_tag,
            row,
        };
        if detail.contains("properties") {
            let properties = self.properties(repo, &tagged).await?;
            told.insert("properties".to_owned(), json!(properties));
        }
        if detail.contains("info") {
            let row = &tagged.row;
            for (key, value) in [
                ("repo", json!(shown)),
                ("path", json!(format!("/{path}"))),
                ("size", json!(row.size.to_string())),
                ("mimeType", json!(row.media_type)),
                ("created", json!(row.moved.to_string())),
                ("lastModified", json!(row.moved.to_string())),
                ("checksums", json!({ "sha256": row.served.hex() })),
            ] {
                told.insert(key.to_owned(), value);
            }
        }
        Ok(Some(Value::Object(told)))
    }
}

/// The values of a criterion: `a,b` is either; none, or `*`, is any.
fn patterns(text: &str) -> Vec<String> {
    let values = text.split(',').map(str::trim);
    let values: Vec<String> = values
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect();
    if values.iter().any(|value| value == "*") {
        vec!["*".to_owned()]
    } else {
        values
    }
}

/// A property, by where it is kept.
fn property(key: &str, patterns: &[String]) -> Criterion {
    let any = || {
        if patterns.is_empty() {
            vec!["*".to_owned()]
        } else {
            patterns.to_vec()
        }
    };
    if let Some(label) = key.strip_prefix("docker.label.") {
        return Criterion::Label(label.to_owned(), any());
    }
    match key {
        "docker.repoName" => Criterion::Name(any()),
        "docker.manifest" => Criterion::Tag(any()),
        "docker.manifest.digest" => Criterion::Digest(any()),
        "docker.manifest.type" => Criterion::MediaType(any()),
        "sha256" => Criterion::Digest(any().iter().map(|hex| format!("sha256:{hex}")).collect()),
        other => Criterion::Property(other.to_owned(), any()),
    }
}
