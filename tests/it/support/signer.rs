//! Keys that sign tokens as issuers do, and what they publish of them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};

/// One key with its id.
#[derive(Debug)]
pub struct Signer {
    kid: String,
    key: Key,
}

#[derive(Debug)]
enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub fn rsa(kid: &str) -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        Self::with(kid, Key::Rsa(Box::new(key)))
    }

    pub fn p256(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::with(kid, Key::P256(key))
    }

    pub fn p384(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self::with(kid, Key::P384(key))
    }

    pub fn ed25519(kid: &str) -> Self {
        Self::with(kid, Key::Ed25519(Ed25519KeyPair::generate().unwrap()))
    }

    fn with(kid: &str, key: Key) -> Self {
        Self {
            kid: kid.to_owned(),
            key,
        }
    }

    /// How it signs.
    pub fn algorithm(&self) -> &'static str {
        match self.key {
            Key::Rsa(_) => "RS256",
            Key::P256(_) => "ES256",
            Key::P384(_) => "ES384",
            Key::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half, in Base64.
    pub fn modulus(&self) -> Option<String> {
        match &self.key {
            Key::Rsa(key) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
                Some(B64.encode(parts.n))
            }
            Key::P256(_) | Key::P384(_) | Key::Ed25519(_) => None,
        }
    }

    /// As it stands in a key set.
    pub fn jwk(&self) -> Value {
        let point = |curve: &str, bytes: &[u8]| {
            let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
            json!({"kty": "EC", "crv": curve, "x": B64.encode(x), "y": B64.encode(y)})
        };
        let mut key = match &self.key {
            Key::Rsa(key) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(key.public_key());
                json!({"kty": "RSA", "n": B64.encode(parts.n), "e": B64.encode(parts.e)})
            }
            Key::P256(key) => point("P-256", key.public_key().as_ref()),
            Key::P384(key) => point("P-384", key.public_key().as_ref()),
            Key::Ed25519(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": B64.encode(key.public_key().as_ref())})
            }
        };
        key["kid"] = json!(self.kid);
        key["use"] = json!("sig");
        key
    }

    /// The usual header.
    pub fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": self.algorithm(), "kid": self.kid})
    }

    /// A token that says this.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), &claims.to_string())
    }

    /// A token with any header and any text for claims; the algorithm of the key, whatever the header says.
    pub fn sign(&self, header: &Value, claims: &str) -> String {
        let text = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims));
        let signature = self.signature(text.as_bytes(), header["alg"] == "PS256");
        format!("{text}.{}", B64.encode(signature))
    }

    fn signature(&self, text: &[u8], is_pss: bool) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let how: &'static dyn RsaEncoding = if is_pss {
                    &RSA_PSS_SHA256
                } else {
                    &RSA_PKCS1_SHA256
                };
                key.sign(how, &random, text, &mut signature).unwrap();
                signature
            }
            Key::P256(key) | Key::P384(key) => key.sign(&random, text).unwrap().as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(text).as_ref().to_vec(),
        }
    }
}
