//! Where a chunked body ends (RFC 9112, 7.1), read more strictly than hyper does. Pure.
//!
//! hyper decodes the same bytes again; this only has to agree with it about the end, and to refuse first whatever two readers could
//! read differently: bare LFs, whitespace or signs around a size, extensions without measure (CVE-2023-39326).

/// The body breaks the framing; nothing behind it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// Bytes of extensions and trailers that one body may have in all.
const EXTRAS_MAX: usize = 16 * 1024;
/// Hexadecimal digits of a chunk size.
const SIZE_DIGITS: u8 = 15;

/// The state between two reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunked {
    state: State,
    size: u64,
    digits: u8,
    extras: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    End,
}

impl Chunked {
    pub(super) const fn new() -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extras: 0,
        }
    }

    /// The whole body, trailers included, has gone by.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// Goes over `bytes` and tells how many of them belong to this body.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.state == State::End {
                break;
            }
            if self.state == State::Data {
                let here = (bytes.len() - at) as u64;
                let taken = here.min(self.size);
                self.size -= taken;
                // No more than `bytes.len()`, so it fits.
                at += usize::try_from(taken).unwrap_or(usize::MAX);
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(*byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Broken> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < SIZE_DIGITS => {
                self.digits += 1;
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.size = self.size * 16 + u64::from(digit);
                Ok(State::Size)
            }
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\t' | b' '..=b'~') => self.extra(State::Extension),
            (State::SizeLf, b'\n') if self.size == 0 => Ok(State::TrailerStart),
            (State::SizeLf, b'\n') => Ok(State::Data),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.digits = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerStart, b'!'..=b'~') | (State::Trailer, b'\t' | b' '..=b'~') => {
                self.extra(State::Trailer)
            }
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::End),
            _ => Err(Broken),
        }
    }

    fn extra(&mut self, next: State) -> Result<State, Broken> {
        self.extras += 1;
        if self.extras > EXTRAS_MAX {
            return Err(Broken);
        }
        Ok(next)
    }
}
