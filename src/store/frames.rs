//! Records in an append-only file: found again whatever a crash did to the end, and never mistaken for something else.
//!
//! ```text
//! mark                   the four bytes RSJ1
//! length of the payload  u32, little endian
//! sequence number        u64, little endian
//! check                  the first 8 hex digits of the SHA-256 of what stands before it and of the payload
//! payload
//! ```
//! Pure.

use crate::oci::Digest;

/// What every record begins with: it lets damage be skipped without hashing at every byte.
const MARK: [u8; 4] = *b"RSJ1";
/// Bytes before the payload.
const HEAD: usize = 4 + 4 + 8 + 8;
/// The longest payload; a longer one is noise.
const PAYLOAD_MAX: usize = 32 << 20;

/// A record that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) sequence: u64,
    pub(super) payload: &'a [u8],
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents<'a> {
    pub(super) frames: Vec<Frame<'a>>,
    /// Where the last good record ends.
    pub(super) end: usize,
    /// Bytes between good records that are none: damage, where what is behind the end is only a torn write.
    pub(super) damaged: usize,
}

/// One record as bytes; none where the payload is too long.
pub(super) fn encode(sequence: u64, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > PAYLOAD_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&u32::try_from(payload.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    let check = check(&bytes, payload);
    bytes.extend_from_slice(&check);
    bytes.extend_from_slice(payload);
    Some(bytes)
}

/// Every good record in `bytes`, in order.
pub(super) fn decode(bytes: &[u8]) -> Contents<'_> {
    let (mut frames, mut at, mut end, mut damaged) = (Vec::new(), 0, 0, 0);
    while at + HEAD <= bytes.len() {
        match frame(bytes.get(at..).unwrap_or_default()) {
            Some((frame, length)) => {
                damaged += at - end;
                frames.push(frame);
                at += length;
                end = at;
            }
            None => at += 1,
        }
    }
    Contents {
        frames,
        end,
        damaged,
    }
}

fn frame(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (length, rest) = bytes.strip_prefix(&MARK)?.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (expected, rest) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > PAYLOAD_MAX {
        return None;
    }
    let payload = rest.get(..length)?;
    let found = check(bytes.get(..16)?, payload);
    (found == *expected).then_some((
        Frame {
            sequence: u64::from_le_bytes(*sequence),
            payload,
        },
        HEAD + length,
    ))
}

fn check(head: &[u8], payload: &[u8]) -> [u8; 8] {
    let mut all = Vec::with_capacity(head.len() + payload.len());
    all.extend_from_slice(head);
    all.extend_from_slice(payload);
    let digest = Digest::of(&all);
    let mut check = [0; 8];
    for (byte, letter) in check.iter_mut().zip(digest.hex().bytes()) {
        *byte = letter;
    }
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode, encode};

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        payloads
            .iter()
            .zip(1..)
            .flat_map(|(payload, sequence)| encode(sequence, payload).unwrap())
            .collect()
    }

    proptest! {
        #[test]
        fn what_was_written_whole_is_read_whatever_is_behind_it(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..6),
            cut in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let whole = file(&payloads);
            let mut torn = whole.clone();
            torn.truncate(cut.index(whole.len() + 1));
            let kept = decode(&torn).frames.len();
            torn.extend_from_slice(&noise);
            let contents = decode(&torn);
            // Noise is no record, and costs none of those before it.
            prop_assert_eq!(contents.frames.len(), kept);
            prop_assert_eq!(contents.damaged, 0);
            for (frame, (payload, sequence)) in contents.frames.iter().zip(payloads.iter().zip(1..)) {
                prop_assert_eq!((frame.sequence, frame.payload), (sequence, payload.as_slice()));
            }
        }

        #[test]
        fn a_flipped_bit_costs_one_record(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..100), 3..6),
            place in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let mut bytes = file(&payloads);
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let contents = decode(&bytes);
            prop_assert_eq!(contents.frames.len(), payloads.len() - 1);
            let is_last = contents.frames.iter().all(|frame| frame.sequence < payloads.len() as u64);
            prop_assert_eq!(contents.damaged == 0, is_last);
        }
    }

    #[test]
    fn too_long_is_refused() {
        assert!(encode(1, &vec![0; (32 << 20) + 1]).is_none());
    }
}
