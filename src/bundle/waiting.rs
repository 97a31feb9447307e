//! Images that wait for content of bundles that have not come yet: written down in the data directory, one file an import.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::archive::Contents;
use crate::oci::Digest;

/// Where.
const DIRECTORY: &str = "waiting";
/// The most files; the oldest goes when there is one more.
const FILES_MAX: usize = 64;
/// What stands behind a name until the file is on the disk.
const PARTIAL: &str = ".partial";
/// The longest file: a table of contents, and a few words.
const FILE_MAX: u64 = 80 << 20;

/// Some images that wait.
#[derive(Debug)]
pub(super) struct Waiting {
    path: PathBuf,
    pub(super) contents: Contents,
    pub(super) to: Option<String>,
    pub(super) keep_tags: bool,
}

#[derive(Serialize, Deserialize)]
struct Written {
    contents: String,
    to: Option<String>,
    keep_tags: bool,
}

/// All that waits. A file that cannot be read is left where it is, and said.
pub(super) async fn load(root: &Path) -> io::Result<Vec<Waiting>> {
    let directory = root.join(DIRECTORY);
    blocking(move || {
        let mut found = Vec::new();
        for path in files(&directory)? {
            match read(&path) {
                Ok(waiting) => found.push(waiting),
                Err(error) => {
                    warn!(path = %path.display(), %error, "what waits for a bundle cannot be read");
                }
            }
        }
        Ok(found)
    })
    .await
}

/// Writes images down that wait. The same ones again are the same file.
pub(super) async fn remember(
    root: &Path,
    contents: &Contents,
    to: Option<&str>,
    keep_tags: bool,
) -> io::Result<()> {
    let directory = root.join(DIRECTORY);
    let contents = contents.to_json().map_err(io::Error::other)?;
    let written = Written {
        contents: String::from_utf8(contents).map_err(io::Error::other)?,
        to: to.map(str::to_owned),
        keep_tags,
    };
    let text = serde_json::to_vec(&written)?;
    blocking(move || {
        fs::create_dir_all(&directory)?;
        let there = files(&directory)?;
        if let Some(oldest) = there.first().filter(|_| there.len() >= FILES_MAX) {
            warn!(path = %oldest.display(), "too much waits for bundles; the oldest is forgotten");
            fs::remove_file(oldest)?;
        }
        let path = directory.join(Digest::of(&text).hex());
        let mut partial = path.clone().into_os_string();
        partial.push(PARTIAL);
        let mut file = File::create(&partial)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(&directory)?.sync_all()
    })
    .await
}

/// Forgets what waits no more.
pub(super) async fn forget(waiting: &Waiting) -> io::Result<()> {
    let path = waiting.path.clone();
    blocking(move || match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
    .await
}

/// The files, the oldest first.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().extension().is_none() && entry.file_type()?.is_file() {
            found.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn read(path: &Path) -> io::Result<Waiting> {
    let mut text = Vec::new();
    let read = File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_end(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(io::Error::other("it is too long"));
    }
    let Written {
        contents,
        to,
        keep_tags,
    } = serde_json::from_slice(&text)?;
    Ok(Waiting {
        path: path.to_owned(),
        contents: Contents::parse(contents.as_bytes()).map_err(io::Error::other)?,
        to,
        keep_tags,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::archive::ImageRef;
    use crate::bundle::archive::contents::{Image, Omitted};
    use crate::oci::MediaType;

    fn contents(number: usize) -> Contents {
        let digest = Digest::of(&number.to_le_bytes());
        let image = Image {
            reference: ImageRef::parse("docker.io/library/a:1").unwrap(),
            digest: digest.clone(),
            media_type: MediaType::parse(crate::oci::media_type::OCI_MANIFEST).unwrap(),
            size: 8,
            needs: vec![digest.clone()],
        };
        let omitted = vec![Omitted { digest, size: 8 }];
        Contents::new(vec![image], Vec::new(), omitted, Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn what_waits_is_there_until_it_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        assert!(load(root.path()).await.unwrap().is_empty());
        for _again in 0..2 {
            remember(root.path(), &contents(1), Some("prod"), true)
                .await
                .unwrap();
        }
        remember(root.path(), &contents(2), None, false)
            .await
            .unwrap();
        fs::write(root.path().join(DIRECTORY).join("broken"), "{").unwrap();
        let all = load(root.path()).await.unwrap();
        assert_eq!(all.len(), 2);
        let one = all.iter().find(|one| one.keep_tags).unwrap();
        assert_eq!(
            (one.to.as_deref(), &one.contents),
            (Some("prod"), &contents(1))
        );
        forget(one).await.unwrap();
        forget(one).await.unwrap();
        assert_eq!(load(root.path()).await.unwrap().len(), 1);
        // What is broken stays for somebody to look at.
        assert!(root.path().join(DIRECTORY).join("broken").exists());
    }

    #[tokio::test]
    async fn there_is_a_bound_and_the_oldest_goes() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..=FILES_MAX {
            remember(root.path(), &contents(number), None, false)
                .await
                .unwrap();
        }
        assert_eq!(load(root.path()).await.unwrap().len(), FILES_MAX);
    }
}
