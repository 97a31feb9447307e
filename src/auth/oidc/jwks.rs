//! The keys of an issuer: a JWK set (RFC 7517). Pure.
//!
//! What a key can verify follows from its kind and from the configuration. Symmetric keys are none: whoever can read the set could sign.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::OidcError;
use super::token::Signed;

/// The most keys of a set that are looked at.
const KEYS_MAX: usize = 100;
/// The most keys that are tried for one token.
const TRIED_MAX: usize = 4;
/// Bytes of an RSA modulus: 2,048 to 8,192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// The most bytes of an RSA exponent.
const EXPONENT_MAX: usize = 8;

/// How tokens are signed. Always with a key that only the issuer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm(jsonwebtoken::Algorithm);

/// Every algorithm that may be configured.
const ALGORITHMS: [(&str, jsonwebtoken::Algorithm); 9] = [
    ("RS256", jsonwebtoken::Algorithm::RS256),
    ("RS384", jsonwebtoken::Algorithm::RS384),
    ("RS512", jsonwebtoken::Algorithm::RS512),
    ("PS256", jsonwebtoken::Algorithm::PS256),
    ("PS384", jsonwebtoken::Algorithm::PS384),
    ("PS512", jsonwebtoken::Algorithm::PS512),
    ("ES256", jsonwebtoken::Algorithm::ES256),
    ("ES384", jsonwebtoken::Algorithm::ES384),
    ("EdDSA", jsonwebtoken::Algorithm::EdDSA),
];

impl Algorithm {
    /// What is taken unless the configuration says otherwise: what CI systems sign with.
    pub const USUAL: [Self; 2] = [
        Self(jsonwebtoken::Algorithm::RS256),
        Self(jsonwebtoken::Algorithm::ES256),
    ];

    /// By its name in RFC 7518.
    pub fn parse(name: &str) -> Option<Self> {
        let found = ALGORITHMS.iter().find(|(known, _)| *known == name);
        found.map(|(_, algorithm)| Self(*algorithm))
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A key as it is written; only what is used.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// One key.
struct Key {
    kid: Option<String>,
    fits: Vec<Algorithm>,
    public: DecodingKey,
}

/// The keys of an issuer.
#[derive(Default)]
pub(super) struct Jwks(Vec<Key>);

impl std::fmt::Debug for Jwks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.0.iter().map(|key| &key.kid);
        f.debug_list().entries(ids).finish()
    }
}

impl Jwks {
    /// Reads a set. Keys that cannot be used are left out; `None` where none is left, so that a broken set replaces no good one.
    pub(super) fn parse(text: &[u8], allowed: &[Algorithm]) -> Option<Self> {
        let set: Set = serde_json::from_slice(text).ok()?;
        let keys = set.keys.into_iter().take(KEYS_MAX);
        let keys: Vec<Key> = keys.filter_map(|key| read(key, allowed)).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them signed this. Without an id only a key that leaves no choice counts.
    pub(super) fn verify(&self, token: &Signed<'_>) -> Result<(), OidcError> {
        let fits = |key: &&Key| {
            key.fits.contains(&token.algorithm) && (token.kid.is_none() || key.kid == token.kid)
        };
        let keys: Vec<&Key> = self.0.iter().filter(fits).take(TRIED_MAX).collect();
        if keys.is_empty() || (token.kid.is_none() && keys.len() > 1) {
            return Err(OidcError::Key);
        }
        let signed = |key: &&Key| {
            let message = token.message.as_bytes();
            jsonwebtoken::crypto::verify(token.signature, message, &key.public, token.algorithm.0)
                .unwrap_or(false)
        };
        let is_signed = keys.iter().any(signed);
        is_signed.then_some(()).ok_or(OidcError::Signature)
    }
}

/// A key, with what it may verify.
fn read(written: Value, allowed: &[Algorithm]) -> Option<Key> {
    let written: Written = serde_json::from_value(written).ok()?;
    let is_for_signatures = written.purpose.is_none_or(|purpose| purpose == "sig")
        && written
            .key_ops
            .is_none_or(|operations| operations.iter().any(|one| one == "verify"));
    if !is_for_signatures {
        return None;
    }
    let bytes = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
    let (family, key): (&[&str], DecodingKey) = match (&*written.kty, written.crv.as_deref()) {
        ("RSA", _) => {
            let (modulus, exponent) = (bytes(written.n)?, bytes(written.e)?);
            let first = modulus.iter().position(|byte| *byte != 0)?;
            let modulus = modulus.get(first..)?;
            if !MODULUS.contains(&modulus.len()) || exponent.len() > EXPONENT_MAX {
                return None;
            }
            let key = DecodingKey::from_rsa_raw_components(modulus, &exponent);
            (&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], key)
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (family, length): (&[&str], usize) = match curve {
                "P-256" => (&["ES256"], 32),
                _ => (&["ES384"], 48),
            };
            let point = [&[4][..], &bytes(written.x)?, &bytes(written.y)?].concat();
            if point.len() != 1 + 2 * length {
                return None;
            }
            (family, DecodingKey::from_ec_der(&point))
        }
        ("OKP", Some("Ed25519")) => {
            let point = bytes(written.x)?;
            (&["EdDSA"], DecodingKey::from_ed_der(&point))
        }
        _ => return None,
    };
    let fits: Vec<Algorithm> = family
        .iter()
        .filter(|name| written.alg.as_deref().is_none_or(|own| own == **name))
        .filter_map(|name| Algorithm::parse(name))
        .filter(|algorithm| allowed.contains(algorithm))
        .collect();
    (!fits.is_empty()).then_some(Key {
        kid: written.kid,
        fits,
        public: key,
    })
}
