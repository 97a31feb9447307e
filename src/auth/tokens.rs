//! Tokens: JWT (RFC 7519) with HMAC-SHA-256, signed and read by this mirror alone (RELIABILITY P36, 1.3).
//!
//! What a token's own header says chooses nothing but the key, and only among ours: one algorithm, no keys in headers, no critical extensions.
//! Every claim is there and has its type, or the token is none.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::identity::{Grant, Identity, Voucher};
use super::policy::{Right, Rights};
use crate::clock::Wall;
use crate::secret::Secret;

/// The longest token that is looked at.
pub const TOKEN_MAX: usize = 8 * 1024;
/// How far clocks may be apart: this mirror reads its own tokens, so only by what its clock was set back.
const LEEWAY: u64 = 5;

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No JWT, or more in it than there should be.
    #[error("it is none of this mirror's form")]
    Malformed,
    /// Signed by no key of ours.
    #[error("it was signed by no key of this mirror")]
    Key,
    /// The signature, the issuer, the audience or the times are wrong.
    #[error("its signature, issuer, audience or times are wrong")]
    Invalid,
    /// It is for something else.
    #[error("it is of another kind")]
    Kind,
    /// The user is gone, or has another password.
    #[error("its user is gone or has another password")]
    Subject,
    /// It is, or was issued to, an API token that is none, or none any more.
    #[error("the API token is unknown, revoked or over, or its user is gone")]
    ApiToken,
}

/// A token, and when it is over.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The token.
    pub token: Secret,
    /// In seconds.
    pub expires_in: u64,
    /// When.
    pub issued_at: Wall,
}

impl Issued {
    pub(super) fn new(token: String, claims: &Claims) -> Self {
        Self {
            token: Secret::new(token),
            expires_in: claims.exp.saturating_sub(claims.iat),
            issued_at: Wall::from_ms(i64::try_from(claims.iat.saturating_mul(1000)).unwrap_or(0)),
        }
    }
}

/// Everything that a token says. Numbers are whole seconds since the Unix epoch; nothing else is taken for one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    aud: String,
    /// The user; empty: nobody in particular.
    sub: String,
    exp: u64,
    nbf: u64,
    iat: u64,
    jti: String,
    /// A mark of the user's password, or of the API token.
    pwd: String,
    /// The name of the API token that it was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api: Option<String>,
    /// The mark of who vouches for the user, where the users file does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    via: Option<String>,
    /// The groups that the user is in on that word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    /// `None`: a refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Vec<Access>>,
}

/// One image and what may be done there, in the shape of the distribution's token specification.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Access {
    #[serde(rename = "type")]
    kind: String,
    /// `<repository key>/<image>`: what the client called it was resolved when the token was issued.
    name: String,
    actions: Vec<String>,
}

impl Claims {
    pub(super) fn new(
        realm: &str,
        identity: &Identity,
        stamp: &str,
        grants: Option<&[Grant]>,
        (now, ttl): (Wall, Duration),
    ) -> Self {
        let now = u64::try_from(now.as_ms() / 1000).unwrap_or(0);
        let voucher = identity.voucher();
        let access = |grant: &Grant| Access {
            kind: "repository".to_owned(),
            name: format!("{}/{}", grant.key, grant.image),
            actions: grant
                .may
                .iter()
                .map(|right| right.as_str().to_owned())
                .collect(),
        };
        Self {
            iss: realm.to_owned(),
            aud: realm.to_owned(),
            sub: identity.name().unwrap_or_default().to_owned(),
            exp: now.saturating_add(ttl.as_secs()),
            nbf: now,
            iat: now,
            jti: uuid::Uuid::new_v4().simple().to_string(),
            pwd: stamp.to_owned(),
            api: identity.api_token().map(|token| token.name.clone()),
            via: voucher.map(|voucher| voucher.mark.clone()),
            groups: voucher.map_or_else(Vec::new, |voucher| voucher.groups.clone()),
            access: grants.map(|grants| grants.iter().map(access).collect()),
        }
    }

    pub(super) fn sign(&self, kid: &str, secret: &[u8]) -> Option<String> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, self, &EncodingKey::from_secret(secret)).ok()
    }

    /// The name of the key in a token's header, after a look at what else is there.
    pub(super) fn kid(token: &str) -> Result<String, TokenError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Head {
            alg: String,
            typ: String,
            kid: String,
        }
        if token.len() > TOKEN_MAX || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err(TokenError::Malformed);
        }
        let (head, _) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let head = URL_SAFE_NO_PAD.decode(head);
        let head = head.map_err(|_encoding| TokenError::Malformed)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_shape| TokenError::Malformed)?;
        if head.alg == "HS256" && head.typ == "JWT" {
            Ok(head.kid)
        } else {
            Err(TokenError::Malformed)
        }
    }

    pub(super) fn verify(
        token: &str,
        secret: &[u8],
        realm: &str,
        now: Wall,
    ) -> Result<Self, TokenError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.set_audience(&[realm]);
        validation.set_issuer(&[realm]);
        // Times are judged below, with one clock and strict types.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let key = DecodingKey::from_secret(secret);
        let token = jsonwebtoken::decode::<Self>(token, &key, &validation);
        let claims = token.map_err(|_any| TokenError::Invalid)?.claims;
        claims.count(realm, now)?;
        Ok(claims)
    }

    /// Whether they count here and now.
    pub(super) fn count(&self, realm: &str, now: Wall) -> Result<(), TokenError> {
        let now = u64::try_from(now.as_ms() / 1000).unwrap_or(0);
        let begun = self.nbf.max(self.iat) <= now.saturating_add(LEEWAY);
        let lasts = now < self.exp;
        let is_ours = self.iss == realm && self.aud == realm;
        (begun && lasts && is_ours)
            .then_some(())
            .ok_or(TokenError::Invalid)
    }

    pub(super) const fn is_access(&self) -> bool {
        self.access.is_some()
    }

    pub(super) fn subject(&self) -> &str {
        &self.sub
    }

    pub(super) fn api_token(&self) -> Option<&str> {
        self.api.as_deref()
    }

    pub(super) fn stamp(&self) -> &str {
        &self.pwd
    }

    /// The mark of who vouches for the user.
    pub(super) fn mark(&self) -> Option<&str> {
        self.via.as_deref()
    }

    /// Who holds it, limited to what it grants.
    pub(super) fn identity(&self) -> Identity {
        let identity = if self.sub.is_empty() {
            Identity::anonymous()
        } else {
            Identity::user(&self.sub)
        };
        let identity = match &self.via {
            Some(mark) => identity.vouched_for(Voucher {
                mark: mark.clone(),
                groups: self.groups.clone(),
                until: i64::try_from(self.exp.saturating_mul(1000))
                    .ok()
                    .map(Wall::from_ms),
            }),
            None => identity,
        };
        let access = self.access.iter().flatten();
        let grants = access.filter_map(|access| {
            let (key, image) = access.name.split_once('/')?;
            let rights = access.actions.iter();
            let may: Rights = rights
                .filter_map(|right| Right::parse(right).ok())
                .collect();
            Some(Grant {
                key: key.to_owned(),
                image: image.to_owned(),
                may,
            })
        });
        identity.limited_to(grants.collect())
    }
}
