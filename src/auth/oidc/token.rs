//! One token: its header, and what it claims. Pure.
//!
//! The header chooses a key by its id and nothing else. Claims that count are there and have their type, or the token is none.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::jwks::Algorithm;
use super::{Config, OidcError};
use crate::auth::pattern;
use crate::auth::tokens::TOKEN_MAX;
use crate::clock::Wall;

/// How far an issuer's clock may be ahead of ours.
const AHEAD: u64 = 60;
/// The longest name, its prefix included.
const NAME_MAX: usize = 512;
/// The kinds of JWT that are logins (RFC 7519, RFC 9068).
const KINDS: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];

/// What a token's header must be to be looked at.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    /// Header and claims, as they were signed.
    pub(super) message: &'a str,
    /// In Base64.
    pub(super) signature: &'a str,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    // Keys, extensions and encodings: nothing of theirs is ever used, and a token that has them wants something else than to be read.
    jwk: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
    enc: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
    cty: Option<IgnoredAny>,
}

impl<'a> Signed<'a> {
    pub(super) fn parse(token: &'a str, config: &Config) -> Result<Self, OidcError> {
        let (head, _, _) = parts(token).ok_or(OidcError::Malformed)?;
        let (message, signature) = token.rsplit_once('.').ok_or(OidcError::Malformed)?;
        let head = URL_SAFE_NO_PAD.decode(head);
        let head = head.map_err(|_encoding| OidcError::Malformed)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_shape| OidcError::Malformed)?;
        let extras = [
            head.jwk, head.jku, head.x5u, head.x5c, head.crit, head.b64, head.enc, head.zip,
            head.cty,
        ];
        let is_login = head
            .typ
            .is_none_or(|typ| KINDS.iter().any(|kind| typ.eq_ignore_ascii_case(kind)));
        if extras.iter().any(Option::is_some) || !is_login {
            return Err(OidcError::Header);
        }
        let algorithm = Algorithm::parse(&head.alg)
            .filter(|algorithm| config.algorithms.contains(algorithm))
            .ok_or(OidcError::Algorithm)?;
        Ok(Self {
            message,
            signature,
            algorithm,
            kid: head.kid,
        })
    }
}

/// The three parts of a JWT.
fn parts(token: &str) -> Option<(&str, &str, &str)> {
    if token.len() > TOKEN_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let found = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(found)
}

/// What a token claims. Nobody has vouched for it yet.
#[derive(Debug)]
pub(super) struct Claims(Map<String, Value>);

/// Whom a token is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    pub(super) until: Wall,
}

impl Claims {
    /// Reads them, if this is a JWT at all.
    pub(super) fn peek(token: &str) -> Option<Self> {
        let (_, claims, _) = parts(token)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
        serde_json::from_slice(&claims).ok().map(Self)
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// Whom they are about, if everything but the signature is right.
    pub(super) fn judge(&self, config: &Config, now: Wall) -> Result<Said, OidcError> {
        if self.issuer() != Some(&config.issuer) {
            return Err(OidcError::Claim("iss".to_owned()));
        }
        let is_ours = match self.0.get("aud") {
            Some(Value::String(audience)) => *audience == config.audience,
            Some(Value::Array(several)) => {
                several.iter().all(Value::is_string)
                    && several.iter().any(|one| *one == config.audience)
            }
            _ => false,
        };
        if !is_ours {
            return Err(OidcError::Audience(config.audience.clone()));
        }
        let until = self.times(now).ok_or(OidcError::Times)?;
        for (claim, wanted) in &config.require {
            let said = self.0.get(claim);
            if !said.is_some_and(|said| says(said, wanted)) {
                return Err(OidcError::Required(claim.clone()));
            }
        }
        let unusable = |claim: &str| OidcError::Claim(claim.to_owned());
        let name = self.0.get(&config.user_claim).and_then(Value::as_str);
        let name = name.and_then(|name| named(&config.user_prefix, name));
        Ok(Said {
            name: name.ok_or_else(|| unusable(&config.user_claim))?,
            groups: match &config.groups_claim {
                Some(claim) => self
                    .groups(claim, &config.user_prefix)
                    .ok_or_else(|| unusable(claim))?,
                None => Vec::new(),
            },
            until,
        })
    }

    /// When it ends, if it counts now. Numbers are whole seconds since the Unix epoch; nothing else is taken for one.
    fn times(&self, now: Wall) -> Option<Wall> {
        let now = u64::try_from(now.as_ms() / 1000).ok()?;
        let time = |claim: &str| self.0.get(claim)?.as_u64();
        let (issued, until) = (time("iat")?, time("exp")?);
        let begins = if self.0.contains_key("nbf") {
            time("nbf")?
        } else {
            issued
        };
        let counts = issued.max(begins) <= now.saturating_add(AHEAD) && now < until;
        let until = i64::try_from(until.saturating_mul(1000)).unwrap_or(i64::MAX);
        counts.then_some(Wall::from_ms(until))
    }

    /// The groups, none where the claim is not there: not everybody is in one.
    fn groups(&self, claim: &str, prefix: &str) -> Option<Vec<String>> {
        let several = match self.0.get(claim) {
            None | Some(Value::Null) => return Some(Vec::new()),
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            Some(Value::Array(several)) => several,
            Some(_) => return None,
        };
        let groups = several.iter().map(|group| named(prefix, group.as_str()?));
        groups.collect()
    }
}

/// A name behind its prefix.
fn named(prefix: &str, name: &str) -> Option<String> {
    let fits = !name.is_empty()
        && prefix.len() + name.len() <= NAME_MAX
        && !name.chars().any(char::is_control);
    fits.then(|| format!("{prefix}{name}"))
}

/// Whether a claim says what is wanted; of a list, whether one of it does.
fn says(said: &Value, wanted: &str) -> bool {
    match said {
        Value::String(text) => pattern::fits(wanted, text),
        Value::Bool(_) | Value::Number(_) => {
            let text = said.to_string();
            text == wanted
        }
        Value::Array(several) => several
            .iter()
            .any(|one| !one.is_array() && says(one, wanted)),
        Value::Null | Value::Object(_) => false,
    }
}
