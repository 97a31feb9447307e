//! `roadstead run` around real work: what its summary says is what the registry behind it saw.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::parts::{Daemon, Registry, run};
use crate::support::image::{self, Flavour};
use crate::support::{Image, Walkthrough, wait_until};

/// How many images a job pulls.
const IMAGES: u64 = 5;

/// A registry with five images, a directory that is kept from job to job, and a dockerd of its own.
struct Job {
    registry: Registry,
    images: Vec<Image>,
    dir: TempDir,
    sent_before: std::cell::Cell<u64>,
}

impl Job {
    async fn new() -> Self {
        let registry = Registry::start().await;
        let mut images = Vec::new();
        for seed in 1..=IMAGES {
            // Docker of Debian knows no zstd layers.
            let image = if seed % 2 == 0 {
                image::multi_platform(Flavour::Docker, seed, 200_000)
            } else {
                image::small(Flavour::Oci, seed)
            };
            registry
                .push(&format!("library/app{seed}"), "1", &image)
                .await;
            images.push(image);
        }
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[remote.docker-hub]\nurl = \"{}\"\ntag_ttl = \"0s\"\n[virtual.docker-virtual]\nmembers = [\"docker-hub\"]\nserves = [\"docker.io\"]\n",
            registry.url()
        );
        fs::write(dir.path().join("mirror.toml"), text).unwrap();
        fs::write(
            dir.path().join("policy.json"),
            "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}",
        )
        .unwrap();
        Self {
            registry,
            images,
            dir,
            sent_before: std::cell::Cell::new(0),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, data: &str, options: &[&str], script: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(["run", "-c"])
            .arg(self.at("mirror.toml"))
            .arg("--data")
            .arg(self.at(data))
            .arg("--summary")
            .arg(self.at("summary.json"))
            .args(options)
            .args(["--", "bash", "-euc", script])
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// What the registry has seen: all requests, and manifests that it gave to a GET.
    fn seen(&self) -> (u64, u64) {
        let log = self.registry.log();
        let answered = log
            .lines()
            .filter(|line| line.contains("response completed"));
        let (mut all, mut pulls) = (0, 0);
        for line in answered {
            all += 1;
            let is_pull = line.contains("http.request.method=GET")
                && line.contains("/manifests/")
                && line.contains("http.response.status=200");
            pulls += u64::from(is_pull);
        }
        (all, pulls)
    }

    /// How many bytes of manifests and blobs the registry has sent since its start, when nothing but one run asked.
    fn sent(&self) -> u64 {
        let log = self.registry.log();
        let gets = log.lines().filter(|line| {
            line.contains("response completed")
                && line.contains("http.request.method=GET")
                && (line.contains("/manifests/") || line.contains("/blobs/"))
        });
        let written = gets.map(|line| {
            let rest = line.split("http.response.written=").nth(1).unwrap();
            rest.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        written.sum::<u64>() - self.sent_before.get()
    }

    /// Runs the script cold and warm, `forget` between them; the summaries agree with the registry.
    fn cold_and_warm(&self, data: &str, options: &[&str], script: &str) {
        for round in ["cold", "warm"] {
            let before = self.seen();
            self.sent_before.set(self.sent_before.get() + self.sent());
            run(&mut self.command(data, options, script));
            let told: Value =
                serde_json::from_slice(&fs::read(self.at("summary.json")).unwrap()).unwrap();
            let requests = told["upstream_requests"].as_u64().unwrap();
            let pulls = told["upstream_pulls"].as_u64().unwrap();
            // Its log is behind by a moment.
            let agrees = || {
                let after = self.seen();
                (after.0 - before.0, after.1 - before.1) == (requests, pulls)
            };
            let after = self.seen();
            assert!(
                wait_until(agrees),
                "{data} {round}: {before:?} {after:?} {told}"
            );
            assert_eq!(
                told["pulls"].as_array().unwrap().len() as u64,
                IMAGES,
                "{told}"
            );
            for (number, image) in self.images.iter().enumerate() {
                let pull = &told["pulls"][number];
                assert_eq!(
                    pull["image"],
                    format!("docker.io/library/app{}", number + 1)
                );
                assert_eq!(pull["digest"], image.digest());
                assert_eq!(told["lock"]["image"][number]["digest"], image.digest());
            }
            if round == "cold" {
                assert_eq!(pulls, IMAGES + IMAGES / 2, "an index and its image: {told}");
                assert_eq!(told["bytes_from_upstream"], self.sent(), "{told}");
            } else {
                assert_eq!(
                    (pulls, &told["bytes_from_upstream"]),
                    (0, &0.into()),
                    "{told}"
                );
                assert_eq!(told["bytes_saved"], told["bytes_to_clients"]);
                assert_eq!(told["misses"], 0, "{told}");
            }
        }
    }
}

/// A script with a line for each image.
fn each(line: impl Fn(&str) -> String) -> String {
    (1..=IMAGES)
        .map(|seed| line(&format!("app{seed}")) + "\n")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn podman_and_skopeo_by_environment_alone() {
    let job = Job::new().await;
    let root = job.dir.path().display().to_string();
    let podman = format!(
        "podman --root {root}/root --runroot {root}/runroot --storage-driver vfs --cgroup-manager cgroupfs --events-backend none"
    );
    let pulls = each(|name| {
        format!(
            "{podman} pull -q --arch amd64 --signature-policy policy.json docker.io/library/{name}:1"
        )
    });
    let script = format!("export TMPDIR={root}\n{pulls}{podman} rmi --all --force\n");
    job.cold_and_warm("podman", &[], &script);
    let pulls = each(|name| {
        format!(
            "rm -rf out; skopeo --policy policy.json copy -q --override-arch amd64 docker://docker.io/library/{name}:1 dir:out"
        )
    });
    job.cold_and_warm("skopeo", &[], &pulls);
}

/// A dockerd with a configuration, a process id and a socket of its own.
struct Docker {
    socket: PathBuf,
    config: PathBuf,
    pidfile: PathBuf,
    _daemon: Daemon,
    _dir: TempDir,
}

impl Docker {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (socket, file, pidfile) = (at("docker.sock"), at("daemon.json"), at("pid"));
        fs::write(&file, config).unwrap();
        let mut command = Command::new("dockerd");
        command.args([
            "--storage-driver=vfs",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
        ]);
        command
            .arg("-H")
            .arg(format!("unix://{}", socket.display()));
        for (option, path) in [
            ("--data-root", at("root")),
            ("--exec-root", at("exec")),
            ("--pidfile", pidfile.clone()),
            ("--config-file", file.clone()),
        ] {
            command.arg(option).arg(path);
        }
        let mut daemon = Daemon::start(&mut command, at("log"));
        let ready = || mirrors(&socket).is_some();
        daemon.wait(ready);
        Self {
            socket,
            config: file,
            pidfile,
            _daemon: daemon,
            _dir: dir,
        }
    }

    fn options(&self) -> [String; 3] {
        [
            format!("--docker-daemon={}", self.config.display()),
            "--docker-pidfile".to_owned(),
            self.pidfile.display().to_string(),
        ]
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn assert_as_before(&self, config: &str) {
        assert_eq!(fs::read_to_string(&self.config).unwrap(), config);
        assert_eq!(mirrors(&self.socket).unwrap(), "[]");
    }
}

/// The mirrors that the daemon there says it has.
fn mirrors(socket: &Path) -> Option<String> {
    let output = Command::new("docker")
        .args(["-H", &format!("unix://{}", socket.display())])
        .args(["info", "--format", "{{json .RegistryConfig.Mirrors}}"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    let text = if text == "null" {
        "[]".to_owned()
    } else {
        text
    };
    output.status.success().then_some(text)
}

const ODD: &str = "{ \"debug\":false  }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_daemon_pulls_through_it_and_is_put_back() {
    let job = Job::new().await;
    let docker = Docker::start(ODD);
    let (options, host) = (docker.options(), docker.host());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let pulls = each(|name| format!("docker pull -q {name}:1"));
    let script = format!("export DOCKER_HOST={host}\n{pulls}docker rmi -f $(docker images -aq)\n");
    // The variable is for `roadstead run` too, which asks the daemon what it has read.
    let script = script.as_str();
    let here = |data: &str, script: &str| {
        let mut command = job.command(data, &options, script);
        command.env("DOCKER_HOST", &host);
        command
    };
    for round in ["cold", "warm"] {
        let before = job.seen();
        run(&mut here("docker", script));
        docker.assert_as_before(ODD);
        let told: Value =
            serde_json::from_slice(&fs::read(job.at("summary.json")).unwrap()).unwrap();
        let (requests, pulled) = (
            told["upstream_requests"].as_u64().unwrap(),
            told["upstream_pulls"].as_u64().unwrap(),
        );
        let agrees = || {
            let after = job.seen();
            (after.0 - before.0, after.1 - before.1) == (requests, pulled)
        };
        assert!(
            wait_until(agrees),
            "{round}: {before:?} {:?} {told}",
            job.seen()
        );
        assert_eq!(
            told["pulls"].as_array().unwrap().len() as u64,
            IMAGES,
            "{told}"
        );
        assert_eq!(
            pulled,
            if round == "cold" {
                IMAGES + IMAGES / 2
            } else {
                0
            },
            "{told}"
        );
    }
    // A command that fails, and one that is ended.
    let failed = here("docker", "exit 3").output().unwrap();
    assert_eq!(failed.status.code(), Some(3));
    docker.assert_as_before(ODD);
    let mut ended = here("docker", "touch running; exec sleep 600")
        .spawn()
        .unwrap();
    assert!(wait_until(|| job.at("running").exists()));
    run(Command::new("kill").arg(ended.id().to_string()));
    assert_eq!(ended.wait().unwrap().code(), Some(143));
    docker.assert_as_before(ODD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_docker_daemon_is_put_back_by_the_next_start() {
    let job = Job::new().await;
    let docker = Docker::start(ODD);
    let (options, host) = (docker.options(), docker.host());
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let here = |script: &str| {
        let mut command = job.command("data", &options, script);
        command.env("DOCKER_HOST", &host);
        command
    };
    let kill = || {
        drop(fs::remove_file(job.at("id")));
        let mut killed = here("echo $$ > id; exec sleep 600").spawn().unwrap();
        assert!(wait_until(
            || fs::read_to_string(job.at("id")).is_ok_and(|id| id.ends_with('\n'))
        ));
        killed.kill().unwrap();
        killed.wait().unwrap();
        let id: u32 = fs::read_to_string(job.at("id"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(id > 1);
        run(Command::new("kill").arg(id.to_string()));
        assert_ne!(fs::read_to_string(&docker.config).unwrap(), ODD);
        assert!(mirrors(&docker.socket).unwrap().contains("127.0.0.1"));
    };
    kill();
    run(&mut here("cp \"$CONFIG\" during").env("CONFIG", &docker.config));
    docker.assert_as_before(ODD);
    assert!(
        fs::read_to_string(job.at("during"))
            .unwrap()
            .contains("127.0.0.1")
    );
    kill();
    // `serve` does the same before it listens.
    let mut serve = Daemon::start(
        Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args(["serve", "--listen", "127.0.0.1:0", "-c"])
            .arg(job.at("mirror.toml"))
            .arg("--data")
            .arg(job.at("data")),
        job.at("serve.log"),
    );
    serve.wait(|| fs::read_to_string(&docker.config).is_ok_and(|text| text == ODD));
    docker.assert_as_before(ODD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_does_what_it_says() {
    let registry = Registry::start().await;
    let image = image::small(Flavour::Docker, 1);
    registry.push("library/busybox", "1.36", &image).await;
    let dir = tempfile::tempdir().unwrap();
    let walkthrough = Walkthrough::of("docs/ci.md", "run");
    walkthrough.run(dir.path(), &[("HUB", &registry.url())]);
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(read("images.lock").contains(image.digest()));
    let warm: Value = serde_json::from_str(&read("warm.json")).unwrap();
    let told = (&warm["misses"], &warm["exit_code"]);
    assert_eq!(told, (&0.into(), &0.into()), "{warm}");
    assert!(dir.path().join("busybox/manifest.json").exists());
    assert!(dir.path().join("cache.tar").exists());
}
