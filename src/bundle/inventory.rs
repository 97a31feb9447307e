//! What a store has, as the other side of an air gap is told: digests, sorted, one a line, compressed. Pure.
//!
//! Small enough for a floppy disk or a QR reader's patience: about 35 bytes for each blob. Who signs it signs the file.

use std::io::Read as _;
use std::str::FromStr as _;

use crate::oci::Digest;

/// The first line.
const TITLE: &str = "roadstead inventory 1";
/// The most digests: with all of them a request still has room for what it asks for.
pub const DIGESTS_MAX: usize = 500_000;
/// The most bytes of a file, compressed.
pub const FILE_MAX: usize = 48 << 20;
/// The longest line: an algorithm, a colon, and the hex of SHA-512.
const LINE_MAX: usize = 160;
/// zstd's default.
const LEVEL: i32 = 3;

/// Why a file is no inventory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InventoryError {
    /// It is compressed by something else, or damaged.
    #[error("it is no inventory, or a damaged one; make one with `roadstead inventory -o FILE`")]
    Damaged,
    /// It is too long.
    #[error("it has more than {DIGESTS_MAX} digests, or more than {} MiB", FILE_MAX >> 20)]
    TooLong,
    /// It is of another version.
    #[error(
        "it begins with `{0}`, and not with `{TITLE}`: use a roadstead of the same version on both sides"
    )]
    Version(String),
    /// A line is no digest.
    #[error("its line {0} is no digest")]
    Line(usize),
    /// It is not sorted, or names something twice.
    #[error("its line {0} is out of order; was it edited?")]
    Order(usize),
}

/// The file that says `digests`.
pub fn write(mut digests: Vec<Digest>) -> std::io::Result<Vec<u8>> {
    let mut lines: Vec<String> = digests.drain(..).map(|one| one.to_string()).collect();
    lines.sort_unstable();
    lines.dedup();
    let mut text = String::from(TITLE);
    for line in &lines {
        text.push('\n');
        text.push_str(line);
    }
    text.push('\n');
    zstd::encode_all(text.as_bytes(), LEVEL)
}

/// The digests that a file says.
pub fn read(file: &[u8]) -> Result<Vec<Digest>, InventoryError> {
    if file.len() > FILE_MAX {
        return Err(InventoryError::TooLong);
    }
    let decoder = zstd::Decoder::new(file).map_err(|_other| InventoryError::Damaged)?;
    let most = u64::try_from(DIGESTS_MAX * LINE_MAX).unwrap_or(u64::MAX);
    let mut text = String::new();
    let read = decoder.take(most + 1).read_to_string(&mut text);
    read.map_err(|_broken| InventoryError::Damaged)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > most {
        return Err(InventoryError::TooLong);
    }
    let mut lines = text.lines().enumerate();
    match lines.next() {
        Some((_, TITLE)) => {}
        Some((_, other)) => {
            let shown = other.chars().take(40).collect();
            return Err(InventoryError::Version(shown));
        }
        None => return Err(InventoryError::Damaged),
    }
    let (mut digests, mut last) = (Vec::new(), "");
    for (number, line) in lines {
        if digests.len() >= DIGESTS_MAX {
            return Err(InventoryError::TooLong);
        }
        let digest = Digest::from_str(line).map_err(|_other| InventoryError::Line(number + 1))?;
        if line <= last {
            return Err(InventoryError::Order(number + 1));
        }
        last = line;
        digests.push(digest);
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(text: &str) -> Vec<u8> {
        zstd::encode_all(text.as_bytes(), LEVEL).unwrap()
    }

    #[test]
    fn what_is_written_is_read_sorted_and_once() {
        let mut digests: Vec<Digest> = (0..1000_u32)
            .map(|n| Digest::of(&n.to_le_bytes()))
            .collect();
        digests.push(Digest::of(&7_u32.to_le_bytes()));
        let file = write(digests.clone()).unwrap();
        assert!(file.len() < 40 * 1000, "{}", file.len());
        digests.sort_by_key(Digest::to_string);
        digests.dedup();
        assert_eq!(read(&file).unwrap(), digests);
        assert_eq!(write(digests.clone()).unwrap(), file);
        assert_eq!(read(&write(Vec::new()).unwrap()).unwrap(), []);
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (a, b) = if a.to_string() < b.to_string() {
            (a, b)
        } else {
            (b, a)
        };
        for (file, why) in [
            (b"hello".to_vec(), InventoryError::Damaged),
            (Vec::new(), InventoryError::Damaged),
            (packed(""), InventoryError::Damaged),
            (
                packed("roadstead inventory 2\n"),
                InventoryError::Version("roadstead inventory 2".to_owned()),
            ),
            (
                packed(&format!("{TITLE}\nsha256:x\n")),
                InventoryError::Line(2),
            ),
            (
                packed(&format!("{TITLE}\n{b}\n{a}\n")),
                InventoryError::Order(3),
            ),
            (
                packed(&format!("{TITLE}\n{a}\n{a}\n")),
                InventoryError::Order(3),
            ),
            (
                packed(&"x".repeat(DIGESTS_MAX * LINE_MAX + 1)),
                InventoryError::TooLong,
            ),
            (vec![0; FILE_MAX + 1], InventoryError::TooLong),
        ] {
            assert_eq!(read(&file).unwrap_err(), why);
        }
        let whole = write(vec![a, b]).unwrap();
        assert_eq!(
            read(&whole[..whole.len() - 1]).unwrap_err(),
            InventoryError::Damaged
        );
    }
}
