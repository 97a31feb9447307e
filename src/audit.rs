//! The file that audit lines go to, besides the log: writes, logins, denials, changes of the configuration.
//!
//! Whoever has something to write down says so with `tracing`, target [`TARGET`]; the log and this file both get it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;
use tracing_subscriber::fmt::MakeWriter;

/// The target of audit lines.
pub const TARGET: &str = "audit";
/// Its owner may read and write, nobody else: who did what is not everybody's.
const MODE: u32 = 0o600;

/// The file, once it is open. Shared by `Arc`.
#[derive(Debug, Clone, Default)]
pub struct AuditFile(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<Option<(PathBuf, File)>>,
    failed: AtomicU64,
    /// Whether the last line may have been cut short.
    torn: AtomicBool,
}

/// One line on its way.
#[derive(Debug)]
pub struct Line<'a>(&'a AuditFile);

impl AuditFile {
    /// From now on lines are appended to this file; it is made where it is not there. Blocks.
    pub fn open(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        // A pipe without a reader would hold up the start.
        let options = options.append(true).create(true).mode(MODE);
        let file = options
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        *self.lock() = Some((path.to_owned(), file));
        Ok(())
    }

    /// Opens the file by its name once more: it may have been moved away to make room for the next. Blocks.
    pub fn reopen(&self) -> io::Result<()> {
        let path = self.lock().as_ref().map(|(path, _)| path.clone());
        path.map_or(Ok(()), |path| self.open(&path))
    }

    /// How many lines could not be written; they are in the log.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(PathBuf, File)>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for AuditFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

impl Write for Line<'_> {
    /// A whole line at a time, as the log writes them.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let inner = &self.0.0;
        if let Some((_, file)) = self.0.lock().as_mut() {
            // What is left of a line that did not fit is not the beginning of this one.
            let whole = if inner.torn.load(Relaxed) {
                file.write_all(b"\n")
            } else {
                Ok(())
            };
            let written = whole.and_then(|()| file.write_all(line));
            inner.torn.store(written.is_err(), Relaxed);
            if written.is_err() {
                inner.failed.fetch_add(1, Relaxed);
            }
        }
        // Nobody behind the log could do anything about it.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn lines_go_to_the_file_of_that_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = AuditFile::default();
        // Nowhere, and no failure.
        audit.make_writer().write_all(b"lost\n").unwrap();
        audit.reopen().unwrap();
        audit.open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        audit.make_writer().write_all(b"one\n").unwrap();
        let moved = dir.path().join("audit.jsonl.1");
        std::fs::rename(&path, &moved).unwrap();
        audit.make_writer().write_all(b"two\n").unwrap();
        audit.reopen().unwrap();
        audit.make_writer().write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(audit.failed(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let audit = AuditFile::default();
        assert!(audit.open(Path::new("/dev/full")).is_err());
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        *audit.lock() = Some((PathBuf::from("/dev/full"), full));
        audit.make_writer().write_all(b"line\n").unwrap();
        assert_eq!(audit.failed(), 1);
        assert!(audit.0.torn.load(Relaxed));
        let nowhere = Path::new("/nonexistent/audit.jsonl");
        assert!(audit.open(nowhere).is_err());
    }
}
