//! What may be appended to an upload (distribution-spec, "Pushing a blob in chunks"). Pure.

use crate::oci::range::ByteRange;

use super::Error;

/// The most bytes of one blob.
pub(super) const BLOB_MAX: u64 = 1 << 42;

/// What a client says of the bytes that it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// `Content-Range`: where in the blob they go.
    pub range: Option<ByteRange>,
    /// `Content-Length`: how many they are; none where they are streamed.
    pub length: Option<u64>,
}

/// What is agreed on before the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many bytes must come; none: as many as do.
    pub(super) expected: Option<u64>,
    /// A chunk is taken whole or not at all; of a stream, what has come stays.
    pub(super) all_or_nothing: bool,
}

/// Whether an upload that holds `held` bytes takes what is offered.
pub(super) fn plan(held: u64, offer: &Offer) -> Result<Plan, Error> {
    let expected = match (offer.range, offer.length) {
        (Some(range), _) if range.start() != held => return Err(Error::OutOfOrder { held }),
        (Some(range), Some(length)) if range.len() != length => {
            return Err(Error::Size("Content-Range and Content-Length do not agree"));
        }
        (Some(range), _) => Some(range.len()),
        (None, length) => length,
    };
    if held.saturating_add(expected.unwrap_or(0)) > BLOB_MAX {
        return Err(Error::Size("the blob is larger than any that is taken"));
    }
    Ok(Plan {
        expected,
        all_or_nothing: offer.range.is_some(),
    })
}

impl Plan {
    /// Whether `received` bytes may have come so far.
    pub(super) fn allows(self, held: u64, received: u64) -> Result<(), Error> {
        if self.expected.is_some_and(|expected| received > expected) {
            return Err(Error::Size("more bytes came than were announced"));
        }
        if held.saturating_add(received) > BLOB_MAX {
            return Err(Error::Size("the blob is larger than any that is taken"));
        }
        Ok(())
    }

    /// Whether `received` bytes are all.
    pub(super) fn ends(self, received: u64) -> Result<(), Error> {
        match self.expected {
            Some(expected) if expected != received => {
                Err(Error::Size("fewer bytes came than were announced"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOB_MAX, Error, Offer, Plan, plan};
    use crate::oci::range::ByteRange;

    fn offer(range: Option<(u64, u64)>, length: Option<u64>) -> Offer {
        Offer {
            range: range.and_then(|(start, end)| ByteRange::new(start, end)),
            length,
        }
    }

    #[test]
    fn what_is_taken_and_what_is_not() {
        let taken = |held, range, length| plan(held, &offer(range, length));
        let all = |expected| Plan {
            expected,
            all_or_nothing: true,
        };
        let stream = |expected| Plan {
            expected,
            all_or_nothing: false,
        };
        assert_eq!(taken(0, Some((0, 9)), Some(10)).unwrap(), all(Some(10)));
        assert_eq!(taken(10, Some((10, 10)), None).unwrap(), all(Some(1)));
        assert_eq!(taken(7, None, None).unwrap(), stream(None));
        assert_eq!(taken(7, None, Some(3)).unwrap(), stream(Some(3)));
        for (held, range) in [(10, (0, 9)), (10, (11, 20)), (0, (1, 1)), (10, (9, 12))] {
            assert!(
                matches!(taken(held, Some(range), None), Err(Error::OutOfOrder { held: at }) if at == held),
                "{held} {range:?}"
            );
        }
        assert!(matches!(
            taken(0, Some((0, 9)), Some(9)),
            Err(Error::Size(_))
        ));
        assert!(matches!(
            taken(1, None, Some(BLOB_MAX)),
            Err(Error::Size(_))
        ));
        assert!(taken(0, None, Some(BLOB_MAX)).is_ok());
    }

    #[test]
    fn what_came_is_compared_with_what_was_said() {
        let plan = Plan {
            expected: Some(10),
            all_or_nothing: true,
        };
        assert!(plan.allows(0, 10).is_ok() && plan.allows(0, 11).is_err());
        assert!(plan.ends(10).is_ok() && plan.ends(9).is_err());
        let open = Plan {
            expected: None,
            all_or_nothing: false,
        };
        assert!(open.ends(0).is_ok() && open.allows(BLOB_MAX, 1).is_err());
    }
}
