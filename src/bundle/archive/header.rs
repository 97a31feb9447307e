//! One header of a tar archive: 512 bytes, written in one way and read strictly.
//!
//! Two readers that disagree about where an entry ends see two archives in the same bytes (CVE-2025-62518). So there is one size: a header whose checksum,
//! magic or numbers are not exactly what the format says is refused, and so is a `size` of an extended header beside another one.

/// What a tar archive is made of.
pub(super) const BLOCK: usize = 512;
/// The largest size that the eleven octal digits of a header hold; what is larger stands in base 256 and in an extended header alike.
pub(super) const OCTAL_MAX: u64 = 0o777_7777_7777;
/// The most bytes of a name in a header without a prefix.
const NAME_LEN: usize = 100;

/// The magics of POSIX and of GNU tar, with the version behind them.
const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \x00";

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A header for the next entry.
    Extended,
    /// Anything else, by its letter.
    Other(u8),
}

/// A header as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// With its prefix.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
    /// Where a link leads.
    pub(super) target: String,
}

/// The bytes of an entry's headers: one block, or three where the name or the size does not fit into one.
pub(super) fn encode(name: &str, kind: Kind, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let long_name = name.len() > NAME_LEN;
    if long_name || size > OCTAL_MAX {
        let mut records = String::new();
        if long_name {
            records += &record("path", name);
        }
        if size > OCTAL_MAX {
            records += &record("size", &size.to_string());
        }
        let len = u64::try_from(records.len()).unwrap_or_default();
        bytes.extend(block("PaxHeaders/next", b'x', 0o644, len));
        bytes.extend(records.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    let (letter, mode) = if kind == Kind::Directory {
        (b'5', 0o755)
    } else {
        (b'0', 0o644)
    };
    bytes.extend(block(name, letter, mode, size));
    bytes
}

/// A record of an extended header, whose length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    format!("{len} {key}={value}\n")
}

fn block(name: &str, letter: u8, mode: u32, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    let octal = |value: u64, digits: usize| format!("{value:0digits$o}\0").into_bytes();
    put(
        0,
        name.as_bytes().get(..NAME_LEN).unwrap_or(name.as_bytes()),
    );
    put(100, &octal(mode.into(), 7));
    put(108, &octal(0, 7));
    put(116, &octal(0, 7));
    if size > OCTAL_MAX {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    } else {
        put(124, &octal(size, 11));
    }
    put(136, &octal(0, 11));
    put(156, &[letter]);
    put(257, USTAR);
    put(329, &octal(0, 7));
    put(337, &octal(0, 7));
    let sum = octal(checksum(&header), 6);
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(bytes) {
            *place = *byte;
        }
    };
    put(148, &sum);
    put(155, b" ");
    header
}

/// The sum of all bytes, those of the checksum taken as spaces.
fn checksum(header: &[u8; BLOCK]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| {
        if (148..156).contains(&at) {
            u64::from(b' ')
        } else {
            u64::from(*byte)
        }
    };
    header.iter().enumerate().map(byte).sum()
}

/// Reads a header; the sentence says what is wrong with it.
pub(super) fn decode(header: &[u8; BLOCK]) -> Result<Header, &'static str> {
    let field = |at: usize, len: usize| header.get(at..at + len).unwrap_or_default();
    if octal(field(148, 8)) != Some(checksum(header)) {
        return Err("this is no header of a tar archive: its checksum is wrong");
    }
    let magic = field(257, 8);
    if magic != USTAR && magic != GNU {
        return Err("the header is of a tar format that is not read: POSIX and GNU are");
    }
    let size = number(field(124, 12)).ok_or("the size in the header is no number")?;
    let name = text(field(0, 100)).ok_or("the name in the header is no text")?;
    // GNU keeps other things where POSIX has the prefix, and only in entries of other kinds than these.
    let prefix = if magic == USTAR {
        text(field(345, 155)).ok_or("the prefix in the header is no text")?
    } else {
        ""
    };
    let name = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}/{name}")
    };
    let letter = header.get(156).copied().unwrap_or_default();
    let kind = match letter {
        b'0' | 0 if name.ends_with('/') => {
            return Err("a file whose name ends with '/' is a directory to some");
        }
        b'0' | 0 => Kind::File,
        b'2' => Kind::Symlink,
        b'5' => Kind::Directory,
        b'x' => Kind::Extended,
        other => Kind::Other(other),
    };
    if size > 0 && matches!(kind, Kind::Directory | Kind::Symlink) {
        return Err("a directory or a link has a size");
    }
    Ok(Header {
        name,
        kind,
        size,
        target: text(field(157, 100))
            .ok_or("the target in the header is no text")?
            .to_owned(),
    })
}

/// Text up to the first NUL; behind that nothing else may stand.
fn text(field: &[u8]) -> Option<&str> {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let (text, rest) = field.split_at_checked(end)?;
    if rest.iter().any(|byte| *byte != 0) {
        return None;
    }
    std::str::from_utf8(text).ok()
}

/// Octal digits, or base 256 with its mark.
fn number(field: &[u8]) -> Option<u64> {
    let Some((0x80, rest)) = field.split_first() else {
        return octal(field);
    };
    let (high, low) = rest.split_at_checked(rest.len().checked_sub(8)?)?;
    let value = u64::from_be_bytes(low.try_into().ok()?);
    // A smaller one would fit into octal digits: no writer takes this form for it.
    (high.iter().all(|byte| *byte == 0) && value > OCTAL_MAX).then_some(value)
}

/// Octal digits, spaces in front, NULs or spaces behind.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text
        .trim_start_matches(' ')
        .trim_end_matches(['\0', ' '])
        .as_bytes();
    let digit = |value: u64, byte: &u8| match byte {
        b'0'..=b'7' => value
            .checked_mul(8)
            .map(|value| value + u64::from(byte - b'0')),
        _ => None,
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, digit)
}
