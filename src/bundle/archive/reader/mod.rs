//! Reads an archive of images from a stream or a directory, whoever wrote it: a bundle, an OCI image layout (skopeo, podman, hauler), `docker save` of any age.
//!
//! A pull of events: what is known in front, each blob with a reader, and at the end the images. Blobs are verified here: the read
//! that would give the last bytes of a wrong one fails instead, and so does everything behind it. No name of an entry is ever a path; each is compared with
//! the few that there may be. Nothing that was read counts before [`Event::End`]: only then is it known that the archive
//! was whole.
//!
//! In archives of `docker save` the layers come before anybody knows what they are layers of: they have to be kept, and the images are told at the
//! end.

mod event;
mod trouble;

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::Path;

use self::trouble::Trouble;
use super::compression::Decoder;
use super::contents::{CONTENTS_MAX, Contents};
use super::directory::Directory;
use super::docker::{MANIFEST_JSON_MAX, Packed, Passed};
use super::entries::{Entries, Entry};
use super::header::Kind;
use super::index::{self, INDEX_MAX, LAYOUT_MAX, Listed};
use super::ledger::{Ledger, Summary};
use super::names::{self, EntryName};
use super::refusal::{ReadError, Refusal};
use super::signature::{self, SIGNATURE_MAX};
use crate::cache::PublicKey;
use crate::oci::manifest::MANIFEST_MAX;
use crate::oci::{Algorithm, Digest, Hasher};

pub use event::{Blob, Event};

/// The most bytes of all blobs together, if nobody says less: 16 TiB.
pub const BYTES_MAX: u64 = 1 << 44;
/// The most bytes of a file of `docker save` that nobody needs.
const LEGACY_MAX: u64 = 4 * 1024 * 1024;
/// How many bytes tell how a layer is compressed.
const MAGIC: usize = 4;
/// How many bytes are read at once of what nobody wants.
const CHUNK: usize = 64 * 1024;

/// What is asked of an archive.
#[derive(Debug, Clone)]
pub struct Options {
    /// A key that must have signed it. Nothing but `oci-layout` is taken before the signature was found right.
    pub verify_key: Option<PublicKey>,
    /// The most bytes of all blobs together, judged by what the headers say before a blob is read.
    pub most_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            verify_key: None,
            most_bytes: BYTES_MAX,
        }
    }
}

enum Source<R: Read> {
    Stream(Entries<Decoder<R>>),
    Directory(Directory),
}

/// A blob under way.
struct Open {
    entry: Entry,
    /// Its name, by which `docker save` refers to it.
    name: String,
    expected: Option<Digest>,
    /// None where whoever takes the bytes verifies them.
    hasher: Option<Hasher>,
    left: u64,
    /// Its first bytes, and all of them where it may be a manifest or a config.
    kept: Vec<u8>,
    keeps_all: bool,
}

/// An archive under way.
pub struct Reader<R: Read> {
    source: Source<R>,
    options: Options,
    ledger: Ledger,
    /// The bare names that were there, so that none comes twice.
    names: HashSet<String>,
    bytes: u64,
    open: Option<Open>,
    /// The digest of the blob that was read last.
    ended: Option<Digest>,
    /// A table that waits for its signature.
    unsigned: Option<Vec<u8>>,
    has_ended: bool,
    /// Why nothing more is given.
    failure: Option<Box<Refusal>>,
}

/// What one entry brought.
enum Step {
    Nothing,
    Contents,
    Index(Vec<Listed>),
    Blob,
}

impl Reader<io::Empty> {
    /// An OCI image layout in a directory. Files by names that a layout does not have are passed over.
    pub fn open_directory(path: &Path, options: Options) -> Result<Self, ReadError> {
        Ok(Self::with(
            Source::Directory(Directory::open(path)?),
            options,
        ))
    }
}

impl<R: Read> Reader<R> {
    /// A tar stream, plain or compressed by gzip or zstd, which is found out here.
    pub fn open(input: R, options: Options) -> Result<Self, ReadError> {
        let decoder = Decoder::new(input).map_err(|cause| ReadError::Io { at: 0, cause })?;
        Ok(Self::with(Source::Stream(Entries::new(decoder)), options))
    }

    fn with(source: Source<R>, options: Options) -> Self {
        Self {
            source,
            options,
            ledger: Ledger::default(),
            names: HashSet::new(),
            bytes: 0,
            open: None,
            ended: None,
            unsigned: None,
            has_ended: false,
            failure: None,
        }
    }

    /// What comes next; `None` behind the end. After an error there is nothing but errors.
    #[expect(
        clippy::should_implement_trait,
        reason = "an event borrows the reader, which no iterator can say"
    )]
    pub fn next(&mut self) -> Result<Option<Event<'_, R>>, ReadError> {
        if self.has_ended {
            return Ok(None);
        }
        let step = self.step();
        let Some(step) = self.remember(step)? else {
            let summary = self.end();
            let summary = self.remember(summary)?;
            self.has_ended = true;
            return Ok(Some(Event::End(summary)));
        };
        Ok(match step {
            Step::Nothing => None,
            Step::Contents => self.ledger.contents.as_ref().map(Event::Contents),
            Step::Index(listed) => Some(Event::Index(listed)),
            Step::Blob => {
                let open = self.open.as_ref();
                let digest = open.and_then(|open| open.expected.clone());
                let size = open.map_or(0, |open| open.left);
                Some(Event::Blob(Blob {
                    reader: self,
                    digest,
                    size,
                }))
            }
        })
    }

    /// The next entry that means something, `None` behind the last.
    fn step(&mut self) -> Result<Option<Step>, ReadError> {
        self.finish_blob()?;
        loop {
            let entry = match &mut self.source {
                Source::Stream(entries) => entries.next()?,
                Source::Directory(directory) => directory.next()?,
            };
            let Some(entry) = entry else {
                return Ok(None);
            };
            let refused = |why: String| Refusal::error(Some(&entry.name), entry.at, why);
            match self.take(&entry).map_err(|error| error.at(refused))? {
                Step::Nothing => {}
                step @ (Step::Contents | Step::Index(_) | Step::Blob) => return Ok(Some(step)),
            }
        }
    }

    fn take(&mut self, entry: &Entry) -> Result<Step, Trouble> {
        let name = names::bare(&entry.name);
        if entry.kind == Kind::Directory {
            return if names::is_directory(name) {
                Ok(Step::Nothing)
            } else {
                Err("no directory of an archive of images is called so".into())
            };
        }
        let meaning = if entry.kind == Kind::Symlink {
            let target = names::link_target(name, &entry.target)
                .ok_or("it is a link, and only regular files belong into a bundle")?;
            self.ledger.docker.linked(name, target);
            EntryName::Legacy
        } else {
            names::of_file(name).ok_or("no file of an archive of images is called so")?
        };
        if !self.names.insert(name.to_owned()) {
            return Err("it is there twice".into());
        }
        self.insist_on_signature(&meaning)?;
        match meaning {
            EntryName::Layout => {
                let bytes = self.small(entry, LAYOUT_MAX)?;
                index::check_layout(&bytes).map_err(|error| error.to_string())?;
                self.ledger.has_layout = true;
                Ok(Step::Nothing)
            }
            EntryName::Contents => self.contents(entry),
            EntryName::Signature => self.signature(entry),
            EntryName::Index => {
                let bytes = self.small(entry, INDEX_MAX)?;
                let listed = index::parse(&bytes).map_err(|error| error.to_string())?;
                // What is signed is the table, and other programs read the index: it has to be the one that follows from the table.
                if let Some(contents) = &self.ledger.contents {
                    let ours = index::render(contents).map_err(|error| error.to_string())?;
                    if ours != bytes {
                        return Err("it is not the index of the images in roadstead.json: one of them was changed".into());
                    }
                }
                self.ledger.indexed(listed.clone());
                Ok(Step::Index(listed))
            }
            EntryName::Manifest => {
                let most = usize::try_from(MANIFEST_JSON_MAX).unwrap_or(usize::MAX);
                let bytes = self.small(entry, most)?;
                let told = self.ledger.docker.told(&bytes);
                told.map_err(|error| error.to_string())?;
                Ok(Step::Nothing)
            }
            EntryName::Legacy => {
                if entry.size > LEGACY_MAX {
                    return Err(format!("it is longer than {LEGACY_MAX} bytes").into());
                }
                let mut chunk = vec![0; CHUNK];
                while self.read_entry(entry, &mut chunk)? > 0 {}
                Ok(Step::Nothing)
            }
            EntryName::Blob(digest)
            | EntryName::DockerConfig(digest)
            | EntryName::DockerLayer(digest) => self.blob(entry, Some(digest)),
            EntryName::NamedLayer => self.blob(entry, None),
        }
    }

    /// Where a key was given, nothing but the layout, the table and its signature may come before that was verified.
    fn insist_on_signature(&self, next: &EntryName) -> Result<(), Trouble> {
        let waits = self.options.verify_key.is_some() && self.ledger.contents.is_none();
        let in_front = matches!(
            next,
            EntryName::Layout | EntryName::Contents | EntryName::Signature
        );
        if waits && !in_front {
            return Err(UNSIGNED.into());
        }
        Ok(())
    }

    fn contents(&mut self, entry: &Entry) -> Result<Step, Trouble> {
        let bytes = self.small(entry, CONTENTS_MAX)?;
        if self.ledger.is_late() {
            return Err("it stands behind the index or blobs, so somebody packed the bundle again: unpack it, and give the directory".into());
        }
        if self.options.verify_key.is_some() {
            self.unsigned = Some(bytes);
            return Ok(Step::Nothing);
        }
        self.told(&bytes)
    }

    fn signature(&mut self, entry: &Entry) -> Result<Step, Trouble> {
        let signature = self.small(entry, SIGNATURE_MAX)?;
        let Some(key) = &self.options.verify_key else {
            return Ok(Step::Nothing);
        };
        let table = self
            .unsigned
            .take()
            .ok_or("it stands before roadstead.json")?;
        signature::verify(key, &table, &signature).map_err(|error| error.to_string())?;
        self.told(&table)
    }

    fn told(&mut self, table: &[u8]) -> Result<Step, Trouble> {
        let contents = Contents::parse(table).map_err(|error| error.to_string())?;
        self.ledger.told(contents);
        Ok(Step::Contents)
    }

    fn blob(&mut self, entry: &Entry, expected: Option<Digest>) -> Result<Step, Trouble> {
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.options.most_bytes {
            let most = self.options.most_bytes;
            return Err(format!("with it the blobs have more than {most} bytes").into());
        }
        let name = names::bare(&entry.name).to_owned();
        match &expected {
            Some(digest) if name.starts_with("blobs/") => self.ledger.expect(digest, entry.size)?,
            _ if self.ledger.contents.is_some() => {
                return Err("it is a file of docker save, which no bundle has".into());
            }
            _ => {}
        }
        let algorithm = expected
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let most = u64::try_from(MANIFEST_MAX).unwrap_or(u64::MAX);
        self.ended = None;
        self.open = Some(Open {
            entry: entry.clone(),
            name,
            expected,
            hasher: Some(algorithm.hasher()),
            left: entry.size,
            kept: Vec::new(),
            keeps_all: entry.size <= most,
        });
        Ok(Step::Blob)
    }

    fn finish_blob(&mut self) -> Result<(), ReadError> {
        let mut chunk = Vec::new();
        while self.open.is_some() {
            chunk.resize(CHUNK, 0);
            self.read_blob(&mut chunk)?;
        }
        self.check_failure()
    }

    /// Keeps the first failure, so that whoever asks on is told it again.
    fn remember<T>(&mut self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        if let Err(error) = &result {
            self.failure
                .get_or_insert_with(|| Box::new(error.to_refusal()));
        }
        result
    }

    fn check_failure(&self) -> Result<(), ReadError> {
        let failure = self.failure.clone();
        failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Reads of the open blob. It is judged with its last bytes, before they are given away.
    fn read_blob(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        self.check_failure()?;
        let Some(mut open) = self.open.take() else {
            return Ok(0);
        };
        if buffer.is_empty() && open.left > 0 {
            self.open = Some(open);
            return Ok(0);
        }
        let read = self.read_entry(&open.entry, buffer);
        let count = self.remember(read)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Some(hasher) = &mut open.hasher {
            hasher.update(bytes);
        }
        // A manifest and a config are objects; of what begins with anything else the magic is enough.
        if open.kept.is_empty() && bytes.first().is_some_and(|first| *first != b'{') {
            open.keeps_all = false;
        }
        let room = if open.keeps_all {
            usize::MAX
        } else {
            MAGIC.saturating_sub(open.kept.len())
        };
        open.kept.extend(bytes.iter().take(room));
        open.left = open
            .left
            .saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        if open.left > 0 {
            self.open = Some(open);
        } else {
            let judged = self.judge(open);
            self.remember(judged)?;
        }
        Ok(count)
    }

    fn judge(&mut self, open: Open) -> Result<(), ReadError> {
        let Open {
            entry,
            name,
            expected,
            hasher,
            kept,
            keeps_all,
            ..
        } = open;
        let refused = |why: String| Refusal::error(Some(&entry.name), entry.at, why);
        let found = hasher.map(Hasher::finish);
        let Some(digest) = found.or_else(|| expected.clone()) else {
            return Err(refused("nobody hashed it".to_owned()));
        };
        if expected.is_some_and(|expected| expected != digest) {
            return Err(refused(format!(
                "its bytes are not what it is called after, they have the digest {digest}"
            )));
        }
        let all = keeps_all.then_some(kept.as_slice());
        self.ledger.passed(&digest, all).map_err(refused)?;
        if self.ledger.contents.is_none() {
            let passed = Passed {
                digest: digest.clone(),
                size: entry.size,
                packed: Packed::of(&kept),
            };
            self.ledger.docker.passed(&name, passed);
            if let Some(bytes) = all {
                self.ledger.docker.look(&digest, bytes);
            }
        }
        self.ended = Some(digest);
        Ok(())
    }

    fn end(&mut self) -> Result<Summary, ReadError> {
        let refused = |why: &str| Refusal::error(None, self.position(), why);
        if self.options.verify_key.is_some() && self.ledger.contents.is_none() {
            return Err(refused(UNSIGNED));
        }
        self.ledger.finish().map_err(|why| refused(&why))
    }

    const fn position(&self) -> u64 {
        match &self.source {
            Source::Stream(entries) => entries.position(),
            Source::Directory(_) => 0,
        }
    }

    /// A whole file, no longer than `most`: its length is judged before memory is taken for it, and that grows with what really comes.
    fn small(&mut self, entry: &Entry, most: usize) -> Result<Vec<u8>, Trouble> {
        if usize::try_from(entry.size).map_or(true, |size| size > most) {
            return Err(format!(
                "it has {} bytes, and at most {most} are read of it",
                entry.size
            )
            .into());
        }
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; CHUNK]);
        loop {
            let count = self.read_entry(entry, &mut chunk)?;
            if count == 0 {
                return Ok(bytes);
            }
            bytes.extend(chunk.iter().take(count));
        }
    }

    fn read_entry(&mut self, entry: &Entry, buffer: &mut [u8]) -> Result<usize, ReadError> {
        match &mut self.source {
            Source::Stream(entries) => entries.read(entry, buffer),
            Source::Directory(directory) => directory.read(entry, buffer),
        }
    }
}

impl<R: Read> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("at", &self.position())
            .finish_non_exhaustive()
    }
}

const UNSIGNED: &str = "a key was given, and the bundle is not signed: roadstead.json and roadstead.json.sig must stand in front";
