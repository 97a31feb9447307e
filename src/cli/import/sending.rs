//! Sends blobs of bundles to the process that has the store.

use std::collections::HashMap;
use std::io::{self, Read};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::bundle::{Archive, Bundle, explain};
use crate::bundle::archive::Reader;
use crate::bundle::archive::reader::{Event as Read_, Options};
use crate::bundle::progress::Progress;
use crate::cli::owner::{self, Owner};
use crate::oci::Digest;

/// How much is sent at once.
const CHUNK: usize = 256 * 1024;
/// How many of them wait for the other end.
const CHUNKS: usize = 4;

/// What has to be sent, as `POST /admin/import` answers it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    pub(super) wanted: Vec<Wanted>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    pub(super) digest: String,
    pub(super) size: u64,
    local: bool,
}

/// What sends blobs; it blocks.
pub(super) struct Sending {
    pub(super) owner: Owner,
    pub(super) runtime: Handle,
    /// What is still to be sent.
    pub(super) wanted: HashMap<String, Wanted>,
    pub(super) options: Options,
    pub(super) progress: Progress,
    pub(super) alive: owner::Alive,
}

impl Sending {
    pub(super) fn all(mut self, bundles: Vec<Bundle>) -> anyhow::Result<()> {
        for bundle in bundles {
            let path = bundle.path.clone();
            self.bundle(bundle)
                .map_err(|error| explain(&path, error))
                .with_context(|| format!("{}: nothing of it was imported", path.display()))?;
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
