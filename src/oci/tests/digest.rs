//! Digests, against section U21/V4 of the hostile inputs, and hashes against known answers.

use proptest::prelude::*;

use super::oracle::{Re, many, some};
use crate::oci::digest::DigestError;
use crate::oci::{Algorithm, Digest};

const EMPTY_256: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ABC_512: &str = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                       2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

#[test]
fn known_answers() {
    assert_eq!(Digest::of(b"").to_string(), EMPTY_256);
    let digest = Digest::of_with(Algorithm::Sha512, b"abc");
    assert_eq!(digest.to_string(), ABC_512);
    assert_eq!(ABC_512.parse(), Ok(digest));
}

#[test]
fn a_prefix_is_hashed_without_ending_the_stream() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let mut hasher = algorithm.hasher();
        hasher.update(b"road");
        let prefix = hasher.clone().finish();
        hasher.update(b"stead");
        assert_eq!(prefix, Digest::of_with(algorithm, b"road"));
        assert_eq!(hasher.finish(), Digest::of_with(algorithm, b"roadstead"));
        assert_eq!(prefix.hex().len(), algorithm.hex_len());
        assert_eq!(prefix.algorithm(), algorithm);
    }
}

#[test]
fn refused() {
    let hex = "a".repeat(64);
    let huge = format!("sha256:{}", "a".repeat(10_000_000));
    let malformed = [
        String::new(),
        ":".to_owned(),
        "sha256".to_owned(),
        "sha256:".to_owned(),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha256:{}", "a".repeat(65)),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", "g".repeat(64)),
        format!("SHA256:{hex}"),
        format!(" sha256:{hex}"),
        format!("sha256:{hex}\n"),
        format!("sha512:{hex}"),
        format!("+b64:{hex}"),
        format!("a..b:{hex}"),
        "sha256:../../etc/passwd".to_owned(),
        "md5:../../x".to_owned(),
        "md5:".to_owned(),
        format!("md5:{}", "a".repeat(513)),
        huge,
    ];
    for text in malformed {
        let shown: String = text.chars().take(80).collect();
        assert_eq!(Digest::parse(&text), Err(DigestError::Malformed), "{shown}");
    }
    for text in [
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256+b64:aGk=",
        "blake3:ab",
    ] {
        assert_eq!(Digest::parse(text), Err(DigestError::Unsupported), "{text}");
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+`
fn pattern() -> Re {
    let word = || some(Re::Class(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    let separator = Re::Class(|b| b"+._-".contains(&b));
    let encoded = some(Re::Class(|b| {
        b.is_ascii_alphanumeric() || b"=_-".contains(&b)
    }));
    let tail = many(Re::Seq(vec![separator, word()]));
    Re::Seq(vec![word(), tail, Re::Text(":"), encoded])
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics_and_digests_round_trip(
        text in "\\PC*|(sha256|sha512|md5|a[+._-]b):[0-9a-fA-F=_g-]{0,70}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
    ) {
        match Digest::parse(&text) {
            Ok(digest) => {
                prop_assert!(pattern().matches(&text));
                prop_assert_eq!(digest.to_string(), text);
            }
            Err(DigestError::Unsupported) => prop_assert!(pattern().matches(&text)),
            Err(DigestError::Malformed) => {
                let registered = text.starts_with("sha256:") || text.starts_with("sha512:");
                prop_assert!(registered || !pattern().matches(&text) || text.len() > 64);
            }
        }
    }

    #[test]
    fn pieces_hash_like_the_whole(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let mut hasher = Algorithm::Sha256.hasher();
        for piece in &pieces {
            hasher.update(piece);
        }
        prop_assert_eq!(hasher.finish(), Digest::of(&pieces.concat()));
    }
}
