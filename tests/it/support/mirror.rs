//! The real binary with a data directory and a generated configuration; checked for cleanliness when it goes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::{Client, plain_http, secrets, wait_until};

/// A running Roadstead.
#[derive(Debug)]
pub struct Mirror {
    dir: TempDir,
    data: PathBuf,
    child: Option<Child>,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    environment: Vec<(String, String)>,
    /// Parts may be left behind on purpose.
    pub parts_may_stay: bool,
    /// Keep the address over restarts, for tests whose upstream is itself a mirror.
    port: u16,
}

/// One remote of a generated configuration.
#[derive(Debug, Clone)]
pub struct Remote {
    pub key: &'static str,
    pub url: String,
    pub serves: &'static str,
    /// More keys, as TOML lines.
    pub more: String,
}

impl Remote {
    /// `docker-hub`, serving docker.io, revalidating every time, with short time-outs.
    pub fn hub(url: &str) -> Self {
        Self::hub_with(url, "")
    }

    pub fn hub_with(url: &str, more: &str) -> Self {
        Self {
            key: "docker-hub",
            url: url.to_owned(),
            serves: "docker.io",
            more: format!("{TIMEOUTS}{more}\n"),
        }
    }
}

const TIMEOUTS: &str =
    "timeouts = { connect = \"1s\", tls = \"1s\", headers = \"3s\", idle = \"1s\" }\n";

impl Mirror {
    /// A mirror of one upstream with `tag_ttl = 0`.
    pub async fn of(url: &str) -> Self {
        Self::with(
            &[Remote::hub_with(
                url,
                "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"",
            )],
            "",
        )
        .await
    }

    /// The same, with an upstream that may stand still for as long as a gate is closed.
    pub async fn patient(url: &str) -> Self {
        let remote = Remote {
            key: "docker-hub",
            url: url.to_owned(),
            serves: "docker.io",
            more: String::new(),
        };
        Self::with(&[remote], "").await
    }

    /// A mirror of these remotes; `more` is appended to the configuration before them.
    pub async fn with(remotes: &[Remote], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        Self::in_directory(dir, data, remotes, more).await
    }

    pub async fn in_directory(dir: TempDir, data: PathBuf, remotes: &[Remote], more: &str) -> Self {
        Self::in_environment(dir, data, remotes, more, &[]).await
    }

    /// The same, with more in the environment of the process.
    pub async fn in_environment(
        dir: TempDir,
        data: PathBuf,
        remotes: &[Remote],
        more: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let storage = if more.contains("[storage]") {
            String::new()
        } else {
            "[storage]\nmin_free = \"1MiB\"\n".to_owned()
        };
        let mut text = format!("{storage}{more}\n");
        for Remote {
            key,
            url,
            serves,
            more,
        } in remotes
        {
            text.push_str(&format!(
                "[remote.{key}]\nurl = \"{url}\"\nserves = [\"{serves}\"]\n{more}\n"
            ));
        }
        std::fs::write(dir.path().join("mirror.toml"), text).unwrap();
        let mut mirror = Self {
            dir,
            data,
            child: None,
            address: "127.0.0.1:0".parse().unwrap(),
            log: Arc::default(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            parts_may_stay: false,
            port: 0,
        };
        mirror.start().await;
        mirror
    }

    /// Starts it (again), and waits until it listens.
    pub async fn start(&mut self) {
        assert!(self.child.is_none());
        let mut child = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .arg("serve")
            .arg("-c")
            .arg(self.dir.path().join("mirror.toml"))
            .args([
                "--listen",
                &format!("127.0.0.1:{}", self.port),
                "--log-format",
                "json",
            ])
            .arg("--data")
            .arg(&self.data)
            .env_remove("RUST_LOG")
            .envs(self.environment.iter().cloned())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        self.child = Some(child);
        let (sender, receiver) = std::sync::mpsc::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("\"message\":\"listening\"") {
                    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
                    drop(sender.send(value["fields"]["address"].as_str().unwrap().to_owned()));
                }
                log.lock().unwrap().push(line);
            }
        });
        let address = tokio::task::spawn_blocking(move || receiver.recv_timeout(super::patience()))
            .await
            .unwrap();
        let address = address.unwrap_or_else(|_| panic!("it does not listen: {:?}", self.log()));
        self.address = address.parse().unwrap();
        self.port = self.address.port();
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn metric(&self, name: &str) -> f64 {
        let (status, page) = plain_http::get(self.address, "/metrics").unwrap();
        assert_eq!(status, 200);
        plain_http::metric(&page, name).unwrap_or(0.0)
    }

    /// Peak resident memory in bytes.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.as_ref().unwrap().id())
    }

    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        files(&self.data.join(below))
    }

    fn signal(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let sent = Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap();
            assert!(sent.success());
            child.wait().unwrap();
        }
    }

    /// SIGKILL, in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.signal("-KILL");
    }

    /// SIGTERM, and waits until it has ended.
    pub fn terminate(&mut self) {
        self.signal("-TERM");
    }

    /// Its configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.dir.path().join("mirror.toml")
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-HUP", &id]).status();
        assert!(sent.unwrap().success());
    }

    /// SIGTERM without waiting.
    pub fn begin_to_stop(&self) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub async fn restart(&mut self) {
        self.terminate();
        self.start().await;
    }
}

/// Peak resident memory of a process in bytes.
pub(super) fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let kib = peak.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()))
        } else if entry.path().is_file() {
            found.push(entry.path())
        }
    }
    found
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.log() {
                eprintln!("{line}");
            }
            self.signal("-KILL");
            return;
        }
        if self.child.is_some() {
            // Fills that nobody waits for end by themselves; then the account must agree with the disk.
            // With users nobody is told the figures without a login.
            let is_guarded = std::fs::read_to_string(self.configuration())
                .is_ok_and(|text| text.contains("[auth]"));
            let agrees = is_guarded
                || wait_until(|| {
                    let on_disk: u64 = self
                        .files("blobs")
                        .iter()
                        .map(|file| file.metadata().map_or(0, |metadata| metadata.len()))
                        .sum();
                    let parts = self.files("staging").len();
                    #[expect(clippy::cast_precision_loss, reason = "metrics are floats")]
                    let accounted = self.metric("roadstead_cached_bytes")
                        + self.metric("roadstead_pushed_bytes")
                        == on_disk as f64;
                    accounted && (parts == 0 || self.parts_may_stay)
                });
            let page = plain_http::get(self.address, "/metrics");
            self.signal("-TERM");
            if let Some((_, page)) = page {
                secrets::assert_none("the metrics", page.lines(), &[]);
            }
            assert!(
                agrees,
                "bytes accounted are not the bytes on disk, or parts stayed: {:?}",
                self.files("")
            );
        }
        let log = self.log();
        let keys = secrets::keys_below(self.dir.path());
        secrets::assert_none("the log", log.iter().map(String::as_str), &keys);
        let panicked: Vec<String> = log
            .into_iter()
            .filter(|line| line.contains("panicked"))
            .collect();
        assert!(panicked.is_empty(), "{panicked:?}");
    }
}
