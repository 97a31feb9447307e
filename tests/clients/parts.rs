//! The real parts, each on loopback with directories of its own, stopped by its pid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::support::{Client, Image, free_port, wait_until};

/// Where `scripts/install-test-tools` puts what Debian has no package for.
pub fn tool(name: &str) -> PathBuf {
    let tools = std::env::var_os("ROADSTEAD_TOOLS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools"),
        PathBuf::from,
    );
    let own = tools.join(name);
    if own.exists() {
        own
    } else {
        PathBuf::from(name)
    }
}

/// A program that runs in the background.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub fn start(command: &mut Command, log: PathBuf) -> Self {
        let out = fs::File::create(&log).unwrap();
        let started = command
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .stdin(Stdio::null())
            .spawn();
        let child = started.unwrap_or_else(|error| {
            panic!(
                "{:?}: {error}; run scripts/install-test-tools",
                command.get_program()
            )
        });
        Self { child, log }
    }

    /// Waits until `ready`, or fails with the program's own words.
    pub fn wait(&mut self, ready: impl FnMut() -> bool) {
        if !wait_until(ready) {
            panic!(
                "it does not come up: {}",
                fs::read_to_string(&self.log).unwrap_or_default()
            );
        }
    }

    pub fn stop(&mut self) {
        drop(
            Command::new("kill")
                .arg(self.child.id().to_string())
                .status(),
        );
        drop(self.child.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a command to its end; its words where it failed.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{:?}: {error}; run scripts/install-test-tools",
                command.get_program()
            )
        });
    assert!(
        output.status.success(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Debian's `docker-registry`, open.
#[derive(Debug)]
pub struct Registry {
    dir: TempDir,
    port: u16,
    daemon: Option<Daemon>,
}

impl Registry {
    pub async fn start() -> Self {
        let mut registry = Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            daemon: None,
        };
        registry.restart();
        registry
    }

    pub fn restart(&mut self) {
        let root = self.dir.path().display().to_string();
        let port = self.port;
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n"
        );
        let path = self.dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut daemon = Daemon::start(
            Command::new("docker-registry").arg("serve").arg(&path),
            self.dir.path().join("log"),
        );
        daemon.wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        self.daemon = Some(daemon);
    }

    pub fn stop(&mut self) {
        self.daemon = None;
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Pushes an image: blobs, then manifests, children first.
    pub async fn push(&self, name: &str, tag: &str, image: &Image) {
        let client = Client::new(([127, 0, 0, 1], self.port).into());
        for blob in &image.blobs {
            let opened = client
                .send(Method::POST, &format!("/v2/{name}/blobs/uploads/"), &[])
                .await;
            let location = opened.header("location").unwrap().to_owned();
            let at = location.find("/v2/").unwrap();
            let path = format!("{}&digest={}", &location[at..], blob.digest);
            let put = client
                .send_body(
                    Method::PUT,
                    &path,
                    &[("content-type", "application/octet-stream")],
                    blob.bytes.clone(),
                )
                .await;
            assert_eq!(put.status.as_u16(), 201, "{put:?}");
        }
        for manifest in &image.manifests {
            self.put(&client, name, &manifest.digest, manifest).await;
        }
        self.put(&client, name, tag, &image.root).await;
    }

    async fn put(
        &self,
        client: &Client,
        name: &str,
        reference: &str,
        manifest: &crate::support::Content,
    ) {
        let bytes: Bytes = manifest.bytes.clone();
        let put = client
            .send_body(
                Method::PUT,
                &format!("/v2/{name}/manifests/{reference}"),
                &[("content-type", &manifest.media_type)],
                bytes,
            )
            .await;
        assert_eq!(put.status.as_u16(), 201, "{put:?}");
    }
}
