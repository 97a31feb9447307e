//! Uploads in motion: opening, appending, finishing, cancelling, mounting.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tracing::debug;

use super::sessions::{Owner, Progress, Turn};
use super::upload::{Offer, Plan, plan};
use super::{Error, Local};
use crate::body::Chunks;
use crate::clock;
use crate::oci::{Algorithm, Digest, Name};
use crate::store::{Change, Hold, Keep};

/// How much is written and hashed at a time, while the next comes in.
const BATCH: usize = 1 << 20;

/// What came of the wire in one go.
struct Batch {
    chunks: Vec<Bytes>,
    bytes: u64,
    end: Option<Result<(), Error>>,
}

impl Local {
    /// Opens an upload for `subject`; answers its id.
    pub async fn open_upload(
        &self,
        name: &Name,
        subject: &str,
        algorithm: Algorithm,
    ) -> Result<String, Error> {
        let owner = Owner::new(&self.key, name, subject);
        let sessions = &self.shared.inner.sessions;
        sessions.open(self.store(), owner, algorithm).await
    }

    /// How many bytes an upload holds.
    pub fn upload_held(&self, name: &Name, subject: &str, id: &str) -> Result<u64, Error> {
        let owner = Owner::new(&self.key, name, subject);
        let session = self.shared.inner.sessions.get(id, &owner)?;
        match session.turn() {
            Ok(turn) => turn
                .as_ref()
                .map(|progress| progress.file.length())
                .ok_or(Error::UploadUnknown),
            Err(Error::UploadBusy { held }) => Ok(held),
            Err(error) => Err(error),
        }
    }

    /// Appends a body; answers how many bytes the upload holds then.
    pub async fn append(
        &self,
        (name, subject, id): (&Name, &str, &str),
        offer: &Offer,
        body: Chunks,
    ) -> Result<u64, Error> {
        let owner = Owner::new(&self.key, name, subject);
        let session = self.shared.inner.sessions.get(id, &owner)?;
        let mut turn = session.turn()?;
        let progress = turn.as_mut().ok_or(Error::UploadUnknown)?;
        let done = receive(progress, offer, body, false).await;
        session.note_held(progress.file.length());
        done?;
        Ok(progress.file.length())
    }

    /// Appends what is left, compares the whole with `digest`, and makes it a blob of the image, durably.
    ///
    /// Where that fails the upload stands where it stood, so that the client can go on or look what is there.
    pub async fn finish(
        &self,
        (name, subject, id): (&Name, &str, &str),
        digest: &Digest,
        offer: &Offer,
        body: Chunks,
    ) -> Result<(), Error> {
        let owner = Owner::new(&self.key, name, subject);
        let sessions = &self.shared.inner.sessions;
        let session = sessions.get(id, &owner)?;
        let mut turn = session.turn()?;
        let checked = Self::complete(&mut turn, digest, offer, body).await;
        if let Some(progress) = turn.as_ref() {
            session.note_held(progress.file.length());
        }
        checked?;
        let progress = turn.take().ok_or(Error::UploadUnknown)?;
        sessions.remove(id);
        let hold = self.store().hold(digest);
        progress.file.publish(&hold).await?;
        self.link(name, digest, hold).await
    }

    async fn complete(
        turn: &mut Turn,
        digest: &Digest,
        offer: &Offer,
        body: Chunks,
    ) -> Result<(), Error> {
        let progress = turn.as_mut().ok_or(Error::UploadUnknown)?;
        let (length, before) = (progress.file.length(), progress.hasher.clone());
        receive(progress, offer, body, true).await?;
        let running = progress
            .hasher
            .clone()
            .filter(|hasher| hasher.algorithm() == digest.algorithm());
        let found = match running {
            Some(hasher) => hasher.finish(),
            None => progress.file.hash(digest.algorithm()).await?.finish(),
        };
        if found == *digest {
            return Ok(());
        }
        progress.file.truncate(length).await?;
        progress.hasher = before;
        Err(Error::Digest { found })
    }

    /// Gives an upload up.
    pub async fn cancel(&self, name: &Name, subject: &str, id: &str) -> Result<(), Error> {
        let owner = Owner::new(&self.key, name, subject);
        let sessions = &self.shared.inner.sessions;
        let session = sessions.get(id, &owner)?;
        let mut turn = session.turn()?;
        sessions.remove(id);
        if let Some(progress) = turn.take() {
            progress.file.discard().await;
        }
        Ok(())
    }

    /// Lets `name` read a blob that `source` may read, here or in another local repository. No byte moves. False where `source` may not.
    pub async fn mount(
        &self,
        name: &Name,
        digest: &Digest,
        source: (&Self, &Name),
    ) -> Result<bool, Error> {
        let (local, from) = source;
        let hold = self.store().hold(digest);
        if local.open_blob(from, digest).await.is_err() {
            return Ok(false);
        }
        self.link(name, digest, hold).await?;
        Ok(true)
    }

    /// The images of local repositories that may read a blob: repository key, image name.
    pub async fn holders(&self, digest: &Digest) -> Result<Vec<(String, String)>, Error> {
        Ok(self.store().index().local_holders(digest).await?)
    }

    async fn link(&self, name: &Name, digest: &Digest, hold: Hold) -> Result<(), Error> {
        self.shared.inner.touched.note(&self.key, name, digest);
        let entered = self.enter().await?;
        let change = Change::link_blob(&self.key, name, digest, clock::now());
        let keep: Vec<Keep> = vec![Arc::new((hold, entered))];
        Ok(self
            .store()
            .commit_keeping(vec![(change, None)], keep)
            .await?)
    }
}

/// Takes a body in. What fails leaves the upload as it was, but for a stream that broke off: of that, what has come stays.
async fn receive(
    progress: &mut Progress,
    offer: &Offer,
    mut body: Chunks,
    is_last: bool,
) -> Result<(), Error> {
    let start = progress.file.length();
    let mut plan = plan(start, offer)?;
    plan.all_or_nothing |= is_last;
    let before = progress.hasher.clone();
    let done = transfer(progress, plan, start, &mut body).await;
    if let Err(error) = &done {
        let broke_off = matches!(error, Error::Body(_));
        debug!(%error, id = progress.file.id(), "an upload's body was not taken");
        if plan.all_or_nothing || !broke_off {
            progress.file.truncate(start).await?;
            progress.hasher = before;
        }
    }
    done
}

async fn transfer(
    progress: &mut Progress,
    plan: Plan,
    start: u64,
    body: &mut Chunks,
) -> Result<(), Error> {
    let mut received = 0;
    let mut batch = gather(body).await;
    loop {
        received += batch.bytes;
        plan.allows(start, received)?;
        if let Some(end) = batch.end {
            write(progress, batch.chunks).await?;
            end?;
            return plan.ends(received);
        }
        // The next comes in while this is written.
        let (written, next) = tokio::join!(write(progress, batch.chunks), gather(body));
        written?;
        batch = next;
    }
}

async fn write(progress: &mut Progress, chunks: Vec<Bytes>) -> Result<(), Error> {
    if chunks.is_empty() {
        return Ok(());
    }
    let spare = progress.hasher.clone();
    match progress.file.append(chunks, progress.hasher.take()).await {
        Ok(hasher) => {
            progress.hasher = hasher;
            Ok(())
        }
        Err(error) => {
            progress.hasher = spare;
            Err(error.into())
        }
    }
}

async fn gather(body: &mut Chunks) -> Batch {
    let mut batch = Batch {
        chunks: Vec::new(),
        bytes: 0,
        end: None,
    };
    while batch.bytes < BATCH as u64 {
        match body.next().await {
            Some(Ok(chunk)) => {
                batch.bytes += chunk.len() as u64;
                batch.chunks.push(chunk);
            }
            Some(Err(error)) => {
                batch.end = Some(Err(Error::Body(error.to_string())));
                break;
            }
            None => {
                batch.end = Some(Ok(()));
                break;
            }
        }
    }
    batch
}
