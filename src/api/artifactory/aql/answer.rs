//! `POST /api/search/aql`: asks the index, and shows what it found.

use http::{Method, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::question::{self, Field, Question, Shown};
use super::{ITEMS_MAX, QUESTION_MAX};
use crate::api::error::ApiError;
use crate::api::record::Record;
use crate::api::{Api, Call, respond};
use crate::body::{self, Body, Chunks};
use crate::clock;
use crate::oci::Algorithm;
use crate::repository::{CACHE, Repository, Snapshot};
use crate::store::index::IndexError;
use crate::store::index::items::{
    FoundItems, ITEMS_TIME_MAX, ItemKind, ItemQuery, ItemRow, SearchedRepo,
};

use super::super::storage::with_own;

/// Who made an item: nobody writes it down for items.
const NOBODY: &str = "-";
/// What Artifactory says where it answers less than was found.
const TRIMMED: &str = "AQL query reached the search hard limit, results are trimmed.";

impl Api {
    /// Items by a question in the body.
    pub(in crate::api) async fn aql(
        &self,
        call: &Call<'_>,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        if *call.method != Method::POST {
            return Err(ApiError::method("POST"));
        }
        record.note_repository("-", "aql");
        let text = body::whole(body, QUESTION_MAX).await?;
        let text = std::str::from_utf8(&text)
            .map_err(|error| ApiError::bad_request(format!("AQL: it is not UTF-8: {error}")))?;
        let question = question::parse(text, clock::now())
            .map_err(|refused| ApiError::bad_request(refused.to_string()))?;
        let query = ItemQuery {
            find: question.find.clone(),
            repos: searched_repos(&call.there, |key| self.may_read_all(call, key)),
            sort: question.sort.clone(),
            offset: question.offset,
            limit: question.limit,
            properties: question.properties != Shown::None,
        };
        self.require_listing(call, query.repos.is_empty())?;
        if query.repos.is_empty() {
            return Ok(respond::json(&show(
                &question,
                &query.repos,
                &FoundItems::default(),
            )));
        }
        let found = self.config.store.index().items(query.clone()).await;
        let found = found.map_err(|error| match error {
            IndexError::TookTooLong => ApiError::bad_request(format!(
                "AQL: this takes more than {} s; name a repository, and an image, a label or a digest in it",
                ITEMS_TIME_MAX.as_secs()
            )),
            IndexError::Closed | IndexError::RolledBack | IndexError::Database(_) => {
                ApiError::failed(&error)
            }
        })?;
        Ok(respond::json(&show(&question, &query.repos, &found)))
    }
}

/// Every repository that holds anything itself; those of others are meant by the virtual ones over them as well.
fn searched_repos(there: &Snapshot, may_read: impl Fn(&str) -> bool) -> Vec<SearchedRepo> {
    let mut searched: Vec<SearchedRepo> = there
        .iter()
        .filter(|(key, _)| may_read(key.as_str()))
        .filter_map(|(key, repository)| {
            let key = key.as_str().to_owned();
            let (shown, also) = match repository {
                Repository::Local(_) => (key.clone(), Vec::new()),
                // Artifactory keeps what remotes cached under a key of its own.
                Repository::Remote(_) => (format!("{key}{CACHE}"), vec![key.clone()]),
                Repository::Virtual(_) => return None,
            };
            Some(SearchedRepo { key, shown, also })
        })
        .collect();
    searched.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    for (key, repository) in there.iter() {
        let Repository::Virtual(several) = repository else {
            continue;
        };
        for member in several.members() {
            let member = searched.binary_search_by(|repo| repo.key.as_str().cmp(member.as_str()));
            if let Some(repo) = member.ok().and_then(|place| searched.get_mut(place)) {
                repo.also.push(key.as_str().to_owned());
            }
        }
    }
    searched
}

/// The answer. In this order, because clients read up to the results and give up at the end of any other object.
#[derive(Debug, Serialize)]
struct Answer {
    results: Vec<Value>,
    range: Value,
}

fn show(question: &Question, repos: &[SearchedRepo], found: &FoundItems) -> Answer {
    let results: Vec<Value> = found
        .rows
        .iter()
        .map(|row| {
            let repo = repos.iter().find(|repo| repo.key == row.repo);
            let shown = repo.map_or(row.repo.as_str(), |repo| repo.shown.as_str());
            item(question, shown, row)
        })
        .collect();
    let count = u64::try_from(results.len()).unwrap_or(u64::MAX);
    let end = question.offset.saturating_add(count);
    let mut range = json!({
        "start_pos": question.offset,
        "end_pos": end,
        "total": found.total,
        "limit": question.limit,
    });
    if question.limit == ITEMS_MAX
        && end < found.total
        && let Value::Object(range) = &mut range
    {
        range.insert("notification".to_owned(), json!(TRIMMED));
    }
    Answer { results, range }
}

fn item(question: &Question, repo: &str, row: &ItemRow) -> Value {
    let mut item = Map::new();
    for field in &question.fields {
        let shown = match field {
            Field::Repo => ("repo", json!(repo)),
            Field::Path => ("path", json!(row.path())),
            Field::Name => ("name", json!(row.name())),
            Field::Type => ("type", json!(row.kind.as_str())),
            Field::Size => ("size", json!(row.size)),
            Field::Created => ("created", json!(row.moved.to_string())),
            Field::CreatedBy => ("created_by", json!(NOBODY)),
            Field::Modified => ("modified", json!(row.moved.to_string())),
            Field::ModifiedBy => ("modified_by", json!(NOBODY)),
            Field::Updated => ("updated", json!(row.checked.to_string())),
            Field::Sha256 if is_hashed(row) => ("sha256", json!(row.digest.hex())),
            Field::Depth => ("depth", json!(depth(row))),
            Field::Sha256 | Field::Nothing => continue,
        };
        item.insert(shown.0.to_owned(), shown.1);
    }
    let properties = properties(&question.properties, row);
    if !properties.is_empty() {
        item.insert("properties".to_owned(), json!(properties));
    }
    Value::Object(item)
}

fn is_hashed(row: &ItemRow) -> bool {
    row.kind != ItemKind::Folder && row.digest.algorithm() == Algorithm::Sha256
}

fn depth(row: &ItemRow) -> usize {
    row.path().split('/').count() + 1
}

/// `{key, value}` for each value of each property that is wanted.
fn properties(wanted: &Shown, row: &ItemRow) -> Vec<Value> {
    if row.kind != ItemKind::Manifest || *wanted == Shown::None {
        return Vec::new();
    }
    let all = with_own(
        row.properties.clone(),
        &row.labels,
        (&row.image, &row.tag),
        (&row.digest, &row.media_type),
    );
    all.into_iter()
        .filter(|(key, _)| match wanted {
            Shown::These(keys) => keys.contains(key),
            Shown::All | Shown::None => true,
        })
        .flat_map(|(key, values)| {
            values
                .into_iter()
                .map(move |value| json!({ "key": key, "value": value }))
        })
        .collect()
}
