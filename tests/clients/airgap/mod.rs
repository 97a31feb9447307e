//! Across a gap: two mirrors in network namespaces of their own that share nothing but a directory. On one side a real registry, on the other
//! nothing at all, and real clients that pull there what was carried.

mod archives;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::bundles::bundle;
use crate::parts::{Daemon, run, tool};
use crate::pulls::{Docker, Podman};
use crate::support::image::{self, Flavour, Image, Packing};

/// Where the mirror is, in each namespace, and in one of them the registry.
const MIRROR: &str = "127.0.0.1:5000";
const REGISTRY: &str = "127.0.0.1:5001";

/// A network with nothing but loopback, which is gone when this is dropped. Needs root.
struct Network(Child);

impl Network {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c"])
            .arg("ip link set lo up && echo up && exec sleep 3600")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "a network of its own needs root");
        Self(holder)
    }

    /// A program in it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.0.id()))
            .arg(program);
        command
    }

    /// The same program, with its arguments and environment, in it.
    fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = self.command(command.get_program());
        wrapped.args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                wrapped.env(key, value);
            }
        }
        wrapped
    }

    fn is_heard(&self, address: &str) -> bool {
        let asked = self
            .command("curl")
            .args(["-s", "-o", "/dev/null", "--max-time", "5"])
            .arg(format!("http://{address}/v2/"))
            .status();
        asked.unwrap().success()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A mirror with the built-in repositories, in a network of its own.
struct Side {
    mirror: Daemon,
    network: Network,
    dir: TempDir,
}

impl Side {
    fn start(is_offline: bool) -> Self {
        let network = Network::new();
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "[storage]\nmin_free = \"1MiB\"\n[mirror]\ndefault = \"docker-virtual\"\noffline = {is_offline}\n\
             [remote.docker-hub]\nurl = \"http://{REGISTRY}\"\nserves = []\ntag_ttl = \"0s\"\n\
             [local.dev-local]\n[virtual.docker-virtual]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n"
        );
        fs::write(dir.path().join("mirror.toml"), config).unwrap();
        let mut serve = network.command(env!("CARGO_BIN_EXE_roadstead"));
        serve.args(["serve", "--listen", MIRROR]);
        let log = dir.path().join("log");
        let mut mirror = Daemon::start(Self::with(&mut serve, dir.path()), log);
        mirror.wait(|| network.is_heard(MIRROR));
        Self {
            mirror,
            network,
            dir,
        }
    }

    fn with<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
        command
            .arg("-c")
            .arg(dir.join("mirror.toml"))
            .arg("--data")
            .arg(dir.join("data"))
    }

    /// A command of the operator's on this side; what it prints.
    fn roadstead(&self, arguments: &[&str]) -> String {
        let mut command = self.network.command(env!("CARGO_BIN_EXE_roadstead"));
        command.args(arguments);
        let output = run(Self::with(&mut command, self.dir.path()));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
        let output = run(self.network.command(program).args(arguments));
        String::from_utf8(output.stdout).unwrap()
    }

    fn cosign(&self, keys: &Path, arguments: &[&str]) {
        let mut command = self.network.command(tool("cosign"));
        command
            .current_dir(keys)
            .env("HOME", keys)
            .env("COSIGN_PASSWORD", "")
            .args(arguments);
        run(&mut command);
    }
}

/// A real registry on a side.
fn registry(side: &Side) -> Daemon {
    let root = side.dir.path().join("registry");
    let config = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{REGISTRY}\"}}\n",
        root.display()
    );
    let path = side.dir.path().join("registry.yml");
    fs::write(&path, config).unwrap();
    let mut serve = side.network.command("docker-registry");
    let log = side.dir.path().join("registry.log");
    let mut daemon = Daemon::start(serve.arg("serve").arg(&path), log);
    daemon.wait(|| side.network.is_heard(REGISTRY));
    daemon
}

/// Two platforms, with layers that every client unpacks.
fn several(seed: u64) -> Image {
    let one = |architecture: &str, seed| {
        let layers = [
            image::noise_layer(Packing::Gzip, seed, 100_000),
            image::layer(Packing::Gzip, &[("etc/arch", architecture.as_bytes())]),
        ];
        image::image(Flavour::Oci, architecture, &layers)
    };
    image::index(Flavour::Oci, &[one("amd64", seed), one("arm64", seed + 1)])
}

/// Pushes an image to the registry of a side as people do: by skopeo, or by crane from a directory.
fn publish(side: &Side, name: &str, tag: &str, image: &Image, by: &str) {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    let full = format!("docker.io/{name}:{tag}");
    bundle(&archive, &[(&full, image)]);
    let target = format!("{REGISTRY}/{name}:{tag}");
    if by == "skopeo" {
        let from = format!("oci-archive:{}:{full}", archive.display());
        let to = format!("docker://{target}");
        let copy = [
            "--insecure-policy",
            "copy",
            "--all",
            "--dest-tls-verify=false",
        ];
        side.run("skopeo", &[&copy[..], &[&from, &to]].concat());
    } else {
        let unpacked = dir.path().join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        let mut tar = Command::new("tar");
        run(tar.arg("-xf").arg(&archive).arg("-C").arg(&unpacked));
        let path = unpacked.display().to_string();
        side.run(tool("crane"), &["--insecure", "push", &path, &target]);
    }
}

/// containerd on a side; its socket can be reached from anywhere.
struct Ctr {
    _daemon: Daemon,
    dir: TempDir,
}

impl Ctr {
    fn start(network: &Network) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts/docker.io");
        fs::create_dir_all(&hosts).unwrap();
        let text = format!(
            "server = \"https://registry-1.docker.io\"\n[host.\"http://{MIRROR}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(hosts.join("hosts.toml"), text).unwrap();
        let (root, config) = (dir.path().display(), dir.path().join("config.toml"));
        let text = format!(
            "version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{root}/sock\"\n"
        );
        fs::write(&config, text).unwrap();
        let socket = dir.path().join("sock");
        let mut serve = network.command("containerd");
        let log = dir.path().join("log");
        let mut daemon = Daemon::start(serve.arg("--config").arg(&config), log);
        daemon.wait(|| std::os::unix::net::UnixStream::connect(&socket).is_ok());
        Self {
            _daemon: daemon,
            dir,
        }
    }

    fn command(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.dir.path().join("sock"));
        ctr
    }

    fn says(&self, arguments: &[&str]) -> String {
        let output = run(self.command().args(arguments));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Every client that pulls on the other side.
struct Clients {
    docker: Docker,
    podman: Podman,
    containerd: Ctr,
}

impl Clients {
    fn start(side: &Side) -> Self {
        let docker = side.network.command("dockerd");
        Self {
            docker: Docker::start_by(docker, MIRROR),
            podman: Podman::start(MIRROR),
            containerd: Ctr::start(&side.network),
        }
    }

    /// Pulls an image of Docker Hub by every one of them, as if there were one; each must have what `image` is.
    fn pull(&self, side: &Side, name: &str, image: &Image) {
        let full = format!("docker.io/{name}");
        run(self.docker.command().args(["pull", &full]));
        let shown = run(self.docker.command().args(["image", "inspect", &full]));
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(image.digest()), "{shown}");

        let mut ctr = self.containerd.command();
        ctr.args(["images", "pull", "--snapshotter", "native"])
            .args(["--all-platforms", "--hosts-dir"])
            .arg(self.containerd.dir.path().join("hosts"))
            .arg(&full);
        run(&mut side.network.wrap(&ctr));
        let listed = self.containerd.says(&["images", "ls"]);
        assert!(listed.contains(image.digest()), "{listed}");
        let content = self.containerd.says(&["content", "ls", "-q"]);
        for one in image.manifests.iter().chain(&image.blobs) {
            assert!(content.contains(&one.digest), "{name}: {}", one.digest);
        }

        let mut podman = self.podman.command();
        podman.args(["pull", "--quiet", "--arch", "amd64", &full]);
        run(&mut side.network.wrap(&podman));
        let inspect = ["image", "inspect", "--format", "{{.RepoDigests}}", &full];
        let shown = run(self.podman.command().args(inspect));
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(image.digest()), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_cross_a_gap_and_every_client_pulls_them_there() {
    let (here, mut there) = (Side::start(false), Side::start(true));
    let _registry = registry(&here);
    assert!(
        !there.network.is_heard(REGISTRY),
        "there is a way around the gap"
    );
    let stick = tempfile::tempdir().unwrap();
    let at = |name: &str| stick.path().join(name).display().to_string();

    let (app, tools) = (several(1), image::small(Flavour::Docker, 50));
    publish(&here, "library/app", "1", &app, "skopeo");
    publish(&here, "team/tools", "2", &tools, "crane");
    let keys = tempfile::tempdir().unwrap();
    here.cosign(keys.path(), &["generate-key-pair"]);
    let sign = |image: &Image| {
        let signed = format!("{REGISTRY}/library/app@{}", image.digest());
        let sign = [
            "sign",
            "--key",
            "cosign.key",
            "--tlog-upload=false",
            "--allow-http-registry",
            "-y",
        ];
        here.cosign(keys.path(), &[&sign[..], &[&signed]].concat());
    };
    sign(&app);

    let list = at("images.txt");
    fs::write(&list, "app:1\nteam/tools:2\n").unwrap();
    let first = at("first.tar");
    here.roadstead(&["export", "--with-referrers", "-f", &list, "-o", &first]);
    there.roadstead(&["import", "--dry-run", &first]);
    there.roadstead(&["import", &first]);
    let clients = Clients::start(&there);
    clients.pull(&there, "library/app:1", &app);
    clients.pull(&there, "team/tools:2", &tools);
    let verify = |side: &Side| {
        let image = format!("{MIRROR}/library/app:1");
        let verify = [
            "verify",
            "--key",
            "cosign.pub",
            "--insecure-ignore-tlog",
            "--allow-http-registry",
        ];
        side.cosign(keys.path(), &[&verify[..], &[&image]].concat());
    };
    verify(&there);

    // The tag moves, and an image comes.
    let (next, added) = (several(100), several(200));
    publish(&here, "library/app", "1", &next, "crane");
    publish(&here, "library/added", "1", &added, "skopeo");
    sign(&next);
    fs::write(&list, "app:1\nteam/tools:2\nadded:1\n").unwrap();
    let (have, second) = (at("there.inventory"), at("second.tar"));
    there.roadstead(&["inventory", "-o", &have]);
    let export = ["export", "--with-referrers", "--have", &have, "-f", &list];
    here.roadstead(&[&export[..], &["-o", &second]].concat());
    let new = [&next, &added].map(|image| image.manifests.iter().chain(&image.blobs));
    let new: u64 = new.into_iter().flatten().map(image::Content::size).sum();
    let length = fs::metadata(&second).unwrap().len();
    assert!(length < new + 60_000, "{length} for {new}");
    there.roadstead(&["import", &second]);
    clients.pull(&there, "library/app:1", &next);
    clients.pull(&there, "library/added:1", &added);
    verify(&there);
    there.mirror.stop();
}
