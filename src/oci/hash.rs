//! Running hashes, by whichever of two libraries is the faster one on this processor.
//!
//! With SHA instructions both are alike, and `sha2` it is. Without them, on x86-64, the vector code of `aws-lc-rs`, which TLS needs anyway, does
//! twice as much (ADR 7).

use std::fmt;

use sha2::Digest as _;

use super::digest::{Algorithm, Digest};

/// A running hash. Cloning it is how the hash of a prefix is taken without ending the stream.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    state: State,
}

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
    Vector(Box<aws_lc_rs::digest::Context>),
}

impl Hasher {
    /// A fresh one.
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            _ if is_vector_faster() => State::vector(algorithm),
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::new(sha2::Sha512::new())),
        };
        Self { algorithm, state }
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
            State::Vector(state) => state.update(bytes),
        }
    }

    /// What it makes.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => Digest::from_hash(self.algorithm, &state.finalize()),
            State::Sha512(state) => Digest::from_hash(self.algorithm, &state.finalize()),
            State::Vector(state) => Digest::from_hash(self.algorithm, state.finish().as_ref()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl State {
    fn vector(algorithm: Algorithm) -> Self {
        let algorithm = match algorithm {
            Algorithm::Sha256 => &aws_lc_rs::digest::SHA256,
            Algorithm::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        Self::Vector(Box::new(aws_lc_rs::digest::Context::new(algorithm)))
    }
}

#[cfg(target_arch = "x86_64")]
fn is_vector_faster() -> bool {
    !std::arch::is_x86_feature_detected!("sha")
}

#[cfg(not(target_arch = "x86_64"))]
const fn is_vector_faster() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_libraries_say_the_same(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        ) {
            for (algorithm, plain) in [
                (Algorithm::Sha256, State::Sha256(sha2::Sha256::new())),
                (Algorithm::Sha512, State::Sha512(Box::default())),
            ] {
                let mut hashers = [plain, State::vector(algorithm)]
                    .map(|state| Hasher { algorithm, state });
                for piece in &pieces {
                    for hasher in &mut hashers {
                        hasher.update(piece);
                    }
                }
                let forked = hashers.clone().map(Hasher::finish);
                let [one, other] = hashers.map(Hasher::finish);
                prop_assert_eq!(&one, &other);
                prop_assert_eq!(forked, [one.clone(), one]);
            }
        }
    }
}
