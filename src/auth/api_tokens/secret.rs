//! What an API token looks like: `rst_`, 32 letters and digits of chance, and six that follow from the rest, so that whoever scans for
//! secrets that leaked finds these and nothing else. Pure, but for the chance.

use crate::oci::Digest;
use crate::secret::Secret;

/// What every token begins with.
const PREFIX: &str = "rst_";
/// Letters and digits of chance: 190 bits.
const RANDOM: usize = 32;
/// Letters and digits that follow from the rest.
const CHECK: usize = 6;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The greatest multiple of 62 that a byte can reach: what is above would make some letters likelier.
const FAIR: u8 = 248;

/// A new token; none where the system gives no chance.
pub(super) fn make() -> Option<Secret> {
    let mut text = PREFIX.to_owned();
    let mut left = RANDOM;
    while left > 0 {
        let mut random = [0; RANDOM * 2];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        for byte in random.into_iter().filter(|byte| *byte < FAIR).take(left) {
            text.push(letter(u32::from(byte)));
            left -= 1;
        }
    }
    let check = check(&text);
    text.push_str(&check);
    Some(Secret::new(text))
}

/// Whether a text has a token's form: nobody means a password by it.
pub(super) fn has_form(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == RANDOM + CHECK && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// What is kept of a token. There is too much chance in one for its hash to be searched, so once is enough.
pub(super) fn hash(text: &str) -> String {
    Digest::of(text.as_bytes()).hex().to_owned()
}

/// The first four bytes of the SHA-256 of the rest, as a number of six digits.
fn check(rest: &str) -> String {
    let hash = hash(rest);
    let first = hash.get(..8).unwrap_or_default();
    let mut number = u32::from_str_radix(first, 16).unwrap_or_default();
    let mut digits = [' '; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = letter(number);
        number /= 62;
    }
    digits.iter().collect()
}

fn letter(number: u32) -> char {
    let at = usize::try_from(number % 62).unwrap_or(0);
    LETTERS.get(at).copied().map_or('0', char::from)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_token_is_another_and_can_be_found() {
        let made: HashSet<String> = (0..200)
            .map(|_| make().unwrap().expose().to_owned())
            .collect();
        assert_eq!(made.len(), 200);
        for token in &made {
            assert!(has_form(token), "{token}");
            let (rest, end) = token.split_at(PREFIX.len() + RANDOM);
            assert_eq!(check(rest), end);
        }
        let letters: HashSet<char> = made
            .iter()
            .flat_map(|token| token.chars().skip(PREFIX.len()).take(RANDOM))
            .collect();
        assert_eq!(letters.len(), 62, "each letter is used");
        // Other programs compute the same.
        let rest = format!("rst_{}", "0".repeat(32));
        let hashed = Digest::of(rest.as_bytes());
        let first = u32::from_str_radix(hashed.hex().get(..8).unwrap(), 16).unwrap();
        let value = check(&rest).bytes().fold(0_u64, |value, byte| {
            value * 62 + LETTERS.iter().position(|one| *one == byte).unwrap() as u64
        });
        assert_eq!(value, u64::from(first));
    }

    #[test]
    fn what_is_no_token() {
        let right = format!("rst_{}", "a".repeat(38));
        assert!(has_form(&right));
        for wrong in [
            "",
            "rst_",
            "password",
            right.get(1..).unwrap(),
            right.get(..41).unwrap(),
            &format!("{right}a"),
            &right.replace("rst_", "RST_"),
            &right.replacen("aa", "a.", 1),
            &right.replacen("aa", "ä", 1),
        ] {
            assert!(!has_form(wrong), "{wrong}");
        }
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
