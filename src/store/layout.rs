//! The data directory: where everything lies, and the only file operations on it.
//!
//! ```text
//! version                     "roadstead-store 1"
//! lock                        flock'ed; the owner's process id, and where it takes commands
//! admin.sock                  where it takes commands, as a rule; no file of the store's
//! clean                       left by a clean stop, removed by the start
//! blobs/<algorithm>/<2 hex>/<hex>
//! staging/<algorithm>-<hex>.part
//! quarantine/<algorithm>-<hex>.<stamp>
//! uploads/<uuid>              what a push session holds; <uuid>.json says whose it is
//! journal                     what local repositories hold (the one thing here that cannot be fetched again)
//! index.sqlite
//! ```
//!
//! Every path is walked component by component from held directories without following symbolic links, and built from parsed digests
//! only, so nothing outside can be reached. What does not belong here is left alone.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tracing::warn;

use super::OpenError;
use super::lock::{self, Lock};
use crate::clock::Wall;
use crate::oci::{Algorithm, Digest};

/// The layout that this program writes.
const VERSION: u32 = 1;
/// What stands before the number in the version file.
const VERSION_NAME: &str = "roadstead-store ";
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

const DIRECTORY: Mode = Mode::RWXU;
const FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The data directory, held open and locked.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    root_fd: OwnedFd,
    sha256: OwnedFd,
    sha512: OwnedFd,
    staging: OwnedFd,
    quarantine: OwnedFd,
    uploads: OwnedFd,
    lock: Mutex<Option<Lock>>,
}

/// A directory of the layout that holds plain files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Staging,
    Quarantine,
    Uploads,
}

/// What became of a rename into place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Published {
    Renamed,
    /// The name is taken.
    Taken,
}

/// A plain file that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) modified: Wall,
}

impl Layout {
    /// Makes what is missing, takes the lock.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| OpenError::Io { path, source }
        };
        std::fs::create_dir_all(path).map_err(at(path))?;
        let root = path.canonicalize().map_err(at(path))?;
        let root_fd = open_directory(rustix::fs::CWD, &root).map_err(at(&root))?;
        let lock = lock::take(&root)?;
        check_version(&root)?;
        let directory = |name: &str| make_directory(&root_fd, name).map_err(at(&root.join(name)));
        let blobs = directory("blobs")?;
        let algorithm = |algorithm: Algorithm| {
            make_directory(&blobs, algorithm.as_str())
                .map_err(at(&root.join("blobs").join(algorithm.as_str())))
        };
        let layout = Self {
            sha256: algorithm(Algorithm::Sha256)?,
            sha512: algorithm(Algorithm::Sha512)?,
            staging: directory("staging")?,
            quarantine: directory("quarantine")?,
            uploads: directory("uploads")?,
            lock: Mutex::new(Some(lock)),
            root,
            root_fd,
        };
        layout.sync_root().map_err(at(&layout.root))?;
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the owner before took commands.
    pub(super) fn left_socket(&self) -> Option<PathBuf> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_ref().and_then(|lock| lock.left.clone())
    }

    /// Writes down where commands are taken.
    pub(super) fn name_socket(&self, socket: &Path) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_mut()
            .map_or(Ok(()), |lock| lock.name_socket(socket))
    }

    /// Lets another process have the directory. Nothing is left of where commands were taken: it is over, and a directory that is carried
    /// elsewhere should name no place of this machine.
    pub(super) fn unlock(&self) {
        let lock = self
            .lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(lock) = lock {
            lock.forget();
        }
    }

    /// Opens a blob's file for reading; none where there is no plain file of that name.
    pub(super) fn open_blob(&self, digest: &Digest) -> io::Result<Option<File>> {
        let Some(shard) = absent(open_directory(self.algorithm(digest), shard(digest)))? else {
            return Ok(None);
        };
        // NONBLOCK, because opening a pipe that somebody planted would wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&shard, digest.hex(), flags, Mode::empty());
        let Some(file) = absent(opened.map(File::from).map_err(io::Error::from))? else {
            return Ok(None);
        };
        if file.metadata()?.is_file() {
            Ok(Some(file))
        } else {
            warn!(%digest, "what stands in the place of a blob is no file; it is left alone");
            Ok(None)
        }
    }

    /// Moves a file of `place` under its digest.
    pub(super) fn publish(
        &self,
        (place, staged): (Place, &str),
        digest: &Digest,
        replace: bool,
    ) -> io::Result<Published> {
        let from = self.place(place);
        let shard = make_directory(self.algorithm(digest), shard(digest))?;
        let hex = digest.hex();
        if replace {
            rustix::fs::renameat(from, staged, &shard, hex)?;
            return Ok(Published::Renamed);
        }
        match rustix::fs::renameat_with(from, staged, &shard, hex, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(Published::Renamed),
            Err(Errno::EXIST) => Ok(Published::Taken),
            // The file system does not know the flag. Nobody else writes here (the lock) and nobody else of us changes this digest
            // (its key), so looking first is as good.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                if rustix::fs::statat(&shard, hex, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                    return Ok(Published::Taken);
                }
                rustix::fs::renameat(from, staged, &shard, hex)?;
                Ok(Published::Renamed)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a blob's file; fine where there is none.
    pub(super) fn remove_blob(&self, digest: &Digest) -> io::Result<()> {
        let Some(shard) = absent(open_directory(self.algorithm(digest), shard(digest)))? else {
            return Ok(());
        };
        absent(unlink(&shard, digest.hex())).map(drop)
    }

    /// Moves a blob's file into quarantine under `name`; none where there is no such file, else its size.
    pub(super) fn quarantine_blob(&self, digest: &Digest, name: &str) -> io::Result<Option<u64>> {
        let Some(file) = self.open_blob(digest)? else {
            return Ok(None);
        };
        let size = file.metadata()?.len();
        let shard = open_directory(self.algorithm(digest), shard(digest))?;
        rustix::fs::renameat(&shard, digest.hex(), &self.quarantine, name)?;
        Ok(Some(size))
    }

    /// Opens a staged file for writing and reading; what stands there that is no plain file is an error.
    pub(super) fn open_staged(&self, name: &str) -> io::Result<File> {
        self.open_file(Place::Staging, name)
    }

    /// Opens (or makes) a plain file of `place` for writing and reading; what stands there that is none is an error.
    pub(super) fn open_file(&self, place: Place, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(self.place(place), name, flags, FILE)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the part is no plain file",
            ))
        }
    }

    /// Removes a plain file of `place`; fine where there is none.
    pub(super) fn remove(&self, place: Place, name: &str) -> io::Result<()> {
        absent(unlink(self.place(place), name)).map(drop)
    }

    /// The plain files of `place`. Everything else in it is left alone with a warning.
    pub(super) fn files(&self, place: Place) -> io::Result<Vec<Found>> {
        let directory = self.place(place);
        let mut found = Vec::new();
        for name in names(directory)? {
            let stat = rustix::fs::statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode).is_file() {
                found.push(Found {
                    name,
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    modified: Wall::from_ms(stat.st_mtime.saturating_mul(1000)),
                });
            } else {
                warn!(?place, name, "no plain file; left alone");
            }
        }
        Ok(found)
    }

    /// The digests whose files lie under a shard (two hex digits), and how many other things lie there.
    pub(super) fn shard(
        &self,
        algorithm: Algorithm,
        prefix: &str,
    ) -> io::Result<(Vec<Digest>, usize)> {
        let parent = self.of_algorithm(algorithm);
        let Some(shard) = absent(open_directory(parent, prefix))? else {
            return Ok((Vec::new(), 0));
        };
        let (mut digests, mut others) = (Vec::new(), 0);
        for name in names(&shard)? {
            match Digest::parse(&format!("{}:{name}", algorithm.as_str())) {
                Ok(digest) if name.starts_with(prefix) => digests.push(digest),
                Ok(_) | Err(_) => others += 1,
            }
        }
        Ok((digests, others))
    }

    /// Makes the name of a blob durable.
    pub(super) fn sync_name(&self, digest: &Digest) -> io::Result<()> {
        let parent = self.algorithm(digest);
        rustix::fs::fsync(open_directory(parent, shard(digest))?)?;
        Ok(rustix::fs::fsync(parent)?)
    }

    /// Opens the journal, making it where it is missing.
    pub(super) fn open_journal(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.root_fd, "journal", flags, FILE)?);
        rustix::fs::fsync(&self.root_fd)?;
        Ok(file)
    }

    /// Bytes that are free on the file system for us.
    pub(super) fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.root_fd)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Writes everything of the file system to disk: data, names, index.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root_fd)?)
    }

    /// Makes the names in the data directory itself durable.
    pub(super) fn sync_root(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.root_fd)?)
    }

    fn algorithm(&self, digest: &Digest) -> &OwnedFd {
        self.of_algorithm(digest.algorithm())
    }

    const fn of_algorithm(&self, algorithm: Algorithm) -> &OwnedFd {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => &self.sha512,
        }
    }

    const fn place(&self, place: Place) -> &OwnedFd {
        match place {
            Place::Staging => &self.staging,
            Place::Quarantine => &self.quarantine,
            Place::Uploads => &self.uploads,
        }
    }
}

/// All shards that can be: the algorithm and two hex digits.
pub(super) fn shards() -> impl Iterator<Item = (Algorithm, String)> {
    ALGORITHMS
        .into_iter()
        .flat_map(|algorithm| (0..=255_u8).map(move |byte| (algorithm, format!("{byte:02x}"))))
}

/// The name of a digest's part.
pub(super) fn part_name(digest: &Digest) -> String {
    format!("{}-{}.part", digest.algorithm().as_str(), digest.hex())
}

/// Whether a name in staging is one that fills give.
pub(super) fn is_part_name(name: &str) -> bool {
    name.strip_suffix(".part").is_some()
}

/// The digest whose part has this name.
pub(super) fn parse_part_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_suffix(".part")?.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

fn shard(digest: &Digest) -> &str {
    // A parsed digest has more than two digits, all of one byte.
    digest.hex().get(..2).unwrap_or_default()
}

fn open_directory(
    parent: impl std::os::fd::AsFd,
    name: impl rustix::path::Arg,
) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

fn make_directory(parent: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => open_directory(parent, name),
        Err(error) => Err(error.into()),
    }
}

fn unlink(parent: &OwnedFd, name: &str) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
}

/// None for a name that is not there, or where a symbolic link or a non-directory stands in the way.
fn absent<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Ok(None),
            Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => {
                warn!(%error, "something in the data directory is not what it should be; it is left alone");
                Ok(None)
            }
            Some(_) | None => Err(error),
        },
    }
}

/// The names in a directory that are text; others cannot be ours.
fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        match entry?.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) => names.push(name.to_owned()),
            Err(_) => warn!("a name in the data directory is not text; it is left alone"),
        }
    }
    Ok(names)
}

/// Refuses a layout of a newer program; writes ours where the file is missing or says nothing.
fn check_version(root: &Path) -> Result<(), OpenError> {
    let path = root.join("version");
    let at = |source: io::Error| OpenError::Io {
        path: path.clone(),
        source,
    };
    let found = match std::fs::read_to_string(&path) {
        Ok(text) => text
            .strip_prefix(VERSION_NAME)
            .and_then(|number| number.trim().parse::<u32>().ok()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData
            ) =>
        {
            None
        }
        Err(error) => return Err(at(error)),
    };
    match found {
        Some(VERSION) => Ok(()),
        Some(newer) if newer > VERSION => Err(OpenError::Newer {
            path: root.to_owned(),
            found: newer,
        }),
        Some(_) | None => {
            write_durably(root, "version", &format!("{VERSION_NAME}{VERSION}\n")).map_err(at)
        }
    }
}

/// Writes a small file whole: under another name, synced, renamed.
pub(super) fn write_durably(root: &Path, name: &str, text: &str) -> io::Result<()> {
    use std::io::Write as _;

    let temporary = root.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, root.join(name))?;
    File::open(root)?.sync_all()
}
