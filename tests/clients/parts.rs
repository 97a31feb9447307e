//! The real parts, each on loopback with directories of its own, stopped by its pid.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bytes::Bytes;
use http::Method;
use tempfile::TempDir;

use crate::support::tls::Authority;
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

/// Names that mean loopback, for the programs that are started by it and for nobody else: they see a hosts file of their own.
#[derive(Debug)]
pub struct Hosts(TempDir);

impl Hosts {
    pub fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("127.0.0.1 localhost {}\n", names.join(" "));
        fs::write(dir.path().join("hosts"), text).unwrap();
        Self(dir)
    }

    /// The program, in a mount namespace that goes with it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(self.0.path().join("hosts"))
            .arg(program);
        command
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

/// `docker_auth`, a real token server: `admin` with the password `admin-s3cret-canary` may pull and push everything, nobody else anything but `library/public`.
#[derive(Debug)]
pub struct TokenServer {
    dir: TempDir,
    port: u16,
    daemon: Option<Daemon>,
}

impl TokenServer {
    pub fn start() -> Self {
        let mut server = Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            daemon: None,
        };
        Authority::new()
            .issue(&["token server"])
            .write(server.dir.path(), "token");
        server.restart();
        server
    }

    pub fn restart(&mut self) {
        let (port, dir) = (self.port, self.dir.path().display().to_string());
        let config = format!(
            r#"
server: {{addr: "127.0.0.1:{port}"}}
token: {{issuer: "lab", expiration: 300, certificate: "{dir}/token.crt", key: "{dir}/token.key"}}
users:
  "admin": {{password: "$2y$10$lSspHftUC2kviLm7XRIds.0cKmQL.vcrSDRJBqlyEcV0IcyIHvys."}}
  "": {{}}
acl:
  - match: {{account: "admin"}}
    actions: ["pull", "push"]
  - match: {{account: "", name: "library/public"}}
    actions: ["pull"]
"#
        );
        let path = self.dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut daemon = Daemon::start(
            Command::new(tool("auth_server"))
                .args(["--logtostderr", "--v=2"])
                .arg(&path),
            self.dir.path().join("log"),
        );
        daemon.wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        self.daemon = Some(daemon);
    }

    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// `host:port`, for `token_hosts`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many tokens it says it gave.
    pub fn given(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        log.lines()
            .filter(|line| line.contains("New token"))
            .count()
    }

    /// What the registry must be told to believe its tokens.
    fn trusted(&self) -> String {
        format!(
            "auth: {{token: {{realm: \"http://{}/auth\", service: lab, issuer: lab, rootcertbundle: {}/token.crt}}}}\n",
            self.host(),
            self.dir.path().display()
        )
    }
}

/// Debian's `docker-registry`, open or behind a token server.
#[derive(Debug)]
pub struct Registry {
    dir: TempDir,
    port: u16,
    auth: String,
    daemon: Option<Daemon>,
}

impl Registry {
    pub async fn start() -> Self {
        let mut registry = Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            auth: String::new(),
            daemon: None,
        };
        registry.restart();
        registry
    }

    /// From here on everything wants a token.
    pub fn protect(&mut self, tokens: &TokenServer) {
        self.auth = tokens.trusted();
        self.stop();
        self.restart();
    }

    pub fn restart(&mut self) {
        let root = self.dir.path().display().to_string();
        let port = self.port;
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {root}/data}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n{auth}",
            auth = self.auth
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

    /// What it has logged since it was started last.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many requests of these methods it has answered.
    pub fn answered(&self, methods: &[&str]) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        let lines = log.lines();
        let is_one = |line: &&str| {
            methods
                .iter()
                .any(|one| line.contains(&format!("\"{one} /v2/")))
        };
        lines.filter(is_one).count()
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
