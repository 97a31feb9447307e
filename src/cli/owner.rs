//! The process that has a store, for the commands that work on it: they ask over its admin socket, and open the store themselves where
//! nobody has it.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::{self, Told, Until};
use crate::audit::AuditFile;
use crate::body;
use crate::bundle::progress::Event;
use crate::config::Resolved;
use crate::oci::{Digest, ErrorCode};
use crate::store;
use crate::tasks::Tasks;
use crate::upstream::ProxyConfig;

/// How long one that has just been started may take until it takes commands.
const STARTS_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(50);
/// The longest answer that is read into memory.
const ANSWER_MAX: usize = 256 << 20;
/// What stands in `Host`, which every request has.
const HOST: &str = "localhost";

/// A process that takes commands.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pid: String,
    socket: PathBuf,
}

/// What a command runs with.
#[derive(Debug, Clone)]
pub(super) struct Here {
    pub(super) config: Resolved,
    pub(super) proxy: ProxyConfig,
    pub(super) audit: AuditFile,
}

impl Here {
    /// With the data directory that the command line names, if it names one.
    pub(super) fn on(mut self, data: Option<&Path>) -> Self {
        if let Some(data) = data {
            data.clone_into(&mut self.config.storage.path);
        }
        self
    }
}

/// Asks one thing of the process that has the store, or of one of our own.
pub(super) async fn ask(
    here: Here,
    method: Method,
    target: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    with(here, async |owner| owner.ask(method, target, body).await).await
}

/// Does `work` with the process that has the store; where nobody has it, with a mirror in this process that listens to nobody else, and ends
/// with the command. SIGINT and SIGTERM end both in order.
pub(super) async fn with<T>(
    here: Here,
    work: impl AsyncFnOnce(&Owner) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let data = here.config.storage.path.clone();
    if let Some(owner) = of(&data).await? {
        return unless_interrupted(work(&owner)).await;
    }
    let Here {
        mut config,
        proxy,
        audit,
    } = here;
    config.listen.clear();
    config.admin_listen = None;
    config.binds.retain_mut(|bind| {
        bind.listen = None;
        bind.host.is_some()
    });
    let stop = CancellationToken::new();
    let (ready, is_ready) = oneshot::channel();
    let told = Told {
        ready,
        stop: stop.clone(),
        last: None,
    };
    let mirror = Box::pin(app::run(
        config,
        proxy,
        (audit, super::sockets()),
        Until::Told(told),
    ));
    let command = async {
        let done = unless_interrupted(async {
            // Where it cannot start, that is the error that counts.
            is_ready.await?;
            let owner = of(&data).await?.with_context(|| {
                format!("the data directory {} takes no commands", data.display())
            })?;
            work(&owner).await
        });
        let done = done.await;
        stop.cancel();
        done
    };
    let both = async {
        let (ran, done) = tokio::join!(mirror, command);
        ran.and(done)
    };
    tokio::select! {
        done = both => done,
        () = second_signal() => Err(Interrupted.into()),
    }
}

/// Who asks twice does not wait for an end in order.
async fn second_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// The first signal ends the work, and everything that waits for it.
async fn unless_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        // What is done is done, even if the signal came in the same moment.
        biased;
        done = work => done,
        _ = terminate.recv() => Err(Interrupted.into()),
        _ = interrupt.recv() => Err(Interrupted.into()),
    }
}

/// By this a thread that blocks learns that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Alive(CancellationToken);

impl Alive {
    /// Whoever waits holds this.
    pub(super) fn guard(&self) -> DropGuard {
        self.0.clone().drop_guard()
    }

    /// An error as soon as nobody waits.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.0.is_cancelled() {
            Err(io::Error::other("nobody waits for it any more"))
        } else {
            Ok(())
        }
    }
}

/// The command was ended by a signal.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; run the same command again to go on")]
pub(super) struct Interrupted;

/// The process that has the store does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    code: String,
    message: String,
}

impl Refused {
    /// Whether what it was sent is not what it was said to be.
    pub(super) fn is_about_bytes(&self) -> bool {
        self.code == ErrorCode::DigestInvalid.as_str()
    }
}

/// Work that was done.
#[derive(Debug)]
pub(super) struct Worked {
    pub(super) result: Value,
    /// While this is open, the other end keeps what the work was about.
    _rest: Incoming,
}

/// Who has the store in `data`; nobody where the command may open it itself. Waits for one that is starting.
pub(super) async fn of(data: &Path) -> anyhow::Result<Option<Owner>> {
    let begun = Instant::now();
    loop {
        match store::owner(data).with_context(|| unreadable(data))? {
            None => return Ok(None),
            Some(store::Owner {
                pid,
                socket: Some(socket),
            }) => return Ok(Some(Owner { pid, socket })),
            Some(store::Owner { pid, socket: None }) if begun.elapsed() >= STARTS_WITHIN => bail!(
                "the data directory {} is in use by process {pid}, which takes no commands; wait until it has ended, or stop it",
                data.display()
            ),
            Some(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The same, at once, for commands that can do without.
pub(super) fn at_once(data: &Path) -> anyhow::Result<Option<Owner>> {
    let owner = store::owner(data).with_context(|| unreadable(data))?;
    Ok(owner.and_then(|owner| {
        Some(Owner {
            pid: owner.pid,
            socket: owner.socket?,
        })
    }))
}

fn unreadable(data: &Path) -> String {
    format!(
        "cannot see who uses the data directory {}; run this as the user that the mirror runs as",
        data.display()
    )
}

impl Owner {
    /// Its process id, as far as it is known.
    pub(super) fn pid(&self) -> &str {
        &self.pid
    }

    /// Sends a command and reads its answer, which is JSON or nothing; a refusal is an error that says why.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let answer = self.read(method, target, body).await?;
        match answer.as_ref() {
            [] => Ok(Value::Null),
            text => serde_json::from_slice(text).with_context(|| {
                format!("process {} did not answer with what was expected", self.pid)
            }),
        }
    }

    /// The same for an answer in any form.
    pub(super) async fn read(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, HOST);
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let response = self.send(request.body(Full::new(body))?).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let answer = body::whole(body::chunks(response.into_body()), ANSWER_MAX).await;
        answer.with_context(|| self.silent())
    }

    /// Has work done that takes its time, and tells `line` how it goes. What it holds is let go when the answer is dropped.
    pub(super) async fn work(
        &self,
        target: &str,
        body: &impl Serialize,
        mut line: impl FnMut(&Event),
    ) -> anyhow::Result<Worked> {
        let body = Full::new(Bytes::from(serde_json::to_vec(body)?));
        let request = Request::post(target)
            .header(header::HOST, HOST)
            .body(body)?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let mut rest = response.into_body();
        let (mut text, mut looked): (Vec<u8>, usize) = (Vec::new(), 0);
        loop {
            let new = |text: &[u8], looked: usize| {
                let rest = text.get(looked..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == b'\n');
                end.map(|end| looked + end)
            };
            while let Some(end) = new(&text, looked) {
                looked = 0;
                let event: Event = serde_json::from_slice(text.get(..end).unwrap_or_default())?;
                text.drain(..=end);
                match event {
                    Event::Done { result } => {
                        return Ok(Worked {
                            result,
                            _rest: rest,
                        });
                    }
                    Event::Failed { error } => bail!("{error}"),
                    event @ (Event::Plan { .. }
                    | Event::Looking { .. }
                    | Event::Blob { .. }
                    | Event::Image { .. }
                    | Event::Waiting { .. }
                    | Event::Trouble { .. }) => line(&event),
                }
            }
            looked = text.len();
            let Some(frame) = rest.frame().await else {
                bail!("{}", self.silent());
            };
            let frame = frame.with_context(|| self.silent())?;
            if let Some(bytes) = frame.data_ref() {
                text.extend_from_slice(bytes);
            }
            if text.len() > ANSWER_MAX {
                bail!("process {} tells more than can be taken in", self.pid);
            }
        }
    }

    /// What the store has, as the other side of an air gap is told.
    pub(super) async fn inventory(&self) -> anyhow::Result<Bytes> {
        let request = Request::get("/admin/inventory").header(header::HOST, HOST);
        let response = self.send(request.body(Full::<Bytes>::default())?).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let answer = body::whole(body::chunks(response.into_body()), ANSWER_MAX).await;
        answer.with_context(|| self.silent())
    }

    /// Opens content of the store.
    pub(super) async fn content(&self, digest: &Digest) -> anyhow::Result<Incoming> {
        let request = Request::get(format!("/admin/content/{digest}"))
            .header(header::HOST, HOST)
            .body(Full::<Bytes>::default())?;
        let response = self.send(request).await?;
        if response.status().is_success() {
            Ok(response.into_body())
        } else {
            Err(self.refused(response).await)
        }
    }

    /// Sends content that is to be imported; `size` is its length, and whether a local repository gets it.
    pub(super) async fn put_content(
        &self,
        digest: &Digest,
        (size, local): (u64, bool),
        mut chunks: mpsc::Receiver<Result<Bytes, io::Error>>,
    ) -> anyhow::Result<()> {
        let frames = stream::poll_fn(move |context| chunks.poll_recv(context));
        let frames = frames.map(|chunk| chunk.map(Frame::data));
        let request = Request::put(format!("/admin/content/{digest}?size={size}&local={local}"))
            .header(header::HOST, HOST)
            .header(header::CONTENT_LENGTH, size)
            .body(StreamBody::new(frames))?;
        let response = self.send(request).await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(self.refused(response).await)
        }
    }

    /// Why a request was refused.
    async fn refused(&self, response: Response<Incoming>) -> anyhow::Error {
        let status = response.status();
        let answer = body::whole(body::chunks(response.into_body()), ANSWER_MAX).await;
        let told: Value = answer
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let text = |pointer: &str| told.pointer(pointer).and_then(Value::as_str);
        match text("/errors/0/message") {
            Some(message) => Refused {
                code: text("/errors/0/code").unwrap_or_default().to_owned(),
                message: message.to_owned(),
            }
            .into(),
            None => anyhow!("process {} answered {status}", self.pid),
        }
    }

    /// Sends a request whose body, and whose answer's, may be as long as they like.
    pub(super) async fn send<B>(&self, request: Request<B>) -> anyhow::Result<Response<Incoming>>
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.with_context(|| self.silent())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's last byte, or with this process.
        Tasks::new().spawn("admin socket", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the admin socket broke off");
            }
        });
        let response = sender.send_request(request).await;
        response.with_context(|| self.silent())
    }

    fn silent(&self) -> String {
        format!(
            "process {} does not answer at {}; if it is stopping, try again when it has ended",
            self.pid,
            self.socket.display()
        )
    }
}
