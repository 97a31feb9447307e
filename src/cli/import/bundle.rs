//! The files of bundles, and what they hold.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::Arguments;
use crate::bundle::archive::contents::{Blob, Image};
use crate::bundle::archive::reader::{Event as Read_, Options};
use crate::bundle::archive::volumes::{VolumeError, Volumes};
use crate::bundle::archive::{Contents, Found, ImageRef, ReadError, Reader};
use crate::cli::inventory;
use crate::cli::owner::Refused;
use crate::oci::Digest;

/// What other tools put before the path of an archive.
const TRANSPORTS: [&str; 3] = ["oci-archive:", "docker-archive:", "oci:"];

/// An archive under way, whatever it comes from.
pub(super) enum Archive {
    Stream(Reader<Box<dyn Read + Send>>),
    Directory(Reader<io::Empty>),
}

/// A bundle of which is known what it holds.
pub(super) struct Bundle {
    pub(super) path: PathBuf,
    pub(super) contents: Contents,
    /// The rest of it, where it can be read on.
    pub(super) rest: Option<Archive>,
    /// The digests of its blobs, in their order, where it does not say them itself.
    pub(super) order: Vec<Digest>,
    /// Manifests that it does not have and that were made.
    pub(super) made: Vec<Vec<u8>>,
}

/// Opens every bundle and reads what it holds.
pub(super) async fn open(arguments: &Arguments) -> anyhow::Result<Vec<Bundle>> {
    let key = arguments.verify_key.as_deref();
    let options = Options {
        verify_key: key.map(inventory::public_key).transpose()?,
        ..Options::default()
    };
    let name = arguments.name.as_deref().map(|name| {
        ImageRef::parse_familiar(name)
            .with_context(|| format!("--name {name}: write it like docker.io/library/app:1"))
    });
    let name = name.transpose()?;
    let paths = arguments.bundles.clone();
    let read = move || {
        let all = paths.iter().map(|path| {
            Bundle::open(path, &options, name.as_ref())
                .map_err(|error| explain(path, error))
                .with_context(|| format!("cannot take {}", path.display()))
        });
        all.collect()
    };
    tokio::task::spawn_blocking(read).await?
}

impl Archive {
    pub(super) fn open(path: &Path, options: &Options) -> anyhow::Result<Self> {
        let path = plain(path);
        if path == Path::new("-") {
            let input: Box<dyn Read + Send> = Box::new(io::stdin());
            return Ok(Self::Stream(Reader::open(input, options.clone())?));
        }
        if path.is_dir() {
            return Ok(Self::Directory(Reader::open_directory(
                path,
                options.clone(),
            )?));
        }
        let input: Box<dyn Read + Send> = match volumes(path)? {
            Some(volumes) => Box::new(volumes),
            None => Box::new(File::open(path)?),
        };
        Ok(Self::Stream(Reader::open(input, options.clone())?))
    }
}

/// The volumes that a path means: one of them, their sums, or the name of the whole, where nothing is called so.
fn volumes(path: &Path) -> Result<Option<Volumes>, VolumeError> {
    let mut first = path.as_os_str().to_owned();
    first.push(".001");
    let first = PathBuf::from(first);
    let path = if path.exists() || !first.exists() {
        path
    } else {
        &first
    };
    Volumes::find(path)
}

/// Says which volume is damaged, where one is: what the archive is refused for tells nobody what to copy again.
pub(super) fn explain(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let is_about_bytes = error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        cause.is::<ReadError>()
            || io.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData)
            || cause.downcast_ref().is_some_and(Refused::is_about_bytes)
    });
    if !is_about_bytes {
        return error;
    }
    let Ok(Some(mut volumes)) = volumes(plain(path)) else {
        return error;
    };
    match io::copy(&mut volumes, &mut io::sink()) {
        Ok(_whole) => error,
        Err(damage) => damage.into(),
    }
}

/// The path, without what other tools put before it.
fn plain(path: &Path) -> &Path {
    let Some(text) = path.to_str() else {
        return path;
    };
    let stripped = TRANSPORTS.iter().find_map(|one| text.strip_prefix(one));
    stripped.map_or(path, Path::new)
}

impl Bundle {
    fn open(path: &Path, options: &Options, name: Option<&ImageRef>) -> anyhow::Result<Self> {
        let mut archive = Archive::open(path, options)?;
        let read = match &mut archive {
            Archive::Stream(reader) => Survey::of(reader, path == Path::new("-"))?,
            Archive::Directory(reader) => Survey::of(reader, false)?,
        };
        match read {
            Survey::Ours(contents) => Ok(Self {
                path: path.to_owned(),
                contents,
                rest: Some(archive),
                order: Vec::new(),
                made: Vec::new(),
            }),
            Survey::Foreign {
                images,
                sizes,
                order,
            } => Self::foreign(path, images, sizes, order, name),
        }
    }

    /// The same table for an archive that has none.
    fn foreign(
        path: &Path,
        found: Vec<Found>,
        mut sizes: HashMap<Digest, u64>,
        order: Vec<Digest>,
        name: Option<&ImageRef>,
    ) -> anyhow::Result<Self> {
        let (mut images, mut made) = (Vec::new(), Vec::new());
        let is_alone = found.len() == 1;
        let mut needed = HashSet::new();
        for one in found {
            let mut references = one.references;
            if references.is_empty() || (is_alone && name.is_some()) {
                let Some(name) = name.filter(|_| is_alone) else {
                    let said = one
                        .said
                        .map_or_else(String::new, |said| format!(" (it calls it `{said}`)"));
                    bail!(
                        "the archive has an image without a full name{said}, {}; {}",
                        one.digest,
                        if is_alone {
                            "name it with --name docker.io/library/app:1"
                        } else {
                            "--name names an image only where the archive has one"
                        }
                    );
                };
                references = vec![name.clone()];
            }
            if let Some(bytes) = one.made {
                sizes.insert(one.digest.clone(), one.size);
                made.push(bytes);
            }
            // What is had from URLs is in no archive.
            let needs: Vec<Digest> = one
                .needs
                .into_iter()
                .filter(|digest| sizes.contains_key(digest))
                .collect();
            needed.extend(needs.iter().cloned());
            for reference in references {
                images.push(Image {
                    reference,
                    digest: one.digest.clone(),
                    media_type: one.media_type.clone(),
                    size: one.size,
                    needs: needs.clone(),
                });
            }
        }
        let blobs = needed.into_iter().filter_map(|digest| {
            Some(Blob {
                size: sizes.get(&digest).copied()?,
                digest,
                media_type: None,
            })
        });
        let contents = Contents::new(images, blobs.collect(), Vec::new(), Vec::new())?;
        Ok(Self {
            path: path.to_owned(),
            contents,
            rest: None,
            order,
            made,
        })
    }
}

/// What an archive turned out to be.
enum Survey {
    /// A bundle, which says in front what it holds.
    Ours(Contents),
    /// Anything else, read to its end.
    Foreign {
        images: Vec<Found>,
        sizes: HashMap<Digest, u64>,
        order: Vec<Digest>,
    },
}

impl Survey {
    fn of<R: Read>(reader: &mut Reader<R>, once: bool) -> anyhow::Result<Self> {
        let (mut sizes, mut order) = (HashMap::new(), Vec::new());
        while let Some(event) = reader.next()? {
            match event {
                Read_::Contents(contents) => return Ok(Self::Ours(contents.clone())),
                Read_::Index(_) => {}
                Read_::Blob(_) if once => bail!(
                    "this archive does not say in front what it holds, and standard input can be read only once; give it as a file"
                ),
                Read_::Blob(blob) => {
                    let size = blob.size();
                    let digest = blob.finish()?;
                    sizes.insert(digest.clone(), size);
                    order.push(digest);
                }
                Read_::End(summary) => {
                    return Ok(Self::Foreign {
                        images: summary.images,
                        sizes,
                        order,
                    });
                }
            }
        }
        bail!("the archive has no end")
    }
}
