//! Signatures over `roadstead.json`: base64 in `roadstead.json.sig`, which is also what `cosign sign-blob` writes and `cosign verify-blob --signature` reads.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::cache::PublicKey;

/// The most bytes of `roadstead.json.sig`; the longest signature is one of RSA with 8192 bits.
pub(super) const SIGNATURE_MAX: usize = 4096;

/// A private key that bundles are signed with.
pub struct SigningKey(Kind);

enum Kind {
    Ed25519(Ed25519KeyPair),
    P256(Box<EcdsaKeyPair>),
}

/// Why a text is no key that can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// It wants a password.
    #[error(
        "this key is encrypted, and Roadstead asks for no password: make a plain one with `openssl genpkey -algorithm ed25519 -out KEY`, or sign with cosign itself"
    )]
    Encrypted,
    /// It has no private key in it.
    #[error("it has no \"BEGIN PRIVATE KEY\" or \"BEGIN EC PRIVATE KEY\" block: give it as PEM")]
    NotPem,
    /// It is a private key of another kind.
    #[error("its key is none that can sign a bundle: Ed25519 or ECDSA P-256")]
    Unknown,
}

/// Why a signature could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the table of contents cannot be signed: the system has no randomness for it")]
pub struct CannotSign;

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It is no base64.
    #[error("the signature is not base64")]
    NotBase64,
    /// Another key made it, or it is over something else.
    #[error(
        "the signature is not one of the given key over this table of contents: either the bundle was changed, or another key signed it"
    )]
    Wrong,
}

impl SigningKey {
    /// Reads a key: PEM with PKCS#8, or SEC 1 as `openssl ecparam -genkey` writes it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SigningKeyError> {
        let text = String::from_utf8_lossy(pem);
        let encrypted = |line: &str| {
            (line.starts_with("-----BEGIN ENCRYPTED") && line.ends_with("PRIVATE KEY-----"))
                || line.starts_with("Proc-Type: 4,ENCRYPTED")
        };
        if text.lines().map(str::trim).any(encrypted) {
            return Err(SigningKeyError::Encrypted);
        }
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_none| SigningKeyError::NotPem)?;
        let der = der.secret_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self(Kind::Ed25519(pair)));
        }
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map(|pair| Self(Kind::P256(Box::new(pair))))
            .map_err(|_other| SigningKeyError::Unknown)
    }

    /// `roadstead.json.sig` for these bytes. With Ed25519 it is always the same; ECDSA takes new randomness each time.
    pub fn sign(&self, contents: &[u8]) -> Result<Vec<u8>, CannotSign> {
        let text = match &self.0 {
            Kind::Ed25519(pair) => STANDARD.encode(pair.sign(contents)),
            Kind::P256(pair) => {
                let signed = pair.sign(&SystemRandom::new(), contents);
                STANDARD.encode(signed.map_err(|_unspecified| CannotSign)?)
            }
        };
        Ok((text + "\n").into_bytes())
    }

    /// The public half, DER.
    fn public_der(&self) -> Option<Vec<u8>> {
        let der = match &self.0 {
            Kind::Ed25519(pair) => pair.public_key().as_der(),
            Kind::P256(pair) => pair.public_key().as_der(),
        };
        der.map(|der| der.as_ref().to_vec()).ok()
    }
}

/// What a public key says of `roadstead.json` and `roadstead.json.sig`.
pub fn verify(key: &PublicKey, contents: &[u8], signature: &[u8]) -> Result<(), Unverified> {
    let signature = STANDARD
        .decode(signature.trim_ascii())
        .map_err(|_other| Unverified::NotBase64)?;
    if key.verifies(contents, &signature) {
        Ok(())
    } else {
        Err(Unverified::Wrong)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = self.public_der().unwrap_or_default();
        write!(f, "SigningKey({})", crate::oci::Digest::of(&public))
    }
}
