//! A bundle in files: one, or volumes `NAME.001`, `NAME.002`, … of a size that a medium takes, with their sums in `NAME.sha256`.
//!
//! What `cat` joins is the bundle, and `sha256sum -c` checks the volumes. Everything is written under `.partial` names and gets its own name when all of it is
//! on the disk; the sums come last, so that volumes without sums are what a crash left. A reader wants them, because the last volume
//! would not be missed otherwise.

mod input;
mod output;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

pub use input::Volumes;
pub use output::Output;

/// The most volumes: three digits, so that the order of names is the order of volumes.
pub const VOLUMES_MAX: u32 = 999;
/// The smallest size of a volume: with smaller ones the numbers run out.
pub const VOLUME_MIN: u64 = 64 * 1024;
const SUMS: &str = "sha256";

/// Why a bundle is not written or read.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// A file cannot be used.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Something stands where the bundle goes.
    #[error("{} is there already: take it away, or give the bundle another name", .0.display())]
    Exists(PathBuf),
    /// Volumes of this size are too small.
    #[error("a volume has at least {VOLUME_MIN} bytes")]
    TooSmall,
    /// There would be more than [`VOLUMES_MAX`].
    #[error("the bundle needs more than {VOLUMES_MAX} volumes: make them larger")]
    TooMany,
    /// Some are not there.
    #[error("missing: {}; put all volumes and the sums into one directory", list(.0))]
    Missing(Vec<PathBuf>),
    /// The sums are not what `sha256sum` writes about volumes.
    #[error("{}, line {line}: {what}", path.display())]
    Sums {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown = paths.iter().map(|path| path.display().to_string());
    shown.collect::<Vec<_>>().join(", ")
}

/// The name of one volume.
fn volume(base: &Path, number: u32) -> PathBuf {
    with_suffix(base, &format!(".{number:03}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn sums_of(base: &Path) -> PathBuf {
    with_suffix(base, &format!(".{SUMS}"))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    |cause| VolumeError::Io { path, cause }
}
