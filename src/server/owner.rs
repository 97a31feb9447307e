//! The socket of whoever owns the process: a Unix socket that nobody else can open, and that asks who has.
//!
//! Its mode is 0600 from the moment it is there, and each connection's credentials are looked at besides, because a mode can be changed.
//! It is made under the lock of the data directory, so a socket that is there already was left by a process that is gone.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::warn;

use crate::audit;

/// What the socket is called in its directory.
const NAME: &str = "admin.sock";
/// What begins the name of a directory that is there for a socket alone.
const APART: &str = "roadstead-";
/// The longest path that fits into an address (`sun_path`, with its NUL).
const PATH_MAX: usize = 107;
/// Connections that were not accepted yet.
const BACKLOG: u32 = 64;

/// The socket where it lies; dropping it removes it.
#[derive(Debug)]
pub(super) struct OwnerSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl OwnerSocket {
    /// Listens in `data`, or, where that has too long a name or can hold no socket, in a new directory of its own in `runtime`.
    pub(super) fn open(data: &Path, runtime: &Path) -> io::Result<Self> {
        let usual = data.join(NAME);
        let in_data = if fits(&usual) {
            listen(&usual)
        } else {
            Err(io::Error::other("its path is too long for a socket"))
        };
        match in_data {
            Ok(listener) => Ok(Self {
                listener,
                path: usual,
            }),
            Err(error) => {
                let name = format!("{APART}{}", uuid::Uuid::new_v4().simple());
                let apart = runtime.join(name);
                let path = apart.join(NAME);
                tracing::info!(%error, path = %path.display(), "the admin socket lies outside of the data directory");
                if !fits(&path) {
                    return Err(io::Error::other(format!(
                        "the path {} is too long for a socket",
                        path.display()
                    )));
                }
                fs::DirBuilder::new().mode(0o700).create(&apart)?;
                let listener = listen(&path).inspect_err(|_error| remove(&path))?;
                Ok(Self { listener, path })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection of the owner of this process, or of root; anybody else's is closed.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        loop {
            let (stream, _unnamed) = self.listener.accept().await?;
            match stream.peer_cred() {
                Ok(peer) if is_let_in(peer.uid(), rustix::process::geteuid().as_raw()) => {
                    return Ok(stream);
                }
                Ok(peer) => {
                    warn!(target: audit::TARGET, action = "access", outcome = "refused", uid = peer.uid(), pid = peer.pid(), "somebody else came to the admin socket");
                }
                Err(error) => warn!(%error, "nobody knows who came to the admin socket"),
            }
        }
    }
}

impl Drop for OwnerSocket {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a socket that a process left which is gone, if it lies in a directory of its own: nobody else would. One in the data directory
/// is replaced.
pub fn forget_socket(path: &Path) {
    let is_apart = path.file_name().is_some_and(|name| name == NAME)
        && path
            .parent()
            .and_then(Path::file_name)
            .is_some_and(|name| name.as_bytes().starts_with(APART.as_bytes()));
    if is_apart {
        remove(path);
    }
}

/// Removes a socket, and the directory that was made for it. What is no socket stays.
fn remove(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && let Err(error) = fs::remove_file(path) {
        warn!(%error, path = %path.display(), "the admin socket cannot be removed");
    }
    if let Some(apart) = path.parent()
        && apart
            .file_name()
            .is_some_and(|name| name.as_bytes().starts_with(APART.as_bytes()))
    {
        // A directory that has anything else in it is not ours to remove, and stays.
        let _not_empty = fs::remove_dir(apart);
    }
}

const fn is_let_in(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= PATH_MAX
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        // What somebody else put there is left alone.
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixSocket::new_stream()?;
    // Before it has a name: the file gets this mode, and there is no moment in which others could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(path)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_owner_and_root_are_let_in() {
        for (peer, own, let_in) in [
            (1000, 1000, true),
            (0, 1000, true),
            (1001, 1000, false),
            (1000, 0, false),
        ] {
            assert_eq!(is_let_in(peer, own), let_in, "{peer} {own}");
        }
    }

    #[tokio::test]
    async fn it_lies_in_the_data_directory_and_goes_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = OwnerSocket::open(dir.path(), Path::new("/nowhere")).unwrap();
        let path = first.path().to_owned();
        assert_eq!(path, dir.path().join("admin.sock"));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // One that a killed process left is replaced.
        std::mem::forget(first);
        let second = OwnerSocket::open(dir.path(), Path::new("/nowhere")).unwrap();
        let (client, served) = tokio::join!(UnixStream::connect(&path), second.accept());
        assert!(client.is_ok() && served.is_ok());
        drop(second);
        assert!(!path.exists());
        // What is no socket is left alone.
        fs::write(&path, "mine").unwrap();
        assert!(OwnerSocket::open(dir.path(), Path::new("/nowhere")).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn a_long_path_gets_a_directory_of_its_own() {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = dir.path().join("d".repeat(PATH_MAX));
        fs::create_dir(&data).unwrap();
        let socket = OwnerSocket::open(&data, runtime.path()).unwrap();
        let path = socket.path().to_owned();
        let apart = path.parent().unwrap().to_owned();
        assert_eq!(apart.parent(), Some(runtime.path()));
        let mode = fs::metadata(&apart).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let (client, served) = tokio::join!(UnixStream::connect(&path), socket.accept());
        assert!(client.is_ok() && served.is_ok());
        // A process that was killed leaves it to the next one.
        std::mem::forget(socket);
        forget_socket(&path);
        assert!(!apart.exists());
        // What lies elsewhere, or is no socket, is not touched.
        let other = dir.path().join("admin.sock");
        let _kept = std::os::unix::net::UnixListener::bind(&other).unwrap();
        forget_socket(&other);
        assert!(other.exists());
    }
}
