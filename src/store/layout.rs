//! The data directory: names, version, lock.
//!
//! `version`, `lock`, `clean`, `blobs/<alg>/<2 hex>/<hex>`, `staging/<alg>-<hex>.part`, `quarantine/`, `index.sqlite`. Paths are built from
//! parsed digests only.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};
use tracing::{info, warn};

use crate::clock::{self, Wall};
use crate::oci::{Algorithm, Digest};

/// What the `version` file of this layout says.
const VERSION: &str = "roadstead-store 1\n";
/// Parts that nobody continued for this long are removed at start.
pub(super) const PART_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read or written.
    #[error("cannot use the data directory {path}: {error}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "the data directory {path} is in use by process {owner}; stop it, or give this one another --data"
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// What the lock file says.
        owner: String,
    },
    /// It was made by another program or a later version.
    #[error(
        "{path} says \"{found}\", and this version of roadstead reads \"roadstead-store 1\"; use a newer roadstead, or another --data"
    )]
    Version {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The index cannot be made, not even anew.
    #[error("cannot make the index {path}: {error}")]
    Index {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        error: rusqlite::Error,
    },
    /// The process is stopping.
    #[error("interrupted while opening the store")]
    Interrupted,
}

/// The data directory, locked by this process.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    was_clean: bool,
    directory: File,
    /// Held for its lock.
    _lock: File,
}

impl Layout {
    pub(super) fn open(root: &Path) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io { path, error }
        };
        for directory in ["", "blobs", "staging", "quarantine"] {
            let path = root.join(directory);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        let lock = take_lock(root)?;
        let version = root.join("version");
        match fs::read_to_string(&version) {
            Ok(text) if text == VERSION => {}
            // An empty file is what a power cut leaves of a first start.
            Ok(text) if text.trim().is_empty() => {
                write_whole(&version, VERSION).map_err(at(&version))?;
            }
            Ok(text) => {
                return Err(OpenError::Version {
                    path: version,
                    found: text
                        .lines()
                        .next()
                        .unwrap_or_default()
                        .chars()
                        .take(80)
                        .collect(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_whole(&version, VERSION).map_err(at(&version))?;
            }
            Err(error) => return Err(at(&version)(error)),
        }
        let clean = root.join("clean");
        let was_clean = fs::remove_file(&clean).is_ok();
        let directory = File::open(root).map_err(at(root))?;
        Ok(Self {
            root: root.to_owned(),
            was_clean,
            directory,
            _lock: lock,
        })
    }

    /// Whether the last process closed the store.
    pub(super) const fn was_clean(&self) -> bool {
        self.was_clean
    }

    pub(super) fn mark_clean(&self) -> io::Result<()> {
        self.sync()?;
        write_whole(&self.root.join("clean"), "")
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.directory)?)
    }

    /// Free bytes on the file system.
    pub(super) fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        let shard: String = digest.hex().chars().take(2).collect();
        self.root
            .join("blobs")
            .join(digest.algorithm().as_str())
            .join(shard)
            .join(digest.hex())
    }

    pub(super) fn part(&self, digest: &Digest) -> PathBuf {
        self.root.join("staging").join(format!(
            "{}-{}.part",
            digest.algorithm().as_str(),
            digest.hex()
        ))
    }

    /// Gives a verified part its name among the blobs. Whoever was first wins; the content is the same.
    pub(super) fn publish(&self, digest: &Digest) -> io::Result<()> {
        let (from, to) = (self.part(digest), self.blob(digest));
        if let Some(shard) = to.parent() {
            fs::create_dir_all(shard)?;
        }
        match renameat_with(
            rustix::fs::CWD,
            &from,
            rustix::fs::CWD,
            &to,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => fs::remove_file(&from),
            // Not every file system knows the flag; a plain rename replaces equal content by equal content.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(&from, &to),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a damaged blob out of the way.
    pub(super) fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        let name = format!(
            "{}-{}-{}",
            digest.algorithm().as_str(),
            digest.hex(),
            clock::now().as_ms()
        );
        match fs::rename(self.blob(digest), self.root.join("quarantine").join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Every blob on disk with its length. Junk is left alone, symbolic links are not followed.
    pub(super) fn scan_blobs(&self) -> Vec<(Digest, u64, Wall)> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Ok(shards) = fs::read_dir(self.blobs().join(algorithm.as_str())) else {
                continue;
            };
            for shard in shards
                .flatten()
                .filter(|shard| shard.file_type().is_ok_and(|kind| kind.is_dir()))
            {
                let Ok(files) = fs::read_dir(shard.path()) else {
                    continue;
                };
                for file in files.flatten() {
                    let name = file.file_name();
                    let digest = name.to_str().and_then(|hex| {
                        Digest::parse(&format!("{}:{hex}", algorithm.as_str())).ok()
                    });
                    match (digest, file.metadata()) {
                        (Some(digest), Ok(metadata)) if metadata.is_file() => {
                            found.push((digest, metadata.len(), changed(&metadata)));
                        }
                        _ => warn!(path = %file.path().display(), "not a blob; ignored"),
                    }
                }
            }
        }
        found
    }

    /// The parts that an earlier process left; what is too old or no part is removed.
    pub(super) fn recover_parts(&self) -> HashMap<Digest, u64> {
        let mut parts = HashMap::new();
        let Ok(files) = fs::read_dir(self.root.join("staging")) else {
            return parts;
        };
        for file in files.flatten() {
            let name = file.file_name();
            let digest = name
                .to_str()
                .and_then(|name| name.strip_suffix(".part"))
                .and_then(|stem| stem.split_once('-'))
                .and_then(|(algorithm, hex)| Digest::parse(&format!("{algorithm}:{hex}")).ok());
            let Ok(metadata) = file.metadata() else {
                continue;
            };
            match digest {
                Some(digest)
                    if metadata.is_file()
                        && metadata.len() > 0
                        && clock::now().since(changed(&metadata)) < PART_MAX_AGE =>
                {
                    parts.insert(digest, metadata.len());
                }
                Some(_) if metadata.is_file() => {
                    if let Err(error) = fs::remove_file(file.path()) {
                        warn!(%error, path = %file.path().display(), "cannot remove an old part");
                    }
                }
                _ => warn!(path = %file.path().display(), "not a part; ignored"),
            }
        }
        if !parts.is_empty() {
            info!(parts = parts.len(), "interrupted fills can be resumed");
        }
        parts
    }
}

fn take_lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let failed = |error| OpenError::Io {
        path: path.clone(),
        error,
    };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut owner = String::new();
        // The lock is what counts; its text only tells whom to look for.
        let read = lock.read_to_string(&mut owner).is_ok() && !owner.trim().is_empty();
        return Err(OpenError::Locked {
            path: root.to_owned(),
            owner: if read {
                owner.trim().to_owned()
            } else {
                "(unknown)".to_owned()
            },
        });
    }
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(lock)
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn changed(metadata: &fs::Metadata) -> Wall {
    let since_epoch = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .unwrap_or_default();
    Wall::from_ms(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
