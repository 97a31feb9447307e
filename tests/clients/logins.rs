//! Logging in with real clients: nobody, somebody who may read, somebody who may write.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::parts::{Registry, run, tool};
use crate::pulls::{Containerd, Docker, Podman};
use crate::support::image::{self, Flavour, Packing};
use crate::support::signer::Signer;
use crate::support::tls::Authority;
use crate::support::{Issuer, Mirror, Remote, Secure, Upstream, secrets};

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

/// The users file of [`RULES`] in `dir`.
fn add_users(dir: &Path) {
    let file = dir.join("mirror.toml");
    fs::write(
        &file,
        format!("{RULES}[remote.docker-hub]\nurl = \"http://x\"\n"),
    )
    .unwrap();
    for user in ["reader", "writer"] {
        let mut add = Command::new(env!("CARGO_BIN_EXE_roadstead"));
        add.arg("-c").arg(&file).args(["user", "add", user]);
        assert!(type_in(&mut add, &format!("{}\n", secrets::of(user))));
    }
}

/// A mirror with users `reader` and `writer`, whose passwords are `<name>-s3cret-canary`.
async fn guarded(registry: &Registry) -> Mirror {
    let dir = tempfile::tempdir().unwrap();
    add_users(dir.path());
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

/// `crane` with a login of its own.
fn crane(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("crane"));
    command.args(arguments).env("DOCKER_CONFIG", home);
    command
}

fn crane_logs_in(home: &Path, at: &str, user: &str, more: &[(&str, &Path)]) -> Command {
    let secret = secrets::of(user);
    let mut login = crane(home, &["auth", "login", at, "-u", user, "-p", &secret]);
    login.envs(more.iter().copied());
    login
}

/// Over TLS, with an authority that the clients alone were told of. Docker believes loopback whatever it shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls() {
    let dir = tempfile::tempdir().unwrap();
    add_users(dir.path());
    let authority = Authority::new();
    authority.localhost().write(dir.path(), "mirror");
    let rules = format!("{RULES}[remote.docker-hub]\nurl = \"http://127.0.0.1:1\"\n");
    let mirror = Secure::start(dir.path(), &rules);
    crate::eventually!(mirror.ask(&authority).await.is_some());
    let certificates = dir.path().join("certs");
    fs::create_dir(&certificates).unwrap();
    let ca = authority.write(&certificates);
    let at = mirror.host();
    let target = format!("{at}/dev-local/team/app:1");
    let packed = [image::noise_layer(Packing::Plain, 1, 100_000)];
    let packed = image::image(Flavour::Oci, "amd64", &packed);
    let layer = dir.path().join("layer.tar");
    fs::write(&layer, &packed.layers()[0].bytes).unwrap();
    let layer = layer.display().to_string();

    // crane
    let home = dir.path().join("crane");
    fs::create_dir(&home).unwrap();
    let trusts = [("SSL_CERT_FILE", ca.as_path())];
    let with = |arguments: &[&str]| {
        let mut command = crane(&home, arguments);
        command.envs(trusts.iter().copied());
        command
    };
    let append = ["append", "-f", &layer, "-t", &target];
    fails(&mut with(&append));
    run(&mut crane_logs_in(&home, &at, "writer", &trusts));
    run(&mut with(&append));
    run(&mut crane_logs_in(&home, &at, "reader", &trusts));
    run(&mut with(&["validate", "--remote", &target]));
    let another = format!("{at}/dev-local/team/app:2");
    fails(&mut with(&["append", "-f", &layer, "-t", &another]));
    fails(&mut crane(&home, &["validate", "--remote", &target]));

    // skopeo and podman
    let authfile = dir.path().join("auth.json").display().to_string();
    let certs = certificates.display().to_string();
    let podman = Podman::start(&at);
    let log_in = |mut command: Command, user: &str, typed: &str| {
        command.args(["login", "-u", user, "--password-stdin", "--cert-dir"]);
        command.args([&certs, "--authfile", &authfile, &at]);
        type_in(&mut command, typed)
    };
    assert!(!log_in(Command::new("skopeo"), "reader", "wrong"));
    assert!(log_in(
        Command::new("skopeo"),
        "reader",
        &secrets::of("reader")
    ));
    let remote = format!("docker://{target}");
    let inspect = ["inspect", "--raw", "--authfile", &authfile];
    run(Command::new("skopeo")
        .args(inspect)
        .args(["--cert-dir", &certs, &remote]));
    fails(Command::new("skopeo").args(inspect).arg(&remote));
    fs::remove_file(&authfile).unwrap();
    let pull = [
        "pull",
        "--cert-dir",
        &certs,
        "--authfile",
        &authfile,
        &target,
    ];
    fails(podman.command().args(pull));
    assert!(log_in(podman.command(), "reader", &secrets::of("reader")));
    run(podman.command().args(pull));
    let push = [
        "push",
        "--cert-dir",
        &certs,
        "--authfile",
        &authfile,
        &target,
    ];
    fails(podman.command().args(push));
    assert!(log_in(podman.command(), "writer", &secrets::of("writer")));
    run(podman.command().args(push));

    // docker
    let docker = Docker::start(&at);
    let home = dir.path().join("docker");
    let with = |arguments: &[&str]| {
        let mut command = docker.command();
        command.args(arguments).env("DOCKER_CONFIG", &home);
        command
    };
    fails(&mut with(&["pull", &target]));
    let login = |user: &str, typed: &str| {
        type_in(
            &mut with(&["login", &at, "-u", user, "--password-stdin"]),
            typed,
        )
    };
    assert!(!login("reader", "wrong"));
    assert!(login("reader", &secrets::of("reader")));
    run(&mut with(&["pull", &target]));
    fails(&mut with(&["push", &target]));
    assert!(login("writer", &secrets::of("writer")));
    run(&mut with(&["push", &target]));

    // containerd
    let text = format!(
        "server = \"https://{at}\"\n[host.\"https://{at}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{}\"\n",
        ca.display()
    );
    pulls_with_a_login(&Containerd::start(&at, &text), &target);
}

/// Nobody and a wrong password pull nothing, the reader does.
fn pulls_with_a_login(containerd: &Containerd, target: &str) {
    let pull = |login: Option<String>| {
        let mut pull = containerd.pull_command(target);
        if let Some(login) = login {
            pull.args(["--user", &login]);
        }
        pull
    };
    fails(&mut pull(None));
    fails(&mut pull(Some(format!("reader:{}", secrets::of("wrong")))));
    run(&mut pull(Some(format!("reader:{}", secrets::of("reader")))));
    containerd.forget(target);
}

/// A mirror with an image of many layers behind an upstream that gives so many bytes a second.
async fn slow_site(seeds: &[u64], layers: u64, bandwidth: &str, ttl: &str) -> (Upstream, Mirror) {
    let upstream = Upstream::start().await;
    for seed in seeds {
        let packed: Vec<_> = (0..layers)
            .map(|n| image::noise_layer(Packing::Gzip, seed * 100 + n, 512 << 10))
            .collect();
        let image = image::image(Flavour::Docker, "amd64", &packed);
        upstream.hold(&format!("library/app{seed}"), "1", &image);
    }
    let dir = tempfile::tempdir().unwrap();
    add_users(dir.path());
    let hub = Remote {
        key: "docker-hub",
        url: upstream.url(),
        serves: "docker.io",
        more: format!("limits = {{ bandwidth = \"{bandwidth}\" }}\n"),
    };
    let rules = RULES
        .replace("who = [\"anonymous\"]", "who = [\"reader\"]")
        .replacen(
            "[[auth.allow]]",
            &format!("token_ttl = \"{ttl}\"\n[[auth.allow]]"),
            1,
        );
    let data = dir.path().join("data");
    let mirror = Mirror::in_directory(dir, data, &[hub], &rules).await;
    (upstream, mirror)
}

/// How many tokens the mirror gave to clients whose names begin so.
fn tokens_given(mirror: &Mirror, agent: &str) -> usize {
    let agent = format!("\"agent\":\"{agent}");
    let is_given = |line: &&String| {
        line.contains("/v2/token") && line.contains("\"status\":200") && line.contains(&agent)
    };
    mirror.log().iter().filter(is_given).count()
}

/// Layers that come while tokens end: clients get others and go on, and what is under way is not cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_during_a_pull() {
    // Eight layers of half a MiB, one each second, with tokens of two seconds.
    let (upstream, mirror) = slow_site(&[1], 8, "512KiB/s", "2s").await;
    let at = mirror.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    run(&mut crane_logs_in(dir.path(), &at, "reader", &[]));
    let target = format!("{at}/app1:1");
    run(&mut crane(
        dir.path(),
        &["validate", "--insecure", "--remote", &target],
    ));
    let given = tokens_given(&mirror, "crane");
    assert!(given >= 3, "{given} tokens in eight seconds");
    // Nothing was cut and asked for again.
    assert_eq!(upstream.count("GET", "/blobs/"), 9);
}

/// Docker keeps a token for a minute at least, whatever it is told; containerd and podman keep to what they are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tokens_end_during_a_long_pull() {
    // Three times 6 MiB at a quarter of a MiB a second are 72 seconds.
    let (upstream, mirror) = slow_site(&[1, 2, 3], 12, "256KiB/s", "1m").await;
    let at = mirror.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let docker = Docker::start(&at);
    let typed = secrets::of("reader");
    let mut login = docker.command();
    login
        .args(["login", &at, "-u", "reader", "--password-stdin"])
        .env("DOCKER_CONFIG", dir.path());
    assert!(type_in(&mut login, &typed));
    let text = format!(
        "server = \"http://{at}\"\n[host.\"http://{at}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    let containerd = Containerd::start(&at, &text);
    let podman = Podman::start(&at);
    let mut pulls = [
        docker.command(),
        containerd.pull_command(&format!("{at}/app2:1")),
        podman.command(),
    ];
    pulls[0]
        .args(["pull", &format!("{at}/app1:1")])
        .env("DOCKER_CONFIG", dir.path());
    pulls[1].args(["--plain-http", "--user", &format!("reader:{typed}")]);
    pulls[2].args([
        "pull",
        "--tls-verify=false",
        "--creds",
        &format!("reader:{typed}"),
        &format!("{at}/app3:1"),
    ]);
    let before = tokens_given(&mirror, "docker");
    let all = pulls.map(|mut pull| tokio::task::spawn_blocking(move || run(&mut pull)));
    for pull in futures_util::future::join_all(all).await {
        pull.unwrap();
    }
    // podman asks for six layers at a time, and may have asked for the last before its token ended.
    for (agent, before) in [("docker", before), ("containerd", 0)] {
        let given = tokens_given(&mirror, agent) - before;
        assert!(given >= 2, "{agent}: {given} tokens in over a minute");
    }
    assert_eq!(upstream.count("GET", "/blobs/"), 39);
}

/// Who is removed pulls nothing more, whatever they hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_removed() {
    let (_upstream, mirror) = slow_site(&[1], 2, "100MiB/s", "5m").await;
    let at = mirror.address().to_string();
    let dir = tempfile::tempdir().unwrap();
    let target = format!("{at}/app1:1");
    let docker = Docker::start(&at);
    let mut login = docker.command();
    login
        .args(["login", &at, "-u", "reader", "--password-stdin"])
        .env("DOCKER_CONFIG", dir.path().join("docker"));
    assert!(type_in(&mut login, &secrets::of("reader")));
    run(&mut crane_logs_in(dir.path(), &at, "reader", &[]));
    let text = format!(
        "server = \"http://{at}\"\n[host.\"http://{at}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    let containerd = Containerd::start(&at, &text);
    let all = || {
        let mut docker = docker.command();
        docker
            .args(["pull", &target])
            .env("DOCKER_CONFIG", dir.path().join("docker"));
        let mut ctr = containerd.pull_command(&target);
        ctr.args([
            "--plain-http",
            "--user",
            &format!("reader:{}", secrets::of("reader")),
        ]);
        [
            docker,
            ctr,
            crane(dir.path(), &["digest", "--insecure", &target]),
        ]
    };
    for mut pull in all() {
        run(&mut pull);
    }
    let mut remove = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    remove.arg("-c").arg(mirror.configuration());
    run(remove.args(["user", "remove", "reader"]));
    for mut pull in all() {
        fails(&mut pull);
    }
}
