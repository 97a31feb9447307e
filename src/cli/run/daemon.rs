//! The Docker daemon's own configuration, which is the only way to point it at a mirror, and how it comes back.
//!
//! Before anything is changed, a note with what was there lies durably in the data directory. It is put back when the run ends, also by a
//! panic; where the process was killed, by the next `run` or `serve` with that directory. A file that is no longer as we wrote it is
//! somebody else's by now, and stays. Everything here blocks.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::task::block_in_place;
use tokio::time::Instant;
use tracing::warn;

use super::super::{files, output};

/// Where the daemon has its configuration, its process id and its socket unless it is told otherwise.
pub(super) const CONFIG: &str = "/etc/docker/daemon.json";
pub(super) const PIDFILE: &str = "/var/run/docker.pid";
const SOCKET: &str = "/var/run/docker.sock";
/// The note, in the data directory.
const NOTE: &str = "docker-daemon.json";
/// What the process is called.
const PROGRAM: &str = "dockerd";
const MIRRORS: &str = "registry-mirrors";
const INSECURE: &str = "insecure-registries";
/// The largest configuration, note and answer.
const FILE_MAX: usize = 1 << 20;
const ANSWER_MAX: u64 = 16 << 20;
/// How long the daemon may take to read its configuration.
const RELOADS_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(50);

/// Where the daemon has what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Daemon {
    config: PathBuf,
    pidfile: PathBuf,
    socket: PathBuf,
}

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    daemon: Daemon,
    /// The text of the file; none where there was no file.
    original: Option<String>,
    /// What we put there.
    written: String,
    mirror: String,
}

/// A daemon that pulls through our mirror until this is dropped.
#[derive(Debug)]
pub(super) struct Pointed {
    data: PathBuf,
}

impl Daemon {
    pub(super) fn new(
        config: &Path,
        pidfile: &Path,
        docker_host: Option<&str>,
    ) -> anyhow::Result<Self> {
        let socket = match docker_host.filter(|host| !host.is_empty()) {
            None => PathBuf::from(SOCKET),
            Some(host) => host.strip_prefix("unix://").map(PathBuf::from).context(
                "--docker-daemon changes a daemon on this machine, and DOCKER_HOST names one elsewhere",
            )?,
        };
        // What the path leads to is what is replaced.
        let config = fs::canonicalize(config).or_else(|_absent| std::path::absolute(config))?;
        Ok(Self {
            config,
            pidfile: std::path::absolute(pidfile)?,
            socket,
        })
    }

    /// Points the daemon at the mirror, and waits until it knows.
    pub(super) fn point(self, data: PathBuf, mirror: SocketAddr) -> anyhow::Result<Pointed> {
        block_in_place(|| self.point_now(data, mirror))
    }

    fn point_now(self, data: PathBuf, mirror: SocketAddr) -> anyhow::Result<Pointed> {
        if self.pid().is_none() {
            bail!(
                "no {PROGRAM} runs whose process id is in {}; start it, or name the file with --docker-pidfile",
                self.pidfile.display()
            );
        }
        self.mirrors()?;
        let original = self.read()?;
        let url = format!("http://{mirror}");
        let with = |all: &mut Map<String, Value>| {
            put_first(all, MIRRORS, &url)?;
            if mirror.ip().is_loopback() {
                // Docker takes cleartext from there.
                return Ok(());
            }
            put_first(all, INSECURE, &mirror.to_string())
        };
        let written = changed(original.as_deref(), with)
            .with_context(|| format!("{} is not as expected", self.config.display()))?;
        let note = Note {
            daemon: self.clone(),
            original,
            written,
            mirror: url,
        };
        let noted = serde_json::to_vec_pretty(&note)?;
        files::replace(&data.join(NOTE), &noted)?;
        let pointed = Pointed { data };
        self.write(Some(&note.written))?;
        self.reload_until(&note.mirror, true).with_context(|| {
            format!(
                "the Docker daemon does not take {}; are its mirrors given on its command line, or is it another daemon that answers at {}?",
                self.config.display(),
                self.socket.display()
            )
        })?;
        Ok(pointed)
    }

    fn read(&self) -> anyhow::Result<Option<String>> {
        if !self.config.exists() {
            return Ok(None);
        }
        let text = String::from_utf8(files::read(&self.config, FILE_MAX)?);
        let text = text.with_context(|| format!("{} is no text", self.config.display()))?;
        Ok(Some(text))
    }

    /// Replaces the file, or removes it; who owns it and may read it stays.
    fn write(&self, text: Option<&str>) -> anyhow::Result<()> {
        let path = &self.config;
        let Some(text) = text else {
            return fs::remove_file(path)
                .with_context(|| format!("cannot remove {}", path.display()));
        };
        let was = fs::metadata(path).ok();
        files::replace(path, text.as_bytes())?;
        if let Some(was) = was {
            fs::set_permissions(path, was.permissions())
                .and_then(|()| chown(path, Some(was.uid()), Some(was.gid())))
                .with_context(|| format!("cannot give {} back to its owner", path.display()))?;
        }
        Ok(())
    }

    /// The process, if it is there and is a Docker daemon: a number that was left behind may be anybody's.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pidfile).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
        (name.trim() == PROGRAM).then_some(pid)
    }

    /// Has the file read, until `mirror` is among the daemon's mirrors, or is not.
    fn reload_until(&self, mirror: &str, is_there: bool) -> anyhow::Result<()> {
        let Some(pid) = self.pid() else {
            // What is not running reads the file when it starts.
            return Ok(());
        };
        kill_process(pid, Signal::HUP).context("cannot signal the Docker daemon")?;
        let begun = Instant::now();
        loop {
            let found = self.mirrors()?.iter().any(|one| one == mirror);
            if found == is_there {
                return Ok(());
            }
            if begun.elapsed() >= RELOADS_WITHIN {
                bail!(
                    "it has not read its configuration within {} s",
                    RELOADS_WITHIN.as_secs()
                );
            }
            thread::sleep(LOOK);
        }
    }

    /// The mirrors that the daemon has now.
    fn mirrors(&self) -> anyhow::Result<Vec<String>> {
        let asked = self.info().with_context(|| {
            format!(
                "the Docker daemon does not answer at {}; DOCKER_HOST names another socket",
                self.socket.display()
            )
        })?;
        let mirrors = asked.pointer("/RegistryConfig/Mirrors");
        let mirrors = mirrors.and_then(Value::as_array).into_iter().flatten();
        let mirrors = mirrors.filter_map(Value::as_str);
        Ok(mirrors
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect())
    }

    fn info(&self) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
        // HTTP/1.0: the answer ends with the connection, and is in one piece.
        stream.write_all(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("it does not answer in HTTP")?;
        if !head
            .lines()
            .next()
            .is_some_and(|line| line.contains(" 200"))
        {
            bail!("it refuses to say how it is configured");
        }
        Ok(serde_json::from_str(body)?)
    }
}

impl Pointed {
    /// Puts back what was there.
    pub(super) fn restore(self) {
        block_in_place(|| drop(self));
    }
}

impl Drop for Pointed {
    fn drop(&mut self) {
        restore_left(&self.data);
    }
}

/// Puts back what a run that used this data directory has changed. For whoever has the directory, or finds nobody in it.
pub(in crate::cli) fn restore_left(data: &Path) {
    if let Err(error) = restore(data) {
        output::warning(&format!(
            "the Docker daemon's configuration could not be put back; {} says what it was: {error:#}",
            data.join(NOTE).display()
        ));
    }
}

fn restore(data: &Path) -> anyhow::Result<()> {
    let path = data.join(NOTE);
    if !path.exists() {
        return Ok(());
    }
    let note: Note = serde_json::from_slice(&files::read(&path, FILE_MAX * 3)?)?;
    let daemon = &note.daemon;
    let now = daemon.read()?;
    if now.as_deref() == Some(&note.written) {
        let explicit = changed(note.original.as_deref(), |all| {
            for key in [MIRRORS, INSECURE] {
                all.entry(key).or_insert_with(|| json!([]));
            }
            Ok(())
        })?;
        // A daemon keeps the mirrors that it has until its file says others, so the file says so once.
        daemon.write(Some(&explicit))?;
        let reloaded = daemon.reload_until(&note.mirror, false);
        daemon.write(note.original.as_deref())?;
        if let Err(error) = reloaded {
            output::warning(&format!(
                "the Docker daemon may still have our mirror, which costs it a failed request for each pull; reload or restart it: {error:#}"
            ));
        }
    } else if now != note.original {
        warn!(config = %daemon.config.display(), mirror = note.mirror, "somebody else has changed the Docker daemon's configuration; it is left as it is: take the mirror out if it is still there");
    }
    forget(&path)
}

fn forget(note: &Path) -> anyhow::Result<()> {
    fs::remove_file(note)?;
    fs::File::open(files::parent(note))?.sync_all()?;
    Ok(())
}

/// The configuration with a change.
fn changed(
    text: Option<&str>,
    change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let text = text.filter(|text| !text.trim().is_empty());
    let mut all: Map<String, Value> = text.map_or_else(|| Ok(Map::new()), serde_json::from_str)?;
    change(&mut all)?;
    let mut text = serde_json::to_string_pretty(&all)?;
    text.push('\n');
    Ok(text)
}

/// Puts a word in front of a list of words.
fn put_first(all: &mut Map<String, Value>, key: &str, word: &str) -> anyhow::Result<()> {
    let list = all.entry(key).or_insert_with(|| json!([]));
    let list = list
        .as_array_mut()
        .with_context(|| format!("{key} is no list"))?;
    list.insert(0, word.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(dir: &Path) -> Daemon {
        Daemon {
            config: dir.join("daemon.json"),
            pidfile: dir.join("pid"),
            socket: dir.join("socket"),
        }
    }

    /// A note of a run that was killed, for a daemon that is not running.
    fn noted(dir: &Path, original: Option<&str>, now: &str) -> PathBuf {
        let note = Note {
            daemon: daemon(dir),
            original: original.map(str::to_owned),
            written: "{\"ours\": 1}".to_owned(),
            mirror: "http://127.0.0.1:1".to_owned(),
        };
        files::replace(&dir.join(NOTE), &serde_json::to_vec(&note).unwrap()).unwrap();
        fs::write(&note.daemon.config, now).unwrap();
        note.daemon.config
    }

    #[test]
    fn what_a_killed_run_left_is_put_back_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let odd = "{ \"debug\" :true }";
        let config = noted(dir.path(), Some(odd), "{\"ours\": 1}");
        restore_left(dir.path());
        assert_eq!(fs::read_to_string(config).unwrap(), odd);
        assert!(!dir.path().join(NOTE).exists());
        let config = noted(dir.path(), None, "{\"ours\": 1}");
        restore_left(dir.path());
        assert!(!config.exists());
    }

    #[test]
    fn a_panic_puts_it_back_too() {
        let dir = tempfile::tempdir().unwrap();
        let config = noted(dir.path(), Some("{}"), "{\"ours\": 1}");
        let data = dir.path().to_owned();
        let panicked = std::panic::catch_unwind(|| {
            let _pointed = Pointed { data };
            panic!("a bug");
        });
        assert!(panicked.is_err());
        assert_eq!(fs::read_to_string(config).unwrap(), "{}");
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = noted(dir.path(), Some("{}"), "{\"theirs\": 1}");
        restore_left(dir.path());
        assert_eq!(fs::read_to_string(config).unwrap(), "{\"theirs\": 1}");
        assert!(!dir.path().join(NOTE).exists());
    }

    #[test]
    fn a_number_that_was_left_behind_is_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path());
        assert_eq!(daemon.pid(), None, "no file");
        fs::write(&daemon.pidfile, std::process::id().to_string()).unwrap();
        assert_eq!(daemon.pid(), None, "these tests");
        let mirror = "127.0.0.1:1".parse().unwrap();
        let error = daemon.point_now(dir.path().to_owned(), mirror).unwrap_err();
        assert!(error.to_string().contains("--docker-pidfile"), "{error}");
        assert!(!dir.path().join(NOTE).exists());
    }

    #[test]
    fn the_mirror_comes_first_and_the_rest_stays() {
        let text = Some("{\"debug\": true, \"registry-mirrors\": [\"https://a\"]}");
        let after = changed(text, |all| put_first(all, MIRRORS, "http://b")).unwrap();
        let after: Value = serde_json::from_str(&after).unwrap();
        let expected = json!({ "debug": true, "registry-mirrors": ["http://b", "https://a"] });
        assert_eq!(after, expected);
        assert!(changed(Some("[]"), |_| Ok(())).is_err());
        let odd = Some("{\"registry-mirrors\": \"x\"}");
        assert!(changed(odd, |all| put_first(all, MIRRORS, "http://b")).is_err());
    }

    #[test]
    fn a_daemon_elsewhere_is_refused() {
        let path = Path::new("/x");
        assert!(Daemon::new(path, path, Some("tcp://127.0.0.1:2375")).is_err());
        let there = Daemon::new(path, path, Some("unix:///s")).unwrap();
        assert_eq!(there.socket, Path::new("/s"));
    }
}
