//! `/api/repositories[/<key>]` (PROTOCOL E9): what is configured, and repositories that are made at run time.

use http::{HeaderName, Method, Response};
use serde_json::{Map, Value, json};

use crate::api::error::ApiError;
use crate::api::record::Record;
use crate::api::{Api, Call, respond};
use crate::body::{self, Body, Chunks};
use crate::repository::{ChangeError, Class, Key, Settings, Wanted, shown};

/// The longest body.
const BODY_MAX: usize = 256 * 1024;
/// The most bytes of the header that names ignored fields.
const IGNORED_MAX: usize = 4096;
/// Which fields were accepted and mean nothing here.
const IGNORED: HeaderName = HeaderName::from_static("x-roadstead-ignored-fields");

impl Api {
    /// `GET` lists or shows, `PUT` makes, `POST` changes, `DELETE` removes with all content.
    pub(in crate::api) async fn repositories(
        &self,
        call: &Call<'_>,
        key: Option<&str>,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        record.note_repository("-", "repositories");
        // All of it: upstreams' addresses and the names that the mirror logs in with are nobody else's business.
        self.require_admin(call)?;
        let Some(text) = key else {
            return match *call.method {
                Method::GET | Method::HEAD => self.list(call),
                _ => Err(ApiError::method("GET, HEAD")),
            };
        };
        let (wanted, done) = match *call.method {
            Method::GET | Method::HEAD => return show(call, text),
            Method::PUT => (
                Wanted::Create(fields(body).await?),
                format!("Successfully created repository '{text}'\n"),
            ),
            Method::POST => (
                Wanted::Update(fields(body).await?),
                format!("Repository {text} update successfully.\n"),
            ),
            Method::DELETE => (
                Wanted::Remove,
                format!("Repository {text} and all its content have been removed successfully.\n"),
            ),
            _ => return Err(ApiError::method("GET, HEAD, PUT, POST, DELETE")),
        };
        let key =
            Key::parse(text).map_err(|error| ApiError::bad_request(format!("key: {error}")))?;
        let changed = self
            .config
            .catalog
            .change(key, wanted, &call.identity.shown())
            .await;
        let ignored = changed.map_err(failed)?;
        let mut response = respond::text(done);
        tell_ignored(&mut response, &ignored);
        Ok(response)
    }

    fn list(&self, call: &Call<'_>) -> Result<Response<Body>, ApiError> {
        let class = match call.query("type").map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("local") => Some(Class::Local),
            Some("remote") => Some(Class::Remote),
            Some("virtual") => Some(Class::Virtual),
            // There are none of those.
            Some("federated" | "distribution") => return Ok(respond::json(&json!([]))),
            Some(_) => {
                let sentence = "type: it is local, remote, virtual or federated";
                return Err(ApiError::bad_request(sentence));
            }
        };
        let package = call.query("packageType").map(str::to_ascii_lowercase);
        if package.is_some_and(|package| package != "docker" && package != "oci") {
            return Ok(respond::json(&json!([])));
        }
        let base = self.base(call);
        let all = call.there.settings().iter();
        let listed = all
            .filter(|(_, settings)| class.is_none_or(|class| Class::of(settings) == class))
            .map(|(key, settings)| entry(call, &base, key, settings));
        Ok(respond::json(&Value::Array(listed.collect())))
    }
}

fn entry(call: &Call<'_>, base: &str, key: &Key, settings: &Settings) -> Value {
    let description = call
        .there
        .declared(key)
        .and_then(|declared| declared.fields().get("description").cloned())
        .unwrap_or_else(|| json!(""));
    let url = match settings {
        Settings::Remote(remote) => remote.url.to_string(),
        Settings::Local(_) | Settings::Virtual(_) => format!("{base}/artifactory/{key}"),
    };
    json!({
        "key": key.as_str(),
        "description": description,
        "type": Class::of(settings).as_str().to_ascii_uppercase(),
        "url": url,
        "packageType": "Docker",
    })
}

fn show(call: &Call<'_>, text: &str) -> Result<Response<Body>, ApiError> {
    let there = &call.there;
    let key = Key::parse(text).ok();
    let found = key
        .as_ref()
        .and_then(|key| Some((key, there.settings().get(key)?)));
    let Some((key, settings)) = found else {
        // Not 404: clients that look whether there is one know Artifactory's answer.
        return Err(ApiError::bad_request(format!(
            "there is no repository `{text}`"
        )));
    };
    match there.declared(key) {
        Some(declared) => {
            let mut response = respond::json(&Value::Object(declared.shown(key)));
            tell_ignored(&mut response, &declared.ignored());
            Ok(response)
        }
        None => Ok(respond::json(&Value::Object(shown(settings)))),
    }
}

fn tell_ignored(response: &mut Response<Body>, ignored: &[String]) {
    if ignored.is_empty() {
        return;
    }
    // They are the client's own words.
    let letters = ignored.join(", ");
    let fits = |letter: char| letter == ' ' || letter.is_ascii_graphic();
    let letters = letters.chars().map(|one| if fits(one) { one } else { '?' });
    let told: String = letters.take(IGNORED_MAX).collect();
    respond::set(response.headers_mut(), IGNORED, &told);
}

async fn fields(body: Chunks) -> Result<Map<String, Value>, ApiError> {
    let whole = body::whole(body, BODY_MAX).await?;
    serde_json::from_slice(&whole).map_err(|error| {
        ApiError::bad_request(format!(
            "the body is a JSON object with rclass, packageType and what else there is to say: {error}"
        ))
    })
}

fn failed(error: ChangeError) -> ApiError {
    let sentence = error.to_string();
    match error {
        ChangeError::Field(_)
        | ChangeError::Exists(_)
        | ChangeError::Build(_)
        | ChangeError::TooMany => ApiError::bad_request(sentence),
        ChangeError::Unfit(unfit) => ApiError::bad_request(format!("{}: {unfit}", unfit.field())),
        ChangeError::InFile(_) | ChangeError::InUse(..) | ChangeError::HasPushed(_) => {
            ApiError::bad_request(sentence).conflict()
        }
        ChangeError::Unknown(key) => ApiError::no_repository(key.as_str()),
        ChangeError::Store(error) => ApiError::failed(&error),
        ChangeError::Stopping => ApiError::failed(&ChangeError::Stopping),
    }
}
