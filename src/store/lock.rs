//! One process per data directory: an advisory lock that the kernel lets go of when its owner dies, however it dies.
//!
//! The file says who has it: the process id, and on a second line the socket over which the owner takes commands, if it takes any. Only
//! the lock itself says whether that is still so.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tracing::warn;

use super::OpenError;

/// A program that the last owner was about to start has the lock until it runs, so a little patience is due.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// The name of the file.
const FILE: &str = "lock";
/// The most bytes of it that are looked at: a process id and a path.
const LENGTH_MAX: u64 = 8 * 1024;

/// The lock, held.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The socket that the owner before had.
    pub(super) left: Option<PathBuf>,
}

/// Who has a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The process id; "?" where the file does not say.
    pub pid: String,
    /// Where it takes commands.
    pub socket: Option<PathBuf>,
}

/// Who has a data directory now; nobody, as a rule. Blocks.
pub fn owner(data: &Path) -> io::Result<Option<Owner>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = match rustix::fs::open(data.join(FILE), flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(read(&mut file))),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the lock or names the process that has it.
pub(super) fn take(root: &Path) -> Result<Lock, OpenError> {
    let path = root.join(FILE);
    let at = |source: io::Error| OpenError::Io {
        path: path.clone(),
        source,
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    let mut file = File::from(opened.map_err(|errno| at(errno.into()))?);
    let mut locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    for _try in 0..TRIES {
        if locked != Err(Errno::WOULDBLOCK) {
            break;
        }
        std::thread::sleep(PAUSE);
        locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    match locked {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(OpenError::Locked {
                path: root.to_owned(),
                pid: read(&mut file).pid,
            });
        }
        Err(errno) => return Err(at(errno.into())),
    }
    let left = read(&mut file).socket;
    // The lock is held; the number is only for whoever comes second, and a full disk must not stop a start.
    let noted = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        warn!(%error, "cannot write the process id into the lock file");
    }
    Ok(Lock { file, left })
}

impl Lock {
    /// Writes down where commands are taken.
    pub(super) fn name_socket(&mut self, socket: &Path) -> io::Result<()> {
        let line = [socket.as_os_str().as_bytes(), b"\n"].concat();
        self.file.write_all(&line)
    }

    /// Lets go of the lock, and of what the file says.
    pub(super) fn forget(self) {
        if let Err(error) = self.file.set_len(0) {
            warn!(%error, "the lock file cannot be emptied");
        }
    }
}

/// What the file says of its owner; it may be caught between taking the lock and writing, so a line counts when it has its end.
fn read(file: &mut File) -> Owner {
    let mut bytes = Vec::new();
    let text = match file.take(LENGTH_MAX).read_to_end(&mut bytes) {
        Ok(_) => bytes.as_slice(),
        Err(_unreadable) => &[],
    };
    let mut lines = text.splitn(2, |byte| *byte == b'\n');
    let pid = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let pid = pid.filter(|pid| pid.parse::<u32>().is_ok());
    let socket = lines.next().and_then(|line| line.strip_suffix(b"\n"));
    Owner {
        pid: pid.unwrap_or("?").to_owned(),
        socket: socket.map(|path| PathBuf::from(OsStr::from_bytes(path))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_says_who_has_it_and_where_commands_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(dir.path()).unwrap(), None, "no file");
        let mut lock = take(dir.path()).unwrap();
        let pid = std::process::id().to_string();
        let mut expected = Owner { pid, socket: None };
        assert_eq!(owner(dir.path()).unwrap(), Some(expected.clone()));
        // No name that a file can have is misread.
        let socket = Path::new(OsStr::from_bytes(b"/a\nb\xff/admin.sock"));
        lock.name_socket(socket).unwrap();
        expected.socket = Some(socket.to_owned());
        assert_eq!(owner(dir.path()).unwrap(), Some(expected));
        assert!(matches!(
            take(dir.path()),
            Err(OpenError::Locked { pid, .. }) if pid == std::process::id().to_string()
        ));
        drop(lock);
        assert_eq!(
            owner(dir.path()).unwrap(),
            None,
            "what stands there is over"
        );
        // The next one learns where the last one took them, and begins with none.
        let lock = take(dir.path()).unwrap();
        assert_eq!(lock.left.as_deref(), Some(socket));
        assert_eq!(owner(dir.path()).unwrap().unwrap().socket, None);
        drop(lock);
        // A line without its end is not whole.
        fs::write(dir.path().join(FILE), "12\n/tmp/adm").unwrap();
        let lock = take(dir.path()).unwrap();
        assert_eq!(lock.left, None);
    }
}
