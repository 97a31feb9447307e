//! The entries of a tar stream, one behind the other, read strictly: what only some readers would take is refused.
//!
//! Regular files, directories and symbolic links (whose meaning is judged elsewhere) are all there is. Knows nothing about bundles.

use std::io::{self, Read};

use super::header::{self, BLOCK, Header, Kind, OCTAL_MAX};
use super::refusal::{ReadError, Refusal};

/// The most entries: all blobs a bundle may hold, and what docker puts around its layers.
pub(super) const ENTRIES_MAX: usize = 300_000;
/// The most bytes of an extended header.
const EXTENDED_MAX: u64 = 64 * 1024;
/// The most zeros behind the end: writers pad to a record, and the largest in use is 1 MiB.
const ZEROS_MAX: u64 = 1024 * 1024;
/// The keys of an extended header that change nothing that counts here.
const IDLE: [&str; 8] = [
    "mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment",
];
const IDLE_PREFIXES: [&str; 3] = [
    "SCHILY.xattr.",
    "LIBARCHIVE.xattr.",
    "LIBARCHIVE.creationtime",
];
/// From which length on a name may stand in an extended header only.
const LONG_NAME: usize = 100;

const CUT_OFF: &str = "the archive ends in the middle: it was cut off, copy it again";

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) target: String,
    /// Where its header begins.
    pub(super) at: u64,
}

/// A tar stream under way.
pub(super) struct Entries<R> {
    input: R,
    /// How many bytes were read.
    offset: u64,
    /// How much of the current entry is not read.
    left: u64,
    count: usize,
}

/// What an extended header says.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    size: Option<u64>,
    target: Option<String>,
}

impl<R: Read> Entries<R> {
    pub(super) const fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            left: 0,
            count: 0,
        }
    }

    /// The next entry, or `None` behind the last, when the stream has come to its end too. The entry before has been read.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, ReadError> {
        self.skip_padding()?;
        let mut extended = None;
        loop {
            let at = self.offset;
            let refused = |name: Option<&str>, why: &str| Refusal::error(name, at, why);
            let block = self.block(None, at)?;
            if block.iter().all(|byte| *byte == 0) {
                if extended.is_some() {
                    return Err(refused(None, "an extended header stands before nothing"));
                }
                return self.end().map(|()| None);
            }
            let header = header::decode(&block).map_err(|why| refused(None, why))?;
            self.count += 1;
            if self.count > ENTRIES_MAX {
                let why = format!("the archive has more than {ENTRIES_MAX} entries");
                return Err(refused(Some(&header.name), &why));
            }
            match header.kind {
                Kind::Extended if extended.is_some() => {
                    return Err(refused(
                        Some(&header.name),
                        "two extended headers stand together",
                    ));
                }
                Kind::Extended => extended = Some(self.extended(&header, at)?),
                Kind::Other(letter) => {
                    return Err(refused(Some(&header.name), &unwanted(letter)));
                }
                Kind::File | Kind::Directory | Kind::Symlink => {
                    let entry = merge(&header, extended.unwrap_or_default(), at)?;
                    self.left = entry.size;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads of the current entry; 0 at its end.
    pub(super) fn read(&mut self, entry: &Entry, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.some(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(Refusal::error(Some(&entry.name), entry.at, CUT_OFF));
        }
        self.left -= u64::try_from(count).unwrap_or_default();
        Ok(count)
    }

    /// How many bytes were read.
    pub(super) const fn position(&self) -> u64 {
        self.offset
    }

    /// Some bytes of the stream.
    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        loop {
            match self.input.read(buffer) {
                Ok(count) => {
                    self.offset += u64::try_from(count).unwrap_or_default();
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    let at = self.offset;
                    return Err(ReadError::Io { at, cause });
                }
            }
        }
    }

    /// Exactly as many bytes as fit.
    fn fill(&mut self, buffer: &mut [u8], name: Option<&str>, at: u64) -> Result<(), ReadError> {
        let mut done = 0;
        while done < buffer.len() {
            match self.some(buffer.get_mut(done..).unwrap_or_default())? {
                0 => return Err(Refusal::error(name, at, CUT_OFF)),
                count => done += count,
            }
        }
        Ok(())
    }

    fn block(&mut self, name: Option<&str>, at: u64) -> Result<[u8; BLOCK], ReadError> {
        let mut block = [0; BLOCK];
        self.fill(&mut block, name, at)?;
        Ok(block)
    }

    /// What fills the last block of an entry: zeros, in every archive that a tar made.
    fn skip_padding(&mut self) -> Result<(), ReadError> {
        let at = self.offset;
        let missing = at.next_multiple_of(BLOCK as u64) - at;
        let mut rest = vec![0; usize::try_from(missing).unwrap_or_default()];
        self.fill(&mut rest, None, at)?;
        if rest.iter().any(|byte| *byte != 0) {
            let why = "bytes stand between two entries";
            return Err(Refusal::error(None, at, why));
        }
        Ok(())
    }

    /// Behind the first of the two empty blocks that end an archive.
    fn end(&mut self) -> Result<(), ReadError> {
        let at = self.offset;
        let second = self.block(None, at)?;
        let mut zeros = second.iter().all(|byte| *byte == 0);
        let mut rest = vec![0; 64 * 1024];
        while zeros {
            let count = self.some(&mut rest)?;
            if count == 0 {
                return Ok(());
            }
            zeros = rest.iter().take(count).all(|byte| *byte == 0);
            if self.offset - at > ZEROS_MAX {
                break;
            }
        }
        let why = "something stands behind the end of the archive";
        Err(Refusal::error(None, at, why))
    }

    fn extended(&mut self, header: &Header, at: u64) -> Result<Extended, ReadError> {
        let refused = |why: &str| Refusal::error(Some(&header.name), at, why);
        if header.size > EXTENDED_MAX {
            return Err(refused("an extended header is longer than 64 KiB"));
        }
        let mut text = vec![0; usize::try_from(header.size).unwrap_or_default()];
        self.fill(&mut text, Some(&header.name), at)?;
        self.skip_padding()?;
        records(&text).map_err(refused)
    }
}

/// The sentence about a type of entry that is not taken.
fn unwanted(letter: u8) -> String {
    let what = match letter {
        b'1' => "a hard link",
        b'3' | b'4' => "a device",
        b'6' => "a fifo",
        b'7' => "a contiguous file",
        b'S' => "a sparse file",
        b'g' => "a global extended header",
        b'L' | b'K' => "a long name in GNU's own form (write it with --format=posix)",
        _ => "of an unknown type",
    };
    format!("it is {what}, and only regular files belong into a bundle")
}

/// Reads `LENGTH KEY=VALUE\n` again and again.
fn records(mut text: &[u8]) -> Result<Extended, &'static str> {
    const BROKEN: &str = "an extended header cannot be read";
    let mut seen = Vec::new();
    let mut found = Extended::default();
    while !text.is_empty() {
        let space = text.iter().position(|byte| *byte == b' ').ok_or(BROKEN)?;
        let digits = text
            .get(..space)
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let len: usize = digits.and_then(|len| len.parse().ok()).ok_or(BROKEN)?;
        let (record, rest) = text.split_at_checked(len).ok_or(BROKEN)?;
        let record = record.get(space + 1..).and_then(|r| r.strip_suffix(b"\n"));
        let record = record.ok_or(BROKEN)?;
        let sign = record.iter().position(|byte| *byte == b'=');
        let (key, value) = record.split_at_checked(sign.ok_or(BROKEN)?).ok_or(BROKEN)?;
        let key = std::str::from_utf8(key).map_err(|_other| BROKEN)?;
        let value = value.strip_prefix(b"=").ok_or(BROKEN)?;
        if seen.contains(&key) {
            return Err("an extended header says something twice");
        }
        seen.push(key);
        let text_value = || {
            let value = std::str::from_utf8(value).ok();
            let value = value.filter(|value| !value.is_empty() && !value.contains('\0'));
            value.map(str::to_owned).ok_or(BROKEN)
        };
        match key {
            "path" => found.path = Some(text_value()?),
            "linkpath" => found.target = Some(text_value()?),
            "size" => {
                let digits = text_value()?;
                let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
                found.size = Some(digits.and_then(|d| d.parse().ok()).ok_or(BROKEN)?);
            }
            _ if IDLE.contains(&key) || IDLE_PREFIXES.iter().any(|p| key.starts_with(p)) => {}
            _ if key.starts_with("GNU.sparse.") => {
                return Err("it is a sparse file, and only plain ones belong into a bundle");
            }
            _ => return Err("an extended header says something that is not known here"),
        }
        text = rest;
    }
    Ok(found)
}

/// The entry that both headers describe. Where they differ, readers differ, so they may not: an extended header only says what the other one
/// has no room for.
fn merge(header: &Header, extended: Extended, at: u64) -> Result<Entry, ReadError> {
    let refused = |why: &str| Refusal::error(Some(&header.name), at, why);
    let size = match extended.size {
        None => header.size,
        Some(size) if size == header.size => size,
        // Go writes 0 where the digits do not suffice.
        Some(size) if size > OCTAL_MAX && header.size == 0 && header.kind == Kind::File => size,
        Some(size) => {
            let why = format!(
                "two sizes: {} in the header and {size} in the extended one; somebody made it so that readers disagree about what follows",
                header.size
            );
            return Err(refused(&why));
        }
    };
    if size > 0 && header.kind != Kind::File {
        return Err(refused("a directory or a link has a size"));
    }
    let one = |short: &str, long: Option<String>| match long {
        None => Some(short.to_owned()),
        Some(long) if long == short || long.len() > LONG_NAME => Some(long),
        Some(_) => None,
    };
    let name = one(&header.name, extended.path)
        .ok_or_else(|| refused("two names: the extended header has another one"))?;
    let target = one(&header.target, extended.target)
        .ok_or_else(|| refused("two targets: the extended header has another one"))?;
    Ok(Entry {
        name,
        kind: header.kind,
        size,
        target,
        at,
    })
}
