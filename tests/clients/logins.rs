//! Logging in with real clients: nobody, somebody who may read, somebody who may write.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::parts::{Registry, run, tool};
use crate::pulls::{Docker, Podman};
use crate::support::image::{self, Flavour};
use crate::support::signer::Signer;
use crate::support::{Issuer, Mirror, Remote};

const RULES: &str = r#"
[local.dev-local]
[auth]
users = "users.htpasswd"
[[auth.allow]]
who = ["anonymous"]
on = ["docker-hub"]
may = ["pull"]
[[auth.allow]]
who = ["reader"]
on = ["dev-local"]
may = ["pull"]
[[auth.allow]]
who = ["writer"]
on = ["dev-local"]
may = ["pull", "push"]
"#;

fn type_in(command: &mut Command, text: &str) -> bool {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = child.unwrap();
    let _broken = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait().unwrap().success()
}

fn fails(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(!done.status.success(), "{command:?} went well");
}

/// A mirror with users `reader` and `writer`, whose passwords are `<name>-s3cret-canary`.
async fn guarded(registry: &Registry) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mirror.toml");
    fs::write(
        &file,
        format!("{RULES}[remote.docker-hub]\nurl = \"http://x\"\n"),
    )
    .unwrap();
    for user in ["reader", "writer"] {
        let mut add = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        add.arg("-c").arg(&file).args(["user", "add", user]);
        assert!(type_in(&mut add, &format!("{user}-s3cret-canary\n")));
    }
    let hub = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "docker.io",
        more: String::new(),
    };
    let data = dir.path().join("data");
    Mirror::in_directory(dir, data, &[hub], RULES).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_podman_skopeo_and_crane() {
    let registry = Registry::start().await;
    let image = image::small(Flavour::Docker, 1);
    registry.push("library/base", "1", &image).await;
    let mirror = guarded(&registry).await;
    let at = mirror.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (format!("{at}/base:1"), format!("{at}/dev-local/team/app:1"));

    // crane: nobody pulls what everybody may, the writer pushes, the reader pulls and does not push.
    let crane = |arguments: &[&str]| {
        let mut command = Command::new(tool("crane"));
        command
            .args(arguments)
            .arg("--insecure")
            .env("DOCKER_CONFIG", dir.path());
        command
    };
    run(&mut crane(&["validate", "--remote", &theirs]));
    fails(&mut crane(&["copy", &theirs, &ours]));
    run(&mut crane(&[
        "auth",
        "login",
        &at,
        "-u",
        "writer",
        "-p",
        "writer-s3cret-canary",
    ]));
    run(&mut crane(&["copy", &theirs, &ours]));
    run(&mut crane(&["validate", "--remote", &ours]));
    run(&mut crane(&[
        "auth",
        "login",
        &at,
        "-u",
        "reader",
        "-p",
        "reader-s3cret-canary",
    ]));
    run(&mut crane(&["validate", "--remote", &ours]));
    fails(&mut crane(&[
        "copy",
        &theirs,
        &format!("{at}/dev-local/team/app:2"),
    ]));

    // docker
    let docker = Docker::start(&at);
    let log_in = |user: &str, password: &str| {
        let mut command = docker.command();
        command
            .args(["login", &at, "-u", user, "--password-stdin"])
            .env("DOCKER_CONFIG", dir.path().join("docker"));
        type_in(&mut command, password)
    };
    let with = |arguments: &[&str]| {
        let mut command = docker.command();
        command
            .args(arguments)
            .env("DOCKER_CONFIG", dir.path().join("docker"));
        command
    };
    run(&mut with(&["pull", "base:1"]));
    fails(&mut with(&["pull", &ours]));
    assert!(!log_in("reader", "wrong"));
    assert!(log_in("reader", "reader-s3cret-canary"));
    run(&mut with(&["pull", &ours]));
    run(&mut with(&[
        "tag",
        "base:1",
        &format!("{at}/dev-local/team/docker:1"),
    ]));
    fails(&mut with(&[
        "push",
        &format!("{at}/dev-local/team/docker:1"),
    ]));
    assert!(log_in("writer", "writer-s3cret-canary"));
    run(&mut with(&[
        "push",
        &format!("{at}/dev-local/team/docker:1"),
    ]));
    // A daemon's mirror is asked without what was meant for Docker Hub, or with what is wrong here: what everybody may goes on.
    run(&mut with(&["rmi", "base:1"]));
    run(&mut with(&["pull", "base:1"]));

    // skopeo and podman
    let authfile = dir.path().join("auth.json");
    let policy = dir.path().join("policy.json");
    fs::write(
        &policy,
        "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}",
    )
    .unwrap();
    let mut login = Command::new("skopeo");
    login
        .args([
            "login",
            "--tls-verify=false",
            "-u",
            "writer",
            "--password-stdin",
            &at,
        ])
        .arg("--authfile")
        .arg(&authfile);
    assert!(type_in(&mut login, "writer-s3cret-canary"));
    run(Command::new("skopeo")
        .arg("--policy")
        .arg(&policy)
        .args([
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--authfile",
        ])
        .arg(&authfile)
        .arg(format!("docker://{ours}"))
        .arg(format!("docker://{at}/dev-local/team/skopeo:1")));
    let podman = Podman::start(&at);
    fails(podman.command().args(["pull", "--tls-verify=false", &ours]));
    let mut login = podman.command();
    login
        .args([
            "login",
            "--tls-verify=false",
            "-u",
            "reader",
            "--password-stdin",
            &at,
        ])
        .arg("--authfile")
        .arg(&authfile);
    assert!(type_in(&mut login, "reader-s3cret-canary"));
    run(podman
        .command()
        .args(["pull", "--tls-verify=false", "--authfile"])
        .arg(&authfile)
        .arg(&ours));

    // An API token is a password like any: docker, skopeo and crane use it as far as it goes, and not after it was revoked.
    let token = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        command.arg("token").args(arguments);
        let done = command
            .arg("-c")
            .arg(mirror.configuration())
            .arg("--data")
            .arg(mirror.data())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    let scope = [
        "create",
        "ci",
        "--user",
        "writer",
        "--may",
        "pull,push",
        "--on",
        "dev-local/team/*",
    ];
    let secret = token(&scope);
    assert!(!log_in("reader", &secret));
    assert!(log_in("writer", &secret));
    let pushed = format!("{at}/dev-local/team/token:1");
    let elsewhere = format!("{at}/dev-local/other/token:1");
    run(&mut with(&["tag", &ours, &pushed]));
    run(&mut with(&["tag", &ours, &elsewhere]));
    run(&mut with(&["push", &pushed]));
    fails(&mut with(&["push", &elsewhere]));
    run(&mut with(&["rmi", &pushed]));
    run(&mut with(&["pull", &pushed]));
    let mut login = Command::new("skopeo");
    login
        .args([
            "login",
            "--tls-verify=false",
            "-u",
            "token",
            "--password-stdin",
            &at,
        ])
        .arg("--authfile")
        .arg(&authfile);
    assert!(type_in(&mut login, &secret));
    let inspect = || {
        let mut command = Command::new("skopeo");
        command
            .args(["inspect", "--tls-verify=false", "--authfile"])
            .arg(&authfile)
            .arg(format!("docker://{pushed}"));
        command
    };
    run(&mut inspect());
    run(&mut crane(&[
        "auth", "login", &at, "-u", "writer", "-p", &secret,
    ]));
    run(&mut crane(&["validate", "--remote", &pushed]));
    token(&["revoke", "ci"]);
    fails(&mut inspect());
    fails(&mut crane(&["validate", "--remote", &pushed]));
    fails(&mut with(&["pull", &pushed]));
    assert!(!log_in("writer", &secret));
    assert!(
        mirror.log().iter().all(|line| !line.contains(&secret)),
        "a token is in the log"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_skopeo_and_crane_with_the_token_of_a_job() {
    let registry = Registry::start().await;
    let image = image::small(Flavour::Docker, 1);
    registry.push("library/base", "1", &image).await;
    let key = Signer::rsa("k");
    let issuer = Issuer::start(&[&key]).await;
    let rules = format!(
        r#"
[local.dev-local]
[auth]
[[auth.oidc]]
issuer = "{}"
audience = "mirror"
[[auth.allow]]
who = ["oidc:repo:org/*:ref:refs/heads/main"]
on = ["docker-hub", "dev-local/team/**"]
may = ["pull", "push"]
"#,
        issuer.url()
    );
    let hub = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "docker.io",
        more: String::new(),
    };
    let mirror = Mirror::with(&[hub], &rules).await;
    let at = mirror.address().to_string();
    let claims = |subject: &str| {
        let mut claims = issuer.claims("mirror", subject);
        // Daemons take their time where many tests run.
        claims["exp"] = (claims["iat"].as_u64().unwrap() + 600).into();
        key.token(&claims)
    };
    let (job, other) = (
        claims("repo:org/app:ref:refs/heads/main"),
        claims("repo:other/app:ref:refs/heads/main"),
    );
    let dir = tempfile::tempdir().unwrap();
    let (theirs, ours) = (format!("{at}/base:1"), format!("{at}/dev-local/team/app"));

    let crane = |arguments: &[&str]| {
        let mut command = Command::new(tool("crane"));
        command
            .args(arguments)
            .arg("--insecure")
            .env("DOCKER_CONFIG", dir.path());
        command
    };
    fails(&mut crane(&["validate", "--remote", &theirs]));
    run(&mut crane(&["auth", "login", &at, "-u", "ci", "-p", &job]));
    run(&mut crane(&["copy", &theirs, &format!("{ours}:crane")]));

    let docker = Docker::start(&at);
    let with = |arguments: &[&str]| {
        let mut command = docker.command();
        command
            .args(arguments)
            .env("DOCKER_CONFIG", dir.path().join("docker"));
        command
    };
    let login = ["login", &at, "-u", "ci", "--password-stdin"];
    assert!(!type_in(&mut with(&login), &other));
    assert!(type_in(&mut with(&login), &job));
    run(&mut with(&["pull", &theirs]));
    run(&mut with(&["tag", &theirs, &format!("{ours}:docker")]));
    run(&mut with(&["push", &format!("{ours}:docker")]));
    fails(&mut with(&["push", &format!("{at}/dev-local/other:1")]));

    let authfile = dir.path().join("auth.json");
    let mut login = Command::new("skopeo");
    login
        .args(["login", "--tls-verify=false", "-u", "ci"])
        .args(["--password-stdin", &at, "--authfile"])
        .arg(&authfile);
    assert!(type_in(&mut login, &job));
    run(Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--authfile"])
        .arg(&authfile)
        .arg(format!("docker://{ours}:docker")));
    let log = mirror.log();
    let (_, signature) = job.rsplit_once('.').unwrap();
    assert!(log.iter().all(|line| !line.contains(signature)));
    assert_eq!(issuer.fetches(), 1);
}
