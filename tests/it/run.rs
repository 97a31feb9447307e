//! `roadstead run`: a mirror beside one command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::eventually;
use crate::support::image::{self, Flavour};
use crate::support::{Image, Mirror, Remote, Upstream, wait_until};

/// A configuration for runs, and a directory to keep between them.
struct Job {
    dir: TempDir,
}

impl Job {
    fn new(upstream: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[remote.docker-hub]\nurl = \"{upstream}\"\ntag_ttl = \"0s\"\n[virtual.docker-virtual]\nmembers = [\"docker-hub\"]\nserves = [\"docker.io\"]\n[storage]\nmin_free = \"0\"\n"
        );
        fs::write(dir.path().join("mirror.toml"), text).unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `roadstead run` with these options, and a shell that runs the script.
    fn command(&self, options: &[&str], script: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command
            .args(["run", "-c"])
            .arg(self.at("mirror.toml"))
            .arg("--data")
            .arg(self.at("data"))
            .arg("--summary")
            .arg(self.at("summary.json"))
            .args(options)
            .args(["--", "bash", "-c", script])
            .env("TMPDIR", self.at("tmp"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, options: &[&str], script: &str) -> Output {
        self.command(options, script).output().unwrap()
    }

    /// The same, which must go well; its summary.
    fn done(&self, options: &[&str], script: &str) -> Value {
        let output = self.run(options, script);
        assert!(output.status.success(), "{output:?}");
        self.summary()
    }

    fn summary(&self) -> Value {
        serde_json::from_slice(&fs::read(self.at("summary.json")).unwrap()).unwrap()
    }

    /// In the background, until it has said so with a file.
    fn begin(&self, options: &[&str], script: &str) -> Child {
        let script = format!("touch \"$READY\"; {script}");
        let mut command = self.command(options, &script);
        let child = command
            .env("READY", self.at("ready"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(wait_until(|| self.at("ready").exists()));
        child
    }
}

/// Pulls an image as Docker does, by tag or digest, the platform and all its blobs.
fn pull(name: &str, tag: &str, image: &Image) -> String {
    let base = format!("$ROADSTEAD_URL/v2/{name}");
    let get =
        |kind: &str, reference: &str| format!("curl -sSf -o /dev/null {base}/{kind}/{reference}\n");
    let mut script = format!("curl -sSf -o /dev/null -I {base}/manifests/{tag}\n");
    script.push_str(&get("manifests", image.digest()));
    if image.manifests.len() > 1 {
        script.push_str(&get("manifests", &image.child(0).digest));
    }
    for layer in image.layers() {
        script.push_str(&get("blobs", &layer.digest));
    }
    script
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn exit_code(job: &Job, script: &str) -> Option<i32> {
    job.run(&[], script).status.code()
}

#[test]
fn its_exit_code_is_the_commands() {
    let job = Job::new("http://127.0.0.1:9");
    assert_eq!(exit_code(&job, "exit 0"), Some(0));
    assert_eq!(exit_code(&job, "exit 3"), Some(3));
    assert_eq!(job.summary()["exit_code"], 3);
    assert_eq!(exit_code(&job, "kill -TERM $$"), Some(143));
    assert_eq!(job.summary()["exit_code"], 143);
    let odd = |program: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        let command = command.args(["run", "--data"]).arg(job.at("data"));
        let output = command.arg("--").arg(program).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = odd(Path::new("/there/is/none"));
    assert_eq!(code, Some(127), "{said}");
    assert!(said.contains("cannot run /there/is/none"), "{said}");
    assert_eq!(odd(&job.at("mirror.toml")).0, Some(126));
}

#[test]
fn what_cannot_start_is_said_before_the_command_runs() {
    let job = Job::new("http://127.0.0.1:9");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = job.run(&["--parent", "https://me:s3cret-canary@x"], "touch ran");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("docker login"), "{}", said(&output));
    assert!(!said(&output).contains("canary"), "{}", said(&output));
    let output = job.run(&["--lock", "nowhere/lock"], "touch ran");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let output = job.run(
        &["--docker-daemon=daemon.json", "--docker-pidfile", "none"],
        "touch ran",
    );
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let mut other = job.begin(&[], "read -r _ < <(sleep 600)");
    let output = job.run(&[], "touch ran");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("in use by process"),
        "{}",
        said(&output)
    );
    assert!(!job.at("ran").exists());
    signal(&other, "-TERM");
    assert_eq!(other.wait().unwrap().code(), Some(143));
}

#[test]
fn signals_go_to_the_command_and_all_that_it_started() {
    let job = Job::new("http://127.0.0.1:9");
    for (name, code) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
        drop(fs::remove_file(job.at("ready")));
        // The shell waits for a child, which gets the signal as well.
        let mut child = job.begin(&[], "trap 'exit 7' USR1; sleep 600; echo never > late");
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
        assert_eq!(job.summary()["exit_code"], code);
        assert_eq!(fs::read_dir(job.at("tmp")).unwrap().count(), 0);
    }
    drop(fs::remove_file(job.at("ready")));
    let mut child = job.begin(&[], "trap 'exit 5' TERM; while :; do sleep 0.1; done");
    signal(&child, "-TERM");
    assert_eq!(
        child.wait().unwrap().code(),
        Some(5),
        "what it makes of it is its own"
    );
    assert!(!job.at("late").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_points_at_it_and_is_gone_afterwards() {
    let upstream = Upstream::start().await;
    let job = Job::new(&upstream.url());
    let script =
        "set -e; env > env; stat -c %a \"$(dirname \"$CONTAINERS_REGISTRIES_CONF\")\" > mode
        cp \"$CONTAINERS_REGISTRIES_CONF\" registries; cp \"$ROADSTEAD_BUILDKITD_TOML\" buildkit
        cp \"$ROADSTEAD_CONTAINERD_HOSTS/docker.io/hosts.toml\" hosts
        curl -sSf \"$ROADSTEAD_URL/v2/\"; \"$BINARY\" pins -c mirror.toml";
    let mut command = job.command(&[], script);
    let output = command
        .env("BINARY", env!("CARGO_BIN_EXE_roadstead"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let read = |name: &str| fs::read_to_string(job.at(name)).unwrap();
    assert_eq!(read("mode").trim(), "700");
    let environment = read("env");
    let variable = |name: &str| {
        let mut lines = environment.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("{name} in {environment}"))
            .to_owned()
    };
    let registry = variable("ROADSTEAD_REGISTRY");
    assert_eq!(variable("ROADSTEAD_URL"), format!("http://{registry}"));
    assert!(registry.starts_with("127.0.0.1:"), "{registry}");
    for name in ["registries", "buildkit", "hosts"] {
        assert!(
            read(name).contains(&registry) && read(name).contains("docker.io"),
            "{}",
            read(name)
        );
    }
    // Nothing of it is left, and nobody listens any more.
    assert_eq!(fs::read_dir(job.at("tmp")).unwrap().count(), 0);
    assert!(std::net::TcpStream::connect(registry).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_and_a_warm_run_tell_what_the_upstream_saw() {
    let upstream = Upstream::start().await;
    let (single, several) = (
        image::small(Flavour::Docker, 1),
        image::multi_platform(Flavour::Oci, 2, 100_000),
    );
    upstream.hold("library/app", "1", &single);
    upstream.hold("team/app", "2", &several);
    let job = Job::new(&upstream.url());
    let script = format!(
        "set -e\n{}{}",
        pull("library/app", "1", &single),
        pull("team/app", "2", &several)
    );
    let counted = |from: usize| {
        let log = upstream.log().split_off(from);
        let gets = log
            .iter()
            .filter(|seen| seen.method == "GET" && seen.path.contains("/manifests/"));
        (log.len() as u64, gets.count() as u64)
    };
    let cold = job.done(&["--lock", "lock.toml"], &script);
    let (requests, pulls) = counted(0);
    assert_eq!(
        (&cold["upstream_requests"], &cold["upstream_pulls"]),
        (&requests.into(), &pulls.into()),
        "{cold}"
    );
    assert_eq!(
        (pulls, &cold["upstream_pulls_saved"]),
        (3, &0.into()),
        "{cold}"
    );
    let blobs = single.layers().len() + several.layers().len();
    assert_eq!(
        cold["hits"].as_u64().unwrap() + cold["misses"].as_u64().unwrap(),
        3 + blobs as u64,
        "{cold}"
    );
    assert_eq!(
        cold["bytes_from_upstream"], cold["bytes_to_clients"],
        "{cold}"
    );
    assert_eq!(cold["remotes"]["docker-hub"]["upstream_requests"], requests);
    let named: Vec<_> = cold["pulls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["image"].as_str().unwrap(),
                one["tag"].as_str().unwrap(),
                one["times"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        named,
        [
            ("docker.io/library/app", "1", 1),
            ("docker.io/team/app", "2", 1)
        ]
    );
    // The lock is the one that `roadstead lock` writes, of the platform that was pulled.
    let lock = fs::read_to_string(job.at("lock.toml")).unwrap();
    let lock: Value = toml::from_str(&lock).unwrap();
    assert_eq!(lock, cold["lock"]);
    assert_eq!(lock["image"][0]["digest"], single.digest());
    assert_eq!(lock["image"][1]["reference"], "docker.io/team/app:2");
    assert_eq!(lock["image"][1]["digest"], several.digest());
    let platforms = lock["image"][1]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 1, "{lock}");
    assert_eq!(platforms[0]["digest"], several.child(0).digest);

    let before = upstream.log().len();
    let warm = job.done(
        &[],
        &format!("{script}{}", pull("library/app", "1", &single)),
    );
    let (requests, pulls) = counted(before);
    assert_eq!(
        (&warm["upstream_requests"], &warm["upstream_pulls"]),
        (&requests.into(), &pulls.into()),
        "{warm}"
    );
    // Tags are confirmed by HEAD, and nothing comes.
    assert_eq!(
        (pulls, requests, &warm["misses"]),
        (0, 3, &0.into()),
        "{warm}"
    );
    assert_eq!(
        (&warm["bytes_from_upstream"], &warm["bytes_saved"]),
        (&0.into(), &warm["bytes_to_clients"])
    );
    assert_eq!(warm["upstream_pulls_saved"], 4);
    assert_eq!(warm["pulls"][0]["times"], 2, "{warm}");
    assert_eq!(warm["pulls"][1]["times"], 1, "{warm}");
    assert_eq!(warm["lock"], cold["lock"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stays_is_cut_to_size_and_can_be_carried_away() {
    let upstream = Upstream::start().await;
    let images: Vec<Image> = (1..=3)
        .map(|seed| {
            let layer = image::noise_layer(image::Packing::Plain, seed, 300_000);
            image::image(Flavour::Oci, "amd64", &[layer])
        })
        .collect();
    for (number, one) in images.iter().enumerate() {
        upstream.hold("library/app", &number.to_string(), one);
    }
    let job = Job::new(&upstream.url());
    let of = |numbers: &[usize]| {
        let scripts = numbers
            .iter()
            .map(|number| pull("library/app", &number.to_string(), &images[*number]));
        scripts.collect::<String>()
    };
    job.done(&[], &of(&[0, 1]));
    let cut = job.done(&["--max-size", "700kB"], &of(&[0, 2]));
    assert!(cut["data"]["bytes"].as_u64().unwrap() <= 700_000, "{cut}");
    assert!(
        cut["data"]["evicted_bytes"].as_u64().unwrap() >= 300_000,
        "{cut}"
    );
    let names = |below: &str| -> Vec<String> {
        let found = fs::read_dir(job.at("data").join(below)).unwrap();
        found
            .map(|one| one.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert!(names("staging").is_empty() && names("quarantine").is_empty());
    let left = names("");
    assert!(left.contains(&"clean".to_owned()), "{left:?}");
    assert!(
        !left
            .iter()
            .any(|name| name.ends_with("-wal") || name.ends_with(".sock")),
        "{left:?}"
    );
    for name in ["lock", "version", "clean"] {
        let text = fs::read_to_string(job.at("data").join(name)).unwrap();
        assert!(!text.contains('/'), "{name}: {text}");
    }
    // Elsewhere it is as warm as here: what was used last is there, and the rest is not.
    let (elsewhere, before) = (Job::new(&upstream.url()), upstream.log().len());
    let copied = Command::new("cp")
        .arg("-a")
        .args([job.at("data"), elsewhere.at("data")])
        .status();
    assert!(copied.unwrap().success());
    let warm = elsewhere.done(&[], &of(&[0, 2]));
    assert_eq!(
        (&warm["misses"], upstream.log().len() - before),
        (&0.into(), 2),
        "{warm}"
    );
    let cold = elsewhere.done(&[], &of(&[1]));
    assert_ne!(cold["misses"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_the_next_run_goes_on() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/app", "1", &image);
    let job = Job::new(&upstream.url());
    let script = format!(
        "{}touch pulled; exec sleep 600",
        pull("library/app", "1", &image)
    );
    let mut child = job.begin(&[], &format!("echo $$ > shell; {script}"));
    eventually!(job.at("pulled").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    // The command outlives who started it, as whatever a killed shell runs; it is one process, and is ended by its own id.
    let id = fs::read_to_string(job.at("shell")).unwrap();
    let id: u32 = id.trim().parse().unwrap();
    assert!(id > 1);
    let ended = Command::new("kill").arg(id.to_string()).status();
    assert!(ended.unwrap().success());
    let warm = job.done(&[], &pull("library/app", "1", &image));
    assert_eq!(
        (&warm["misses"], &warm["upstream_pulls"]),
        (&0.into(), &0.into()),
        "{warm}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_spares_the_upstream() {
    let upstream = Upstream::start().await;
    let image = image::multi_platform(Flavour::Oci, 1, 100_000);
    upstream.hold("library/app", "1", &image);
    let parent = Mirror::with(&[Remote::hub(&upstream.url())], "").await;
    let url = parent.url();
    let script = format!("set -e\n{}", pull("library/app", "1", &image));
    let first = Job::new(&upstream.url());
    let told = first.done(&["--parent", &url], &script);
    // All that the upstream saw, it saw from the parent.
    assert_eq!(
        (&told["upstream_requests"], &told["upstream_pulls"]),
        (&0.into(), &0.into()),
        "{told}"
    );
    assert_eq!(told["parent_pulls"], 2, "{told}");
    assert_eq!(
        told["bytes_from_parent"], told["bytes_to_clients"],
        "{told}"
    );
    assert_eq!(upstream.count("GET", &image.child(0).digest), 1);
    // Another job has all of it from the parent: the upstream is only asked what the tag means, by the parent.
    let before = upstream.log().len();
    let second = Job::new(&upstream.url());
    let told = second.done(&["--parent", &url], &script);
    assert_eq!(told["upstream_requests"], 0, "{told}");
    let seen = upstream.log().split_off(before);
    assert!(seen.iter().all(|one| one.method == "HEAD"), "{seen:?}");
    let served = parent.log();
    assert!(served.iter().any(|line| line.contains("ns=docker.io")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_parent_a_run_goes_to_the_upstream() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/app", "1", &image);
    // Not a mirror that knows `?ns=`, and none at all.
    let stranger = Upstream::start().await;
    stranger.hold("library/app", "1", &image::small(Flavour::Oci, 2));
    for parent in [stranger.url(), "http://127.0.0.1:9".to_owned()] {
        let job = Job::new(&upstream.url());
        let script = format!("set -e\n{}", pull("library/app", "1", &image));
        let output = job.run(&["--parent", &parent], &script);
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the parent gives no answer"), "{said}");
        let told = job.summary();
        assert_eq!(
            (&told["upstream_pulls"], &told["parent_pulls"]),
            (&1.into(), &0.into()),
            "{told}"
        );
        assert_eq!(told["lock"]["image"][0]["digest"], image.digest());
    }
}
