//! `roadstead export`

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::{Buf as _, Bytes};
use clap::Args;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::images::Images;
use super::owner::{self, Alive, Here, Owner};
use super::progress::Shown;
use super::{files, inventory, output};
use crate::bundle::archive::volumes::Output;
use crate::bundle::archive::writer::{self, Format};
use crate::bundle::archive::{Compression, Contents, SigningKey, write_directory};
use crate::bundle::export::Order;
use crate::bundle::progress::{Event, Progress};
use crate::config;
use crate::oci::Digest;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Arguments {
    #[command(flatten)]
    images: Images,
    /// The bundle to write: a file, - for standard output, or with --directory a directory
    #[arg(short, long, value_name = "BUNDLE")]
    output: PathBuf,
    /// What the other side has, as `roadstead inventory` wrote it there; the bundle carries only what is missing
    #[arg(long, value_name = "INVENTORY")]
    have: Option<PathBuf>,
    /// The inventory must be signed with the private half of this public key
    #[arg(long, value_name = "KEY", requires = "have")]
    verify_key: Option<PathBuf>,
    /// Write volumes of at most this size, BUNDLE.001 and so on, with their checksums in BUNDLE.sha256
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "directory")]
    split: Option<u64>,
    /// Sign the table of contents with this private key (PEM, Ed25519 or ECDSA P-256)
    #[arg(long, value_name = "KEY")]
    sign_key: Option<PathBuf>,
    /// Compress the bundle; other tools unpack it first
    #[arg(long, conflicts_with = "directory")]
    zstd: bool,
    /// Write an OCI image layout as a directory
    #[arg(long)]
    directory: bool,
    /// Say what the bundle would hold, and write nothing; what is not here yet is fetched all the same
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn size(text: &str) -> Result<u64, String> {
    config::parse_size(text).ok_or_else(|| "write 650MB, 4GiB and the like".to_owned())
}

pub(super) fn run(here: Here, arguments: &Arguments, environment: &[(String, String)]) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let plan = match Plan::read(arguments, environment) {
        Ok(plan) => plan,
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            return ExitCode::from(super::MISUSED);
        }
    };
    super::told(super::block_on(owner::with(here, async |owner| {
        export(owner, plan, arguments).await
    })))
}

/// What was read before anybody was asked for anything.
struct Plan {
    order: Order,
    key: Option<SigningKey>,
    target: Target,
}

/// Where the bundle goes.
enum Target {
    Stdout,
    Directory(PathBuf),
    File { path: PathBuf, split: Option<u64> },
    Nowhere,
}

impl Plan {
    fn read(arguments: &Arguments, environment: &[(String, String)]) -> anyhow::Result<Self> {
        let path = &arguments.output;
        let to_stdout = path == Path::new("-");
        if to_stdout && arguments.json {
            bail!(
                "the bundle goes to standard output, where --json would stand in the middle of it; name a file with -o"
            );
        }
        let target = if arguments.dry_run {
            Target::Nowhere
        } else if arguments.directory && to_stdout {
            bail!("a directory cannot go to standard output; name one with -o");
        } else if arguments.directory {
            Target::Directory(path.clone())
        } else if to_stdout && arguments.split.is_some() {
            bail!("volumes cannot go to standard output; name a file with -o");
        } else if to_stdout {
            Target::Stdout
        } else {
            Target::File {
                path: path.clone(),
                split: arguments.split,
            }
        };
        target.is_free()?;
        let verify = arguments.verify_key.as_deref();
        let verify = verify.map(inventory::public_key).transpose()?;
        let have = arguments.have.as_deref();
        let have = have
            .map(|path| inventory::read(path, verify.as_ref()))
            .transpose()?;
        Ok(Self {
            order: Order {
                asked: arguments.images.read(environment)?,
                have: have.unwrap_or_default(),
            },
            key: arguments
                .sign_key
                .as_deref()
                .map(inventory::signing_key)
                .transpose()?,
            target,
        })
    }
}

impl Target {
    /// Nothing that is there is written over; better said before anything is fetched.
    fn is_free(&self) -> anyhow::Result<()> {
        let path = match self {
            Self::Stdout | Self::Nowhere => return Ok(()),
            Self::Directory(path) | Self::File { path, .. } => path,
        };
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} is there already; name another, or remove it first",
                path.display()
            );
        }
        let parent = files::parent(path);
        if !parent.is_dir() {
            bail!("there is no directory {}", parent.display());
        }
        Ok(())
    }

    /// Whether the bundle will fit, where that can be known.
    fn has_room(&self, need: u64) -> anyhow::Result<()> {
        let (Self::Directory(path) | Self::File { path, .. }) = self else {
            return Ok(());
        };
        let parent = files::parent(path);
        let Ok(found) = rustix::fs::statvfs(parent) else {
            return Ok(());
        };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if need > free {
            bail!(
                "the bundle has {need} bytes, and {free} are free at {}; nothing was written",
                parent.display()
            );
        }
        Ok(())
    }
}

async fn export(owner: &Owner, plan: Plan, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let mut shown = Shown::new(arguments.json, "fetch");
    let worked = owner
        .work("/admin/export", &plan.order, |event| shown.take(event))
        .await;
    shown.finish();
    let worked = worked?;
    let table = worked.result.pointer("/contents").and_then(Value::as_str);
    let table = table.context("the mirror did not say what there is; is it of another version?")?;
    let contents = Contents::parse(table.as_bytes())?;
    let compression = if arguments.zstd {
        Compression::Zstd
    } else {
        Compression::None
    };
    let format = Format {
        key: plan.key.as_ref(),
        compression,
    };
    let bytes = writer::size(&contents, &format)?;
    if compression == Compression::None {
        plan.target.has_room(bytes)?;
    }
    let files = if let Target::Nowhere = plan.target {
        Vec::new()
    } else {
        let source = Source {
            owner: owner.clone(),
            runtime: Handle::current(),
            alive: Alive::default(),
        };
        let _alive = source.alive.guard();
        let (carried, key, target) = (contents.clone(), plan.key, plan.target);
        let (progress, mut lines) = Progress::new();
        let write = move || {
            let contents = carried;
            let format = Format {
                key: key.as_ref(),
                compression,
            };
            let sizes: HashMap<_, _> = contents
                .blobs()
                .iter()
                .map(|blob| (&blob.digest, blob.size))
                .collect();
            write(&contents, &format, &target, bytes, |digest| {
                let size = sizes.get(digest).copied().unwrap_or_default();
                source.open(digest, size, &progress)
            })
        };
        let mut shown = Shown::new(arguments.json, "write");
        shown.take(&plan_of(&contents));
        let written = tokio::task::spawn_blocking(write);
        while let Some(event) = lines.recv().await {
            shown.take(&event);
        }
        shown.finish();
        written.await??
    };
    // What the bundle needed may go now.
    drop(worked);
    let report = Report {
        contents: &contents,
        files: &files,
        bytes,
    };
    Ok(if arguments.json {
        vec![report.to_json().to_string()]
    } else if matches!(arguments.output.to_str(), Some("-")) {
        Vec::new()
    } else {
        report.lines()
    })
}

fn write<R: Read>(
    contents: &Contents,
    format: &Format<'_>,
    target: &Target,
    bytes: u64,
    open: impl FnMut(&Digest) -> io::Result<R>,
) -> anyhow::Result<Vec<PathBuf>> {
    match target {
        Target::Nowhere => Ok(Vec::new()),
        Target::Stdout => {
            drop(writer::write(contents, format, io::stdout().lock(), open)?);
            Ok(Vec::new())
        }
        Target::Directory(path) => {
            write_directory(contents, format, path, open)?;
            Ok(vec![path.clone()])
        }
        Target::File { path, split } => {
            let expected = (format.compression == Compression::None).then_some(bytes);
            let output = Output::create(path, *split, expected)?;
            Ok(writer::write(contents, format, output, open)?.finish()?)
        }
    }
}

/// Where blobs come from.
struct Source {
    owner: Owner,
    runtime: Handle,
    alive: Alive,
}

impl Source {
    fn open<'a>(
        &'a self,
        digest: &Digest,
        size: u64,
        progress: &'a Progress,
    ) -> io::Result<Content<'a>> {
        let body = self.runtime.block_on(self.owner.content(digest));
        Ok(Content {
            body: body.map_err(io::Error::other)?,
            source: self,
            rest: Bytes::new(),
            progress,
            digest: digest.to_string(),
            done: 0,
            size,
        })
    }
}

/// A blob that comes from the store.
struct Content<'a> {
    body: Incoming,
    source: &'a Source,
    rest: Bytes,
    progress: &'a Progress,
    digest: String,
    done: u64,
    size: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.alive.check()?;
        while self.rest.is_empty() {
            let Some(frame) = self.source.runtime.block_on(self.body.frame()) else {
                return Ok(0);
            };
            if let Ok(bytes) = frame.map_err(io::Error::other)?.into_data() {
                self.rest = bytes;
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest
            .copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        self.done += u64::try_from(count).unwrap_or_default();
        self.progress.blob(&self.digest, self.done, self.size);
        Ok(count)
    }
}

fn plan_of(contents: &Contents) -> Event {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    Event::Plan {
        images: count(contents.images().len()),
        blobs: count(contents.blobs().len()),
        bytes: contents.bytes(),
    }
}

/// What was carried out.
struct Report<'a> {
    contents: &'a Contents,
    files: &'a [PathBuf],
    bytes: u64,
}

impl Report<'_> {
    fn omitted(&self) -> u64 {
        self.contents.omitted().iter().map(|one| one.size).sum()
    }

    fn lines(&self) -> Vec<String> {
        let images = self.contents.images();
        let count = images.len();
        let mut lines: Vec<String> = images
            .map(|image| {
                let bytes: u64 = image.needs().map(|(_, size)| size).sum();
                format!("{}\t{}\t{bytes} bytes", image.reference(), image.digest())
            })
            .collect();
        let left = self.contents.omitted().len();
        lines.push(format!(
            "{count} images, {} blobs, {} bytes{}",
            self.contents.blobs().len(),
            self.contents.bytes(),
            if left > 0 {
                format!(
                    "; {left} blobs, {} bytes, are left out, because the other side has them",
                    self.omitted()
                )
            } else {
                String::new()
            }
        ));
        lines.extend(self.files.iter().map(|file| file.display().to_string()));
        lines
    }

    fn to_json(&self) -> Value {
        let images: Vec<Value> = self
            .contents
            .images()
            .map(|image| {
                json!({
                    "image": image.reference().to_string(),
                    "digest": image.digest().to_string(),
                    "bytes": image.needs().map(|(_, size)| size).sum::<u64>(),
                })
            })
            .collect();
        let files: Vec<String> = self
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        json!({
            "images": images,
            "blobs": self.contents.blobs().len(),
            "bytes": self.contents.bytes(),
            "omittedBlobs": self.contents.omitted().len(),
            "omittedBytes": self.omitted(),
            "bundleBytes": self.bytes,
            "files": files,
        })
    }
}
