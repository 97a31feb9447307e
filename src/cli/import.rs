//! `roadstead import`

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::owner::{self, Here, Owner};
use super::progress::{Shown, bytes_shown};
use super::{FAILED, inventory, output};
use crate::bundle::archive::contents::{Blob, Image};
use crate::bundle::archive::reader::{Event as Read_, Options};
use crate::bundle::archive::volumes::Volumes;
use crate::bundle::archive::{Contents, Found, ImageRef, Reader};
use crate::bundle::import::Order;
use crate::bundle::progress::{Event, Progress};
use crate::oci::Digest;

/// How much is sent at once.
const CHUNK: usize = 256 * 1024;
/// How many of them wait for the other end.
const CHUNKS: usize = 4;
/// What other tools put before the path of an archive.
const TRANSPORTS: [&str; 3] = ["oci-archive:", "docker-archive:", "oci:"];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Bundles: files, any one of their volumes, directories with an OCI image layout, or archives of docker save, skopeo, podman; - reads a
    /// bundle from standard input
    #[arg(value_name = "BUNDLE", required = true)]
    bundles: Vec<PathBuf>,
    /// The repository that gets the images, instead of the remotes that serve their hosts
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    /// Leave tags that are there already what they are
    #[arg(long)]
    keep_tags: bool,
    /// The bundles must be signed with the private half of this public key
    #[arg(long, value_name = "KEY")]
    verify_key: Option<PathBuf>,
    /// What to call an image that the archive gives no name, such as docker.io/library/app:1
    #[arg(long, value_name = "IMAGE")]
    name: Option<String>,
    /// Say what would come and what would be missing, and take nothing in
    #[arg(long)]
    dry_run: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    /// Data directory, instead of the configured one
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(here: Here, arguments: &Arguments) -> ExitCode {
    let here = here.on(arguments.data.as_deref());
    let done = super::block_on(async {
        // All that can be wrong with the files is found before anybody is asked for anything.
        let bundles = open(arguments).await?;
        owner::with(here, async |owner| import(owner, bundles, arguments).await).await
    });
    match done {
        Ok(report) => {
            let lines = if arguments.json {
                vec![report.to_string()]
            } else {
                lines(&report, arguments.dry_run)
            };
            for line in lines {
                output::line(&line);
            }
            if Report::is_whole(&report) {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FAILED)
            }
        }
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// An archive under way, whatever it comes from.
enum Archive {
    Stream(Reader<Box<dyn Read + Send>>),
    Directory(Reader<io::Empty>),
}

/// A bundle of which is known what it holds.
struct Bundle {
    path: PathBuf,
    contents: Contents,
    /// The rest of it, where it can be read on.
    rest: Option<Archive>,
    /// The digests of its blobs, in their order, where it does not say them itself.
    order: Vec<Digest>,
    /// Manifests that it does not have and that were made.
    made: Vec<Vec<u8>>,
}

/// Opens every bundle and reads what it holds.
async fn open(arguments: &Arguments) -> anyhow::Result<Vec<Bundle>> {
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
                .with_context(|| format!("cannot take {}", path.display()))
        });
        all.collect()
    };
    tokio::task::spawn_blocking(read).await?
}

impl Archive {
    fn open(path: &Path, options: &Options) -> anyhow::Result<Self> {
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
        let mut first = path.as_os_str().to_owned();
        first.push(".001");
        let first = PathBuf::from(first);
        // The name of the whole means its volumes.
        let path = if path.exists() || !first.exists() {
            path
        } else {
            &first
        };
        let input: Box<dyn Read + Send> = match Volumes::find(path)? {
            Some(volumes) => Box::new(volumes),
            None => Box::new(File::open(path)?),
        };
        Ok(Self::Stream(Reader::open(input, options.clone())?))
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

/// What has to be sent, as `POST /admin/import` answers it.
#[derive(Debug, Deserialize)]
struct Asked {
    wanted: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
struct Wanted {
    digest: String,
    size: u64,
    local: bool,
}

async fn import(
    owner: &Owner,
    bundles: Vec<Bundle>,
    arguments: &Arguments,
) -> anyhow::Result<Value> {
    let contents = bundles.iter().map(|bundle| {
        let text = bundle.contents.to_json()?;
        Ok(String::from_utf8(text)?)
    });
    let order = Order {
        contents: contents.collect::<anyhow::Result<_>>()?,
        to: arguments.to.clone(),
        keep_tags: arguments.keep_tags,
    };
    let mut shown = Shown::new(arguments.json, "look");
    let asked = owner
        .work("/admin/import", &order, |event| shown.take(event))
        .await;
    shown.finish();
    // While this is open nothing of it is evicted.
    let asked = asked?;
    if arguments.dry_run {
        return Ok(asked.result.clone());
    }
    let Asked { wanted } = serde_json::from_value(asked.result.clone())?;
    let mut shown = Shown::new(arguments.json, "import");
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    shown.take(&Event::Plan {
        images: bundles
            .iter()
            .map(|bundle| count(bundle.contents.images().len()))
            .sum(),
        blobs: count(wanted.len()),
        bytes: wanted.iter().map(|one| one.size).sum(),
    });
    let (progress, mut told) = Progress::new();
    let key = arguments.verify_key.as_deref();
    let sending = Sending {
        owner: owner.clone(),
        runtime: Handle::current(),
        wanted: wanted
            .into_iter()
            .map(|one| (one.digest.clone(), one))
            .collect(),
        options: Options {
            verify_key: key.map(inventory::public_key).transpose()?,
            ..Options::default()
        },
        progress,
        alive: owner::Alive::default(),
    };
    let _alive = sending.alive.guard();
    let sent = tokio::task::spawn_blocking(move || sending.all(bundles));
    while let Some(event) = told.recv().await {
        shown.take(&event);
    }
    let sent = sent
        .await
        .map_err(anyhow::Error::from)
        .and_then(|sent| sent);
    if let Err(error) = sent {
        shown.finish();
        return Err(error);
    }
    let committed = owner
        .work("/admin/import/commit", &order, |event| shown.take(event))
        .await;
    shown.finish();
    Ok(committed?.result)
}

/// What sends blobs; it blocks.
struct Sending {
    owner: Owner,
    runtime: Handle,
    /// What is still to be sent.
    wanted: HashMap<String, Wanted>,
    options: Options,
    progress: Progress,
    alive: owner::Alive,
}

impl Sending {
    fn all(mut self, bundles: Vec<Bundle>) -> anyhow::Result<()> {
        for bundle in bundles {
            let path = bundle.path.display().to_string();
            self.bundle(bundle)
                .with_context(|| format!("{path}: nothing was imported"))?;
        }
        Ok(())
    }

    fn bundle(&mut self, bundle: Bundle) -> anyhow::Result<()> {
        for manifest in bundle.made {
            let digest = Digest::of(&manifest);
            if let Some(wanted) = self.wanted.remove(&digest.to_string()) {
                self.send(&digest, &wanted, manifest.as_slice())?;
            }
        }
        let mut archive = match bundle.rest {
            Some(archive) => archive,
            None => Archive::open(&bundle.path, &self.options)?,
        };
        match &mut archive {
            Archive::Stream(reader) => self.archive(reader, &bundle.order),
            Archive::Directory(reader) => self.archive(reader, &bundle.order),
        }
    }

    fn archive<R: Read>(&mut self, reader: &mut Reader<R>, order: &[Digest]) -> anyhow::Result<()> {
        let mut order = order.iter();
        while let Some(event) = reader.next()? {
            let Read_::Blob(mut blob) = event else {
                continue;
            };
            let known = order.next().cloned();
            let Some(digest) = blob.digest().cloned().or(known) else {
                bail!("the archive is not the same as a moment ago");
            };
            // Whatever is not sent is verified all the same.
            if let Some(wanted) = self.wanted.remove(&digest.to_string()) {
                // The other end verifies what it gets; twice would be the most of the work.
                blob.verified_elsewhere();
                self.send(&digest, &wanted, &mut blob)?;
                let found = blob.finish()?;
                if found != digest {
                    bail!("the archive is not the same as a moment ago");
                }
            }
        }
        Ok(())
    }

    /// Sends one blob: this thread reads it, while the runtime's threads send.
    fn send(&self, digest: &Digest, wanted: &Wanted, mut blob: impl Read) -> anyhow::Result<()> {
        let (chunks, body) = mpsc::channel::<Result<Bytes, io::Error>>(CHUNKS);
        let (shown, mut done) = (digest.to_string(), 0_u64);
        let feed = async {
            let mut failed = None;
            loop {
                self.alive.check()?;
                let mut chunk = vec![0; CHUNK];
                let read = match blob.read(&mut chunk) {
                    Ok(read) => read,
                    Err(error) => {
                        // Cut short, so that the other end does not take it for all.
                        let _gone = chunks.send(Err(io::Error::other("cut"))).await;
                        failed = Some(error);
                        break;
                    }
                };
                if read == 0 {
                    break;
                }
                chunk.truncate(read);
                if chunks.send(Ok(chunk.into())).await.is_err() {
                    break;
                }
                done += u64::try_from(read).unwrap_or_default();
                self.progress.blob(&shown, done, wanted.size);
            }
            drop(chunks);
            match failed {
                Some(error) => Err(anyhow::Error::from(error)),
                None => Ok(()),
            }
        };
        let put = self
            .owner
            .put_content(digest, (wanted.size, wanted.local), body);
        let (fed, put) = self.runtime.block_on(async { tokio::join!(feed, put) });
        // What is wrong with the archive explains what the other end says.
        fed?;
        put.with_context(|| format!("{digest} is not taken"))
    }
}

/// What was done, as `POST /admin/import/commit` answers it.
#[derive(Debug, Deserialize)]
struct Report {
    images: Vec<Line>,
    #[serde(default)]
    wanted: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    image: String,
    digest: String,
    repository: String,
    bytes: u64,
    outcome: Option<String>,
    error: Option<String>,
    waits_for: Vec<Piece>,
}

#[derive(Debug, Deserialize)]
struct Piece {
    digest: String,
    size: u64,
}

impl Report {
    /// Whether every image is there.
    fn is_whole(report: &Value) -> bool {
        Self::deserialize(report).is_ok_and(|report| {
            report
                .images
                .iter()
                .all(|one| one.error.is_none() && one.waits_for.is_empty())
        })
    }
}

fn lines(report: &Value, dry_run: bool) -> Vec<String> {
    let Ok(Report { images, wanted }) = Report::deserialize(report) else {
        return vec![report.to_string()];
    };
    let mut lines = Vec::new();
    for one in &images {
        let waits = !one.waits_for.is_empty();
        let outcome = match (&one.outcome, &one.error) {
            (_, Some(error)) => format!("failed: {error}"),
            (Some(outcome), None) if !waits => outcome.clone(),
            _ if waits => {
                let bytes = one.waits_for.iter().map(|piece| piece.size).sum();
                format!(
                    "waits for {} blobs, {}",
                    one.waits_for.len(),
                    bytes_shown(bytes)
                )
            }
            _ => "complete".to_owned(),
        };
        lines.push(format!(
            "{}\t{}\t{}\t{}\t{outcome}",
            one.image,
            one.digest,
            one.repository,
            bytes_shown(one.bytes)
        ));
    }
    let mut missing: Vec<(&str, u64)> = images
        .iter()
        .flat_map(|one| &one.waits_for)
        .map(|piece| (piece.digest.as_str(), piece.size))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        lines.push(format!(
            "missing: {} blobs, {}; a bundle that carries them completes these images, in whatever order bundles come",
            missing.len(),
            bytes_shown(missing.iter().map(|(_, size)| size).sum())
        ));
        lines.extend(
            missing
                .iter()
                .map(|(digest, size)| format!("  {digest}\t{size} bytes")),
        );
    }
    if dry_run {
        let bytes = wanted.iter().map(|one| one.size).sum();
        lines.push(format!(
            "{} blobs, {} would come",
            wanted.len(),
            bytes_shown(bytes)
        ));
    }
    lines
}
