//! cosign's signatures by key, verified offline: the key, and whether a payload in the "simple signing" format says that this digest was
//! signed with it. Transparency logs and certificates are not asked about: what counts is the one key that somebody put here.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::oci::Digest;

/// What the payload calls itself.
const KIND: &str = "cosign container image signature";

/// What a key may be used with. cosign makes P-256; SHA-256 stands first for every curve because it hashes so whatever the curve.
static ALGORITHMS: [&dyn VerificationAlgorithm; 8] = [
    &signature::ECDSA_P256_SHA256_ASN1,
    &signature::ECDSA_P384_SHA256_ASN1,
    &signature::ECDSA_P384_SHA384_ASN1,
    &signature::ECDSA_P521_SHA256_ASN1,
    &signature::ECDSA_P521_SHA512_ASN1,
    &signature::RSA_PKCS1_2048_8192_SHA256,
    &signature::RSA_PSS_2048_8192_SHA256,
    &signature::ED25519,
];

/// A public key that signatures are verified with.
#[derive(Clone)]
pub struct PublicKey {
    der: Arc<[u8]>,
    ways: Arc<[ParsedPublicKey]>,
}

/// Why a text is no public key that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no block of that kind in it.
    #[error("it has no \"BEGIN PUBLIC KEY\" block")]
    NotPem,
    /// The block is none of the kinds of keys that are known.
    #[error(
        "its key is none that can be used: ECDSA (P-256, P-384, P-521), RSA (2048 bits and more) or Ed25519"
    )]
    Unknown,
}

impl PublicKey {
    /// Reads a key as `cosign generate-key-pair` writes `cosign.pub`: PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_none| KeyError::NotPem)?;
        let parse = |algorithm: &&'static dyn VerificationAlgorithm| {
            ParsedPublicKey::new(*algorithm, der.as_ref()).ok()
        };
        let ways: Arc<[ParsedPublicKey]> = ALGORITHMS.iter().filter_map(parse).collect();
        if ways.is_empty() {
            return Err(KeyError::Unknown);
        }
        Ok(Self {
            der: der.as_ref().into(),
            ways,
        })
    }

    /// The hash of the key, by which it is told from others.
    pub(super) fn fingerprint(&self) -> String {
        Digest::of(&self.der).to_string()
    }

    /// Whether `signature` over `payload` is of this key, and the payload is about `digest`.
    pub(super) fn signed(&self, payload: &[u8], signature: &[u8], digest: &Digest) -> bool {
        self.verifies(payload, signature) && is_about(payload, digest)
    }

    /// Whether `signature` over `message`, whatever that says, is of this key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verifies = |way: &ParsedPublicKey| way.verify_sig(message, signature).is_ok();
        self.ways.iter().any(verifies)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Whether a payload, whose signature verified, is about `digest`.
fn is_about(payload: &[u8], digest: &Digest) -> bool {
    serde_json::from_slice(payload).is_ok_and(|Payload { critical }| {
        critical.kind == KIND && critical.image.digest == digest.to_string()
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    fn payload(digest: &Digest) -> Vec<u8> {
        serde_json::json!({ "critical": {
            "identity": { "docker-reference": "registry.example/app" },
            "image": { "docker-manifest-digest": digest.to_string() },
            "type": KIND,
        }, "optional": null })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_signature_is_of_one_key_one_payload_and_one_digest() {
        let [pair, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let key = PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap();
        let der = pair.serialize_der();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).unwrap();
        let (digest, wrong) = (Digest::of(b"image"), Digest::of(b"other"));
        let text = payload(&digest);
        let signed = signer.sign(&SystemRandom::new(), &text).unwrap();
        assert!(key.signed(&text, signed.as_ref(), &digest));
        assert!(!key.signed(&text, signed.as_ref(), &wrong));
        assert!(!key.signed(&payload(&wrong), signed.as_ref(), &wrong));
        assert!(!key.signed(&text, b"", &digest));
        let odd = String::from_utf8(text.clone()).unwrap().replace(KIND, "x");
        let signed_odd = signer.sign(&SystemRandom::new(), odd.as_bytes()).unwrap();
        assert!(!key.signed(odd.as_bytes(), signed_odd.as_ref(), &digest));
        let another = PublicKey::from_pem(other.public_key_pem().as_bytes()).unwrap();
        assert!(!another.signed(&text, signed.as_ref(), &digest));
        assert_ne!(key, another);
        assert_ne!(key.fingerprint(), another.fingerprint());
    }

    #[test]
    fn keys_of_other_kinds_work_and_what_is_none_is_named() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let key = PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap();
        let signer = Ed25519KeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
        let digest = Digest::of(b"image");
        let text = payload(&digest);
        assert!(key.signed(&text, signer.sign(&text).as_ref(), &digest));
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            assert!(PublicKey::from_pem(pair.public_key_pem().as_bytes()).is_ok());
            assert!(!pair.subject_public_key_info().is_empty());
        }
        let private = pair.serialize_pem();
        assert_eq!(
            PublicKey::from_pem(private.as_bytes()).unwrap_err(),
            KeyError::NotPem
        );
        let broken = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert_eq!(
            PublicKey::from_pem(broken.as_bytes()).unwrap_err(),
            KeyError::Unknown
        );
    }
}
