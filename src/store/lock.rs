//! One process per data directory: an advisory lock that the kernel lets go of when its owner dies, however it dies.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tracing::warn;

use super::OpenError;

/// A program that the last owner was about to start has the lock until it runs, so a little patience is due.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// Process ids have at most this many digits; more in the file is noise.
const PID_DIGITS: u64 = 20;

/// Takes the lock or names the process that has it.
pub(super) fn take(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
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
                pid: owner(&mut file),
            });
        }
        Err(errno) => return Err(at(errno.into())),
    }
    // The lock is held; the number is only for whoever comes second, and a full disk must not stop a start.
    let noted = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        warn!(%error, "cannot write the process id into the lock file");
    }
    Ok(file)
}

/// What the file says of its owner; it may be caught between taking the lock and writing.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(PID_DIGITS).read_to_string(&mut text) {
        Ok(_) if text.trim().parse::<u32>().is_ok() => text.trim().to_owned(),
        Ok(_) | Err(_) => "?".to_owned(),
    }
}
