//! The one writer: a thread that drains its queue into one transaction and answers everyone after the commit.
//!
//! Each command runs in its own savepoint, so that one which fails takes nothing of the others with it. What must follow a commit in
//! step with it (the hot rows) is done here before the answer goes out, so it happens even where the asker has gone away.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::damage::Damage;
use super::{IndexError, Result, keeps};

/// Commands that may wait in the queue before senders wait too.
const QUEUE: usize = 1024;
/// Commands that go into one transaction at most.
const BATCH: usize = 512;

/// The queue's end that takes commands.
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Job(Box<dyn Job>),
    Close,
}

trait Job: Send {
    /// Runs it; false where it failed.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Forgets a success that was rolled back together with another's failure.
    fn undo(&mut self, why: &IndexError);
    /// Tells the asker how it went.
    fn answer(self: Box<Self>);
}

struct Command<T, F, A> {
    work: Option<F>,
    after: Option<A>,
    outcome: Result<T>,
    reply: oneshot::Sender<Result<T>>,
    damage: Arc<Damage>,
}

impl<T, F, A> Job for Command<T, F, A>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
    A: FnOnce(&T) + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let outcome = in_savepoint(connection, work);
        self.outcome = outcome.map_err(|error| self.damage.judge(error));
        self.outcome.is_ok()
    }

    fn undo(&mut self, why: &IndexError) {
        self.outcome = Err(why.clone());
    }

    fn answer(mut self: Box<Self>) {
        if let (Ok(value), Some(after)) = (&self.outcome, self.after.take()) {
            after(value);
        }
        // The asker may have gone away; the command is done all the same.
        let _gone = self.reply.send(self.outcome);
    }
}

impl Writer {
    /// Starts the thread on `connection`. `kept` says how many bytes are kept, as of the last commit.
    pub(super) fn start(
        connection: Connection,
        damage: Arc<Damage>,
        kept: Arc<AtomicU64>,
    ) -> io::Result<Self> {
        let (queue, commands) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || work(connection, commands, &damage, &kept))?;
        Ok(Self {
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Queues a command and waits for its answer. `after` runs on the writer's thread between the commit and the answer.
    pub(super) async fn write<T, F, A>(&self, damage: &Arc<Damage>, work: F, after: A) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let (message, answer) = command(damage, work, after);
        self.queue
            .send(message)
            .await
            .map_err(|_closed| IndexError::Closed)?;
        answer.await.unwrap_or(Err(IndexError::Closed))
    }

    /// The same for a caller that is on a blocking thread.
    pub(super) fn write_blocking<T, F>(&self, damage: &Arc<Damage>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (message, answer) = command(damage, work, |_value| {});
        self.queue
            .blocking_send(message)
            .map_err(|_closed| IndexError::Closed)?;
        answer.blocking_recv().unwrap_or(Err(IndexError::Closed))
    }

    /// Ends the thread after what is queued. Blocks until the file is closed.
    pub(super) fn close_blocking(&self) {
        // A full queue or one that is closed already both end with the thread's end.
        let _closed = self.queue.blocking_send(Message::Close);
        self.join();
    }

    fn join(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic of the writer has been reported by the panic hook; there is nothing left to do about it.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Dropped without close: end the thread at once, so that the file is free for the next to open it.
        let (dead, _) = mpsc::channel(1);
        self.queue = dead;
        self.join();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

fn command<T, F, A>(
    damage: &Arc<Damage>,
    work: F,
    after: A,
) -> (Message, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    A: FnOnce(&T) + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let job = Command {
        work: Some(work),
        after: Some(after),
        outcome: Err(IndexError::Closed),
        reply,
        damage: Arc::clone(damage),
    };
    (Message::Job(Box::new(job)), answer)
}

fn work(
    connection: Connection,
    mut commands: mpsc::Receiver<Message>,
    damage: &Damage,
    kept: &AtomicU64,
) {
    let mut open = true;
    while open {
        let mut batch = Vec::new();
        match commands.blocking_recv() {
            Some(Message::Job(job)) => batch.push(job),
            Some(Message::Close) | None => break,
        }
        while batch.len() < BATCH {
            match commands.try_recv() {
                Ok(Message::Job(job)) => batch.push(job),
                Ok(Message::Close) => {
                    open = false;
                    break;
                }
                Err(_) => break,
            }
        }
        commit(&connection, batch, damage, kept);
    }
    commands.close();
    if let Err((_connection, error)) = connection.close() {
        tracing::warn!(%error, "the index did not close cleanly");
    }
}

/// Runs all of `batch` in one transaction and answers.
fn commit(connection: &Connection, batch: Vec<Box<dyn Job>>, damage: &Damage, kept: &AtomicU64) {
    let mut done: Vec<Box<dyn Job>> = Vec::with_capacity(batch.len());
    for mut job in batch {
        if connection.is_autocommit()
            && let Err(error) = execute(connection, "BEGIN IMMEDIATE")
        {
            job.undo(&damage.judge(error));
            job.answer();
            continue;
        }
        let ran = job.run(connection);
        done.push(job);
        if !ran && connection.is_autocommit() {
            // A full disk or an I/O error makes SQLite roll the whole transaction back, not the savepoint alone.
            for mut lost in done.drain(..) {
                lost.undo(&IndexError::RolledBack);
                lost.answer();
            }
        }
    }
    if !connection.is_autocommit()
        && let Err(error) = execute(connection, "COMMIT")
    {
        let why = damage.judge(error);
        for lost in &mut done {
            lost.undo(&why);
        }
        if let Err(error) = execute(connection, "ROLLBACK") {
            tracing::debug!(%error, "nothing was left to roll back");
        }
    }
    if let Ok(bytes) = keeps::bytes(connection) {
        kept.store(bytes, Ordering::Relaxed);
    }
    for job in done {
        job.answer();
    }
}

fn in_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    execute(connection, "SAVEPOINT command")?;
    match work(connection) {
        Ok(value) => {
            execute(connection, "RELEASE command")?;
            Ok(value)
        }
        Err(error) => {
            if !connection.is_autocommit() {
                execute(connection, "ROLLBACK TO command")?;
                execute(connection, "RELEASE command")?;
            }
            Err(error)
        }
    }
}

fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([]).map(drop)
}
