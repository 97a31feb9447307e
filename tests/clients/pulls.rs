//! Each client pulls a tag and a digest: cold, warm, and with upstream gone and Roadstead restarted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::parts::{Daemon, Registry, TokenServer, run, tool};
use crate::support::image::{self, Flavour};
use crate::support::tls::Authority;
use crate::support::{Image, Mirror, Remote, free_port};

/// What a client must do: pull a reference of `docker.io/library/app` anew, whatever it has already.
trait Pulls {
    fn pull(&mut self, reference: &str);
}

/// `:tag` or `@digest`, as it follows a name.
fn tagged(tag: &str) -> String {
    format!(":{tag}")
}

fn digested(image: &Image) -> String {
    format!("@{}", image.digest())
}

async fn through_the_mirror(
    images: &[(&str, Image)],
    start: impl FnOnce(&Mirror) -> Box<dyn Pulls>,
) {
    let mut registry = Registry::start().await;
    for (tag, image) in images {
        registry.push("library/app", tag, image).await;
    }
    let mut tokens = TokenServer::start();
    registry.protect(&tokens);
    let mut mirror = mirror_with_password("admin-s3cret-canary", &registry, &tokens).await;
    let mut client = start(&mirror);
    for round in ["cold", "warm", "upstream gone"] {
        if round == "upstream gone" {
            registry.stop();
            tokens.stop();
            mirror.restart().await;
        }
        for (tag, image) in images {
            for reference in [tagged(tag), digested(image)] {
                let before = served(&mirror);
                client.pull(&reference);
                assert!(
                    served(&mirror) > before,
                    "{round} {reference}: the client did not come through the mirror"
                );
            }
            assert_recorded(&mirror, tag, image).await;
        }
    }
    drop(client);
    assert!(tokens.given() > 0, "the token server was never asked");
}

/// However a client goes about it, the record has a pull of the tag; of an index, with a platform.
async fn assert_recorded(mirror: &Mirror, tag: &str, image: &Image) {
    let told = mirror.client().get("/admin/pulls").await.json();
    let pulls = told["pulls"].as_array().unwrap();
    let is_it = |pull: &&Value| pull["reference"] == tag && pull["digest"] == image.digest();
    assert!(pulls.iter().any(|pull| is_it(&pull)), "{tag}: {told}");
    let chosen = pulls.iter().find(|pull| {
        let indexes = pull["childOf"].as_array();
        indexes.is_some_and(|all| all.iter().any(|one| one == image.digest()))
    });
    if image.manifests.len() > 1 {
        assert_eq!(chosen.unwrap()["platform"], "linux/amd64", "{told}");
    }
}

/// A mirror that is the token server's `admin`, if this is the password.
async fn mirror_with_password(password: &str, registry: &Registry, tokens: &TokenServer) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("password"), password).unwrap();
    let data = dir.path().join("data");
    let remote = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "docker.io",
        more: format!(
            "tag_ttl = \"0s\"\ncredentials = {{ username = \"admin\", password_file = \"password\" }}\ntoken_hosts = [\"{}\"]",
            tokens.host()
        ),
    };
    Mirror::in_directory(dir, data, &[remote], "").await
}

/// How many manifests and blobs the mirror has answered with 200.
fn served(mirror: &Mirror) -> usize {
    mirror
        .log()
        .iter()
        .filter(|line| {
            line.contains("\"target\":\"access\"")
                && line.contains("\"status\":200")
                && line.contains("/library/app/")
                || line.contains("\"path\":\"/v2/app/")
        })
        .count()
}

fn images() -> Vec<(&'static str, Image)> {
    vec![
        ("oci", image::multi_platform(Flavour::Oci, 1, 300_000)),
        ("docker", image::multi_platform(Flavour::Docker, 2, 300_000)),
    ]
}

struct Crane {
    address: String,
    dir: TempDir,
}

impl Pulls for Crane {
    fn pull(&mut self, reference: &str) {
        let out = self.dir.path().join("image.tar");
        run(Command::new(tool("crane"))
            .args(["pull", "--insecure", "--platform", "linux/amd64"])
            .arg(format!("{}/library/app{reference}", self.address))
            .arg(&out));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crane() {
    through_the_mirror(&images(), |mirror| {
        Box::new(Crane {
            address: mirror.address().to_string(),
            dir: tempfile::tempdir().unwrap(),
        })
    })
    .await;
}

/// `registries.conf` and `policy.json` for skopeo and podman.
pub fn containers_configuration(dir: &Path, mirror: &str) -> (PathBuf, PathBuf) {
    let (registries, policy) = (dir.join("registries.conf"), dir.join("policy.json"));
    let text = format!(
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        mirror
    );
    fs::write(&registries, text).unwrap();
    fs::write(
        &policy,
        "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}",
    )
    .unwrap();
    (registries, policy)
}

struct Skopeo {
    registries: PathBuf,
    policy: PathBuf,
    dir: TempDir,
}

impl Pulls for Skopeo {
    fn pull(&mut self, reference: &str) {
        let out = self.dir.path().join("out");
        drop(fs::remove_dir_all(&out));
        let mut skopeo = Command::new("skopeo");
        skopeo
            .arg("--policy")
            .arg(&self.policy)
            .arg("--registries-conf")
            .arg(&self.registries);
        run(skopeo
            .args(["copy", "--all"])
            .arg(format!("docker://docker.io/library/app{reference}"))
            .arg(format!("dir:{}", out.display())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo() {
    through_the_mirror(&images(), |mirror| {
        let dir = tempfile::tempdir().unwrap();
        let (registries, policy) =
            containers_configuration(dir.path(), &mirror.address().to_string());
        Box::new(Skopeo {
            registries,
            policy,
            dir,
        })
    })
    .await;
}

pub struct Podman {
    registries: PathBuf,
    policy: PathBuf,
    dir: TempDir,
}

impl Podman {
    /// With the mirror at `mirror` (`host:port`).
    pub fn start(mirror: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (registries, policy) = containers_configuration(dir.path(), mirror);
        Self {
            registries,
            policy,
            dir,
        }
    }

    pub fn command(&self) -> Command {
        let mut podman = Command::new("podman");
        podman
            .env("CONTAINERS_REGISTRIES_CONF", &self.registries)
            .env("TMPDIR", self.dir.path());
        podman
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"));
        podman.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ]);
        podman
    }
}

impl Pulls for Podman {
    fn pull(&mut self, reference: &str) {
        run(self
            .command()
            .args(["pull", "--arch", "amd64", "--signature-policy"])
            .arg(&self.policy)
            .arg(format!("docker.io/library/app{reference}")));
        run(self.command().args(["rmi", "--all", "--force"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman() {
    through_the_mirror(&images(), |mirror| {
        Box::new(Podman::start(&mirror.address().to_string()))
    })
    .await;
}

pub struct Containerd {
    address: PathBuf,
    hosts: PathBuf,
    _daemon: Daemon,
    _dir: TempDir,
}

impl Containerd {
    /// One that finds registries as `hosts.toml` says, for the host `host`.
    pub fn start(host: &str, text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        fs::create_dir_all(hosts.join(host)).unwrap();
        fs::write(hosts.join(host).join("hosts.toml"), text).unwrap();
        let address = dir.path().join("containerd.sock");
        let config = dir.path().join("config.toml");
        let root = dir.path().display();
        fs::write(&config, format!("version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{}\"\n", address.display())).unwrap();
        let mut daemon = Daemon::start(
            Command::new("containerd").arg("--config").arg(&config),
            dir.path().join("log"),
        );
        daemon.wait(|| std::os::unix::net::UnixStream::connect(&address).is_ok());
        Self {
            address,
            hosts,
            _daemon: daemon,
            _dir: dir,
        }
    }

    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(&self.address);
        ctr
    }

    /// A pull, still to be run.
    pub fn pull_command(&self, name: &str) -> Command {
        let mut ctr = self.ctr();
        ctr.args([
            "images",
            "pull",
            "--snapshotter",
            "native",
            "--platform",
            "linux/amd64",
            "--hosts-dir",
        ])
        .arg(&self.hosts)
        .arg(name);
        ctr
    }

    pub fn forget(&self, name: &str) {
        run(self.ctr().args(["images", "rm", "--sync", name]));
    }
}

impl Pulls for Containerd {
    fn pull(&mut self, reference: &str) {
        let name = format!("docker.io/library/app{reference}");
        run(&mut self.pull_command(&name));
        self.forget(&name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd() {
    through_the_mirror(&images(), |mirror| {
        let text = format!("server = \"https://registry-1.docker.io\"\n[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n", mirror.url());
        Box::new(Containerd::start("docker.io", &text))
    })
    .await;
}

pub struct Docker {
    socket: String,
    _daemon: Daemon,
    _dir: TempDir,
}

impl Docker {
    /// With the mirror at `mirror` (`host:port`), which may speak TLS or not: it is on loopback.
    pub fn start(mirror: &str) -> Self {
        Self::start_by(Command::new("dockerd"), mirror)
    }

    /// The same, by a command that becomes the daemon.
    pub fn start_by(mut command: Command, mirror: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let socket = format!("unix://{}", at("docker.sock"));
        command.args([
            "--storage-driver=vfs",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "-H",
            &socket,
        ]);
        command.args([
            "--data-root",
            &at("root"),
            "--exec-root",
            &at("exec"),
            "--pidfile",
            &at("pid"),
            "--config-file",
            &at("none.json"),
        ]);
        fs::write(at("none.json"), "{}").unwrap();
        command.args([
            "--registry-mirror",
            &format!("http://{mirror}"),
            "--insecure-registry",
            mirror,
        ]);
        let mut daemon = Daemon::start(&mut command, dir.path().join("log"));
        daemon.wait(|| {
            Command::new("docker")
                .args(["-H", &socket, "version"])
                .output()
                .is_ok_and(|output| output.status.success())
        });
        Self {
            socket,
            _daemon: daemon,
            _dir: dir,
        }
    }

    pub fn command(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.args(["-H", &self.socket]);
        docker
    }
}

impl Pulls for Docker {
    fn pull(&mut self, reference: &str) {
        run(self.command().args(["pull", &format!("app{reference}")]));
        let all = run(self.command().args(["images", "-aq"]));
        for id in String::from_utf8(all.stdout).unwrap().split_whitespace() {
            run(self.command().args(["rmi", "--force", id]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dockerd() {
    // The layer of 256 MiB is this one's, the client that the mirror is for.
    let large = image::image(
        Flavour::Docker,
        "amd64",
        &[
            image::noise_layer(image::Packing::Gzip, 5, 256 << 20),
            image::empty_layer(image::Packing::Gzip),
        ],
    );
    // Debian's dockerd knows no zstd layers.
    let images = [
        ("docker", image::multi_platform(Flavour::Docker, 2, 300_000)),
        ("oci", image::small(Flavour::Oci, 3)),
        ("large", large),
    ];
    through_the_mirror(&images, |mirror| {
        Box::new(Docker::start(&mirror.address().to_string()))
    })
    .await;
}

/// nginx with TLS, a private authority and HTTP/2 in front of the registry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_behind_tls_and_http2() {
    let registry = Registry::start().await;
    let image = image::multi_platform(Flavour::Oci, 1, 300_000);
    registry.push("library/app", "oci", &image).await;
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let ca = authority.write(dir.path());
    let (certificate, key) = authority.localhost().write(dir.path(), "server");
    let (port, root) = (free_port(), dir.path().display());
    let config = format!(
        "daemon off; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\nhttp {{ access_log {root}/access.log; client_body_temp_path {root}; proxy_temp_path {root}; \
         server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {}; location / {{ proxy_pass {}; proxy_set_header Host $http_host; }} }} }}\n",
        certificate.display(),
        key.display(),
        registry.url()
    );
    fs::write(dir.path().join("nginx.conf"), config).unwrap();
    let mut nginx = Daemon::start(
        Command::new("nginx")
            .arg("-c")
            .arg(dir.path().join("nginx.conf")),
        dir.path().join("log"),
    );
    nginx.wait(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let remote = |more: String| Remote {
        key: "docker-hub",
        url: format!("https://localhost:{port}"),
        serves: "docker.io",
        more,
    };
    // Without its authority it is not trusted, and nothing of it is believed.
    let strangers = Mirror::with(&[remote(String::new())], "").await;
    assert_eq!(
        strangers
            .client()
            .manifest("app", "oci")
            .await
            .status
            .as_u16(),
        502
    );
    let mirror = Mirror::with(
        &[remote(format!(
            "ca = \"{}\"\ntag_ttl = \"0s\"",
            ca.display()
        ))],
        "",
    )
    .await;
    let mut crane = Crane {
        address: mirror.address().to_string(),
        dir: tempfile::tempdir().unwrap(),
    };
    crane.pull(&tagged("oci"));
    let seen = fs::read_to_string(dir.path().join("access.log")).unwrap();
    assert!(
        seen.contains("/blobs/") && seen.lines().all(|line| line.contains("HTTP/2.0")),
        "{seen}"
    );
    nginx.stop();
    crane.pull(&tagged("oci"));
    crane.pull(&digested(&image));
}

/// What a registry behind a real token server refuses is refused here, in its own words, and nothing of it is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_that_says_no() {
    let mut registry = Registry::start().await;
    let image = image::multi_platform(Flavour::Oci, 3, 1000);
    registry.push("library/app", "1", &image).await;
    registry.push("library/public", "1", &image).await;
    let tokens = TokenServer::start();
    registry.protect(&tokens);

    // A wrong password is the mirror's trouble, not the client's: no challenge, no 404.
    let mirror = mirror_with_password("wrong-s3cret-canary", &registry, &tokens).await;
    let answer = mirror.client().manifest("library/app", "1").await;
    assert_eq!(answer.status.as_u16(), 502, "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), None);
    assert!(mirror.files("blobs").is_empty());

    // Nobody in particular may read what is public, and nothing else.
    let remote = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "docker.io",
        more: format!(
            "token_hosts = [\"{}\"]\nallow_addresses = [\"127.0.0.1/32\"]",
            tokens.host()
        ),
    };
    let mirror = Mirror::with(&[remote], "").await;
    let client = mirror.client();
    assert!(
        client
            .manifest("library/public", "1")
            .await
            .is(&image.root.bytes)
    );
    let answer = client.manifest("library/app", "1").await;
    assert_eq!(answer.status.as_u16(), 403, "{answer:?}");
    assert_eq!(answer.code(), "DENIED");
    // What the other image brought does not open this one.
    let blob = &image.blobs[0];
    assert!(
        client
            .blob("library/public", &blob.digest)
            .await
            .is(&blob.bytes)
    );
    assert_eq!(
        client
            .blob("library/app", &blob.digest)
            .await
            .status
            .as_u16(),
        403
    );
}
