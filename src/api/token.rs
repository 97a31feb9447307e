//! `GET` and `POST …/v2/token`: tokens, as the distribution's token specification and its OAuth 2 form have them (PROTOCOL C2 to C4).

use http::{HeaderValue, Method, Response, header};
use serde_json::{Map, json};
use tracing::info;

use super::access::Shown;
use super::error::ApiError;
use super::record::Record;
use super::{Api, Call, Place, respond};
use crate::audit;
use crate::auth::{Auth, Grant, Identity, Refused, Right, Rights};
use crate::body::{self, Body, Chunks};
use crate::repository::{Chosen, Unresolved};
use crate::secret::Secret;

/// The most scopes in one request.
const SCOPES_MAX: usize = 16;
/// The most bytes of all scopes together.
const SCOPE_MAX: usize = 4 * 1024;
/// The longest form.
const FORM_MAX: usize = 16 * 1024;
/// The prefix of Artifactory's clients that have no repository yet.
const NO_REPOSITORY: &str = "null";

/// What a client wants.
#[derive(Debug, Default)]
struct Wanted {
    scopes: Vec<String>,
    service: Option<String>,
    offline: bool,
    is_form: bool,
}

impl Api {
    /// A token that grants what was asked for, as far as the rules let it; perhaps nothing.
    pub(super) async fn token(
        &self,
        call: &Call<'_>,
        place: Place<'_>,
        body: Chunks,
        record: &mut Record,
    ) -> Result<Response<Body>, ApiError> {
        record.note_repository("-", "token");
        let Some(auth) = &self.config.auth else {
            return Err(ApiError::not_found());
        };
        let (wanted, identity) = match *call.method {
            Method::GET => {
                let mut wanted = read(&call.query, false)?;
                let identity = self.by_header(auth, call, &wanted).await?;
                wanted.offline &= !matches!(call.shown(), Shown::Bearer(_));
                (wanted, identity)
            }
            Method::POST => {
                let form = body::whole(body, FORM_MAX).await?;
                let form: Vec<(String, String)> =
                    url::form_urlencoded::parse(&form).into_owned().collect();
                let mut wanted = read(&form, true)?;
                let identity = self.by_form(auth, call, &form).await?;
                // One refresh token begets no other: it would never end.
                wanted.offline &= !form.iter().any(|(key, _)| key == "refresh_token");
                (wanted, identity)
            }
            _ => return Err(ApiError::method("GET, POST")),
        };
        if wanted
            .service
            .as_ref()
            .is_some_and(|service| *service != auth.realm())
        {
            return Err(ApiError::bad_request(format!(
                "service: this mirror is `{}`",
                auth.realm()
            )));
        }
        record.note_user(&identity.shown());
        let place = Place {
            prefix: place.prefix.filter(|prefix| *prefix != NO_REPOSITORY),
            ..place
        };
        let grants = grants(auth, call, place, &identity, &wanted.scopes);
        Ok(answer(auth, &identity, &wanted, &grants))
    }

    /// Whoever `Authorization` says. Who asks for something with credentials that are not ours gets what everybody gets: Docker shows a
    /// mirror what it has for Docker Hub (DECISIONS 3).
    async fn by_header(
        &self,
        auth: &Auth,
        call: &Call<'_>,
        wanted: &Wanted,
    ) -> Result<Identity, ApiError> {
        let found = match call.shown() {
            Shown::Nothing => return Ok(call.by_certificate(auth)),
            Shown::Basic(name, password) if wanted.scopes.is_empty() => {
                self.log_in(auth, call, &name, &password).await
            }
            Shown::Basic(name, password) => {
                let address = self.address(call);
                let found = auth.by_password_perhaps(&name, &password, address).await;
                if let Ok(identity) = &found {
                    self.logged_in(&identity.shown(), address);
                }
                found
            }
            Shown::Bearer(token) => match auth.by_issuer(&token, self.address(call)).await {
                Some(found) => found,
                None => auth.by_refresh(&token),
            },
            Shown::Malformed => Err(Refused::Wrong),
        };
        match found {
            Err(Refused::Wrong) if !wanted.scopes.is_empty() => {
                if auth.tells() {
                    info!(target: audit::TARGET, action = "login", outcome = "unknown", client = %self.address(call), "credentials that are not this mirror's; an anonymous token was given");
                }
                Ok(Identity::anonymous())
            }
            found => found.map_err(|refused| self.unrecognised(call, &refused)),
        }
    }

    async fn by_form(
        &self,
        auth: &Auth,
        call: &Call<'_>,
        form: &[(String, String)],
    ) -> Result<Identity, ApiError> {
        let field = |name: &str| {
            let found = form.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.as_str())
        };
        let found = match field("grant_type") {
            Some("password") => {
                let (Some(name), Some(password)) = (field("username"), field("password")) else {
                    return Err(ApiError::bad_request("username, password: they are needed"));
                };
                self.log_in(auth, call, name, &Secret::new(password)).await
            }
            Some("refresh_token") => match field("refresh_token") {
                Some(token) => auth.by_refresh(token),
                None => return Err(ApiError::bad_request("refresh_token: it is needed")),
            },
            _ => {
                let sentence = "grant_type: it is password or refresh_token";
                return Err(ApiError::bad_request(sentence));
            }
        };
        found.map_err(|refused| self.unrecognised(call, &refused))
    }
}

fn read(fields: &[(String, String)], is_form: bool) -> Result<Wanted, ApiError> {
    let mut wanted = Wanted {
        is_form,
        ..Wanted::default()
    };
    let mut length = 0;
    for (key, value) in fields {
        match key.as_str() {
            "scope" => {
                length += value.len();
                let scopes = value.split(' ').filter(|scope| !scope.is_empty());
                wanted.scopes.extend(scopes.map(str::to_owned));
            }
            "service" if !value.is_empty() => wanted.service = Some(value.clone()),
            "offline_token" => wanted.offline |= value == "true",
            "access_type" => wanted.offline |= value == "offline",
            _ => {}
        }
    }
    if wanted.scopes.len() > SCOPES_MAX || length > SCOPE_MAX {
        return Err(ApiError::bad_request(format!(
            "scope: at most {SCOPES_MAX} of them, {SCOPE_MAX} bytes in all"
        )));
    }
    Ok(wanted)
}

/// What of the scopes the rules give. A scope that makes no sense gives nothing: clients ask for more than they need.
fn grants(
    auth: &Auth,
    call: &Call<'_>,
    place: Place<'_>,
    identity: &Identity,
    scopes: &[String],
) -> Vec<Grant> {
    let chosen = match call.choose(place) {
        Ok(chosen) => chosen,
        // Which prefixes there are is told by no token.
        Err(Unresolved::UnknownRepository) => return Vec::new(),
        Err(_) => Chosen::Nothing,
    };
    let mut granted = Vec::new();
    for scope in scopes {
        let parts = scope.split_once(':').and_then(|(kind, rest)| {
            let (name, actions) = rest.rsplit_once(':')?;
            let kind = kind.split_once('(').map_or(kind, |(kind, _class)| kind);
            Some((kind, name, actions))
        });
        match parts {
            Some(("registry", "catalog", _)) => granted.push(Grant::catalog()),
            Some(("repository", name, actions)) => {
                let Ok(target) = call.resolve(&chosen, name) else {
                    continue;
                };
                let (key, image) = (target.key.as_str(), target.name.as_str());
                let may: Rights = rights(actions)
                    .iter()
                    .filter(|right| auth.may(identity, key, Some(image), *right))
                    .collect();
                if !may.is_empty() {
                    granted.push(Grant {
                        key: key.to_owned(),
                        image: image.to_owned(),
                        may,
                    });
                }
            }
            Some(_) | None => {}
        }
    }
    granted
}

/// What actions mean; `*` is everything.
fn rights(actions: &str) -> Rights {
    let one = |action: &str| match action {
        "*" => Right::ALL.to_vec(),
        action => Right::parse(action).into_iter().collect(),
    };
    actions.split(',').flat_map(one).collect()
}

fn answer(auth: &Auth, identity: &Identity, wanted: &Wanted, grants: &[Grant]) -> Response<Body> {
    let issued = auth.issue(identity, grants);
    let token = issued.token.expose();
    let mut told = Map::new();
    told.insert("token".to_owned(), json!(token));
    told.insert("access_token".to_owned(), json!(token));
    told.insert("expires_in".to_owned(), json!(issued.expires_in));
    told.insert("issued_at".to_owned(), json!(issued.issued_at.to_string()));
    if wanted.is_form {
        told.insert("scope".to_owned(), json!(wanted.scopes.join(" ")));
        told.insert("token_type".to_owned(), json!("Bearer"));
    }
    if wanted.offline
        && let Some(refresh) = auth.issue_refresh(identity)
    {
        told.insert("refresh_token".to_owned(), json!(refresh.token.expose()));
    }
    let mut response = respond::json(&told);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}
