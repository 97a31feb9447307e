//! Images that wait for content of bundles that have not come yet: written down in the data directory, one file for each meaning of a name in a repository.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::archive::ImageRef;
use crate::clock::Wall;
use crate::oci::Digest;

/// Where.
const DIRECTORY: &str = "waiting";
/// The most images that wait; another one is refused its place, and said.
pub(super) const WAITING_MAX: usize = 4096;
/// What stands behind a name until the file is on the disk.
const PARTIAL: &str = "partial";
/// The longest file: an image of a hundred thousand pieces.
const FILE_MAX: u64 = 16 << 20;

/// An image that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The key of the repository that gets it.
    pub(super) repository: String,
    pub(super) image: ImageRef,
    pub(super) digest: Digest,
    /// All that it needs, with sizes.
    pub(super) needs: Vec<(Digest, u64)>,
    pub(super) keep_tags: bool,
    /// Whether it may move a tag.
    pub(super) moves: bool,
    /// Since when. A tag that was set after it stays what it is.
    pub(super) at: Wall,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    repository: String,
    image: String,
    digest: String,
    needs: Vec<(String, u64)>,
    keep_tags: bool,
    moves: bool,
    at: i64,
}

impl Waiting {
    /// The file that says it.
    fn file(&self) -> String {
        let place = format!("{}\n{}\n{}", self.repository, self.image, self.digest);
        Digest::of(place.as_bytes()).hex().to_owned()
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        let read = File::open(path)?
            .take(FILE_MAX + 1)
            .read_to_end(&mut text)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > FILE_MAX {
            return Err(io::Error::other("it is too long"));
        }
        let written: Written = serde_json::from_slice(&text)?;
        let digest = |text: &str| Digest::parse(text).map_err(io::Error::other);
        let needs = written.needs.iter();
        Ok(Self {
            repository: written.repository,
            image: ImageRef::parse(&written.image).map_err(io::Error::other)?,
            digest: digest(&written.digest)?,
            needs: needs
                .map(|(text, size)| Ok((digest(text)?, *size)))
                .collect::<io::Result<_>>()?,
            keep_tags: written.keep_tags,
            moves: written.moves,
            at: Wall::from_ms(written.at),
        })
    }

    fn to_text(&self) -> io::Result<Vec<u8>> {
        let needs = self.needs.iter();
        Ok(serde_json::to_vec(&Written {
            repository: self.repository.clone(),
            image: self.image.to_string(),
            digest: self.digest.to_string(),
            needs: needs
                .map(|(digest, size)| (digest.to_string(), *size))
                .collect(),
            keep_tags: self.keep_tags,
            moves: self.moves,
            at: self.at.as_ms(),
        })?)
    }
}

/// All that waits, the oldest first. A file that cannot be read is left where it is, and said; what a crash left of one goes.
pub(super) async fn load(root: &Path) -> io::Result<Vec<Waiting>> {
    let directory = root.join(DIRECTORY);
    blocking(move || {
        let mut found = Vec::new();
        for path in files(&directory)? {
            if path.extension().is_some_and(|found| found == PARTIAL) {
                fs::remove_file(&path)?;
                continue;
            }
            match Waiting::read(&path) {
                Ok(waiting) => found.push(waiting),
                Err(error) => {
                    warn!(path = %path.display(), %error, "what waits for a bundle cannot be read");
                }
            }
        }
        found.sort_by_key(|one: &Waiting| one.at);
        Ok(found)
    })
    .await
}

/// Writes down what waits, durably, then forgets what does not any more. Of images for which there is no place no more is written than said.
pub(super) async fn update(
    root: &Path,
    waits: Vec<Waiting>,
    no_more: Vec<Waiting>,
) -> io::Result<()> {
    let directory = root.join(DIRECTORY);
    blocking(move || {
        if waits.is_empty() && no_more.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&directory)?;
        let mut count = files(&directory)?.len();
        let mut written = Vec::new();
        for one in &waits {
            let path = directory.join(one.file());
            let is_new = !path.exists();
            if is_new && count >= WAITING_MAX {
                warn!(image = %one.image, most = WAITING_MAX, "too many images wait for bundles; this one has to be imported again");
                continue;
            }
            count += usize::from(is_new);
            put(&path, &one.to_text()?)?;
            written.push(one.file());
        }
        for one in no_more {
            if written.contains(&one.file()) {
                continue;
            }
            match fs::remove_file(directory.join(one.file())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(&directory)?.sync_all()
    })
    .await
}

fn put(path: &Path, text: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(PARTIAL);
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _may_not_be_there = fs::remove_file(&partial);
    }
    written
}

/// The files, in one order.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(image: &str, meaning: &[u8]) -> Waiting {
        Waiting {
            repository: "prod".to_owned(),
            image: ImageRef::parse(image).unwrap(),
            digest: Digest::of(meaning),
            needs: vec![(Digest::of(meaning), 8)],
            keep_tags: true,
            moves: true,
            at: Wall::from_ms(7),
        }
    }

    #[tokio::test]
    async fn what_waits_is_there_until_it_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        assert!(load(root.path()).await.unwrap().is_empty());
        let (first, other) = (
            one("docker.io/library/a:1", b"1"),
            one("docker.io/library/b:1", b"1"),
        );
        update(root.path(), vec![first.clone(), other.clone()], Vec::new())
            .await
            .unwrap();
        let later = Waiting {
            at: Wall::from_ms(9),
            ..one("docker.io/library/a:1", b"2")
        };
        update(root.path(), vec![later.clone()], vec![first])
            .await
            .unwrap();
        let directory = root.path().join(DIRECTORY);
        fs::write(directory.join("broken"), "{").unwrap();
        fs::write(directory.join("left.partial"), "{").unwrap();
        let all = load(root.path()).await.unwrap();
        assert_eq!(all, [other.clone(), later.clone()]);
        // What is broken stays for somebody to look at; what a crash left does not.
        assert!(directory.join("broken").exists() && !directory.join("left.partial").exists());
        for _again in 0..2 {
            update(root.path(), Vec::new(), vec![later.clone()])
                .await
                .unwrap();
        }
        assert_eq!(load(root.path()).await.unwrap(), [other]);
    }

    #[tokio::test]
    async fn there_is_a_bound() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(DIRECTORY);
        fs::create_dir(&directory).unwrap();
        for number in 0..WAITING_MAX {
            fs::write(directory.join(number.to_string()), "").unwrap();
        }
        let late = one("docker.io/library/a:1", b"1");
        update(root.path(), vec![late], Vec::new()).await.unwrap();
        assert_eq!(files(&directory).unwrap().len(), WAITING_MAX);
    }
}
