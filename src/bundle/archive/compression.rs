//! Compression of a whole archive: zstd when it is written, zstd or gzip when it is read, found out by the first bytes.
//!
//! A bomb dies of the limits of what is inside: nobody reads more of an entry than its header says, and behind the last one only a bounded number of
//! zeros.

use std::io::{self, BufReader, Chain, Cursor, Read, Write};

use flate2::bufread::MultiGzDecoder;

/// zstd's default. Layers are compressed already, so more effort gains little.
const LEVEL: i32 = 3;
/// The largest window that is read, as a power of two: 128 MiB, which is what `zstd` itself reads without being told to take more.
const WINDOW_LOG_MAX: u32 = 27;
/// How many bytes are read at once.
const BUFFER: usize = 256 * 1024;

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// How a bundle is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is: what skopeo and podman read.
    #[default]
    None,
    /// zstd, the whole stream.
    Zstd,
}

/// A writer that compresses, or does not.
pub(super) enum Encoder<W: Write> {
    Plain(W),
    Zstd(Box<zstd::Encoder<'static, W>>),
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(out: W, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(out),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(Box::new(encoder))
            }
        })
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(mut out) => out.flush().map(|()| out),
            Self::Zstd(encoder) => {
                let mut out = encoder.finish()?;
                out.flush().map(|()| out)
            }
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(out) => out.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// The input with the bytes in front that were looked at.
type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// A reader that decompresses, or does not.
pub(super) enum Decoder<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    Zstd(Box<zstd::Decoder<'static, Whole<R>>>),
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let mut magic = Vec::new();
        input.by_ref().take(4).read_to_end(&mut magic)?;
        let (gzip, zstd) = (magic.starts_with(&GZIP), magic.starts_with(&ZSTD));
        let whole = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(input));
        Ok(if gzip {
            Self::Gzip(Box::new(MultiGzDecoder::new(whole)))
        } else if zstd {
            let mut decoder = zstd::Decoder::with_buffer(whole)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Self::Zstd(Box::new(decoder))
        } else {
            Self::Plain(whole)
        })
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
