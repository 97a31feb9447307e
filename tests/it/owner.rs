//! The admin socket: commands work on the store of a mirror that runs, for its owner alone.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::eventually;
use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Remote, Upstream, wait_until};

/// Nobody in particular.
const STRANGER: u32 = 65_534;

/// What the lock file says: who has the store, and where commands are taken.
fn owner(mirror: &Mirror) -> (String, PathBuf) {
    let text = std::fs::read_to_string(mirror.data().join("lock")).unwrap();
    let (pid, socket) = text.split_once('\n').unwrap();
    (pid.to_owned(), socket.trim_end_matches('\n').into())
}

/// A request over the socket; the status and the body.
async fn ask(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, body.to_owned())
}

fn command(mirror: &Mirror, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command
        .args(arguments)
        .arg("-c")
        .arg(mirror.configuration())
        .arg("--data")
        .arg(mirror.data());
    command
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn the_socket_is_the_owners_and_for_administration_alone() {
    let upstream = Upstream::start().await;
    // A proxy is trusted, so that over HTTP nobody administers anything without [auth].
    let more = "[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[local.dev-local]\n";
    let mut mirror = Mirror::with(&[Remote::hub(&upstream.url())], more).await;
    let (pid, socket) = owner(&mirror);
    let data = mirror.data().canonicalize().unwrap();
    assert_eq!(socket, data.join("admin.sock"));
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(),
        "roadstead\n"
    );
    let found = std::fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    for path in ["/admin/audit", "/admin/quota"] {
        let answer = mirror.client().get(path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(ask(&socket, &format!("GET {path}")).await.0, 200, "{path}");
    }
    for (request, status) in [
        ("GET /livez", 200),
        ("GET /metrics", 200),
        ("GET /v2/", 404),
        ("GET /v2/library/nginx/manifests/1", 404),
        ("POST /v2/dev-local/a/blobs/uploads/", 404),
        ("GET /api/repositories", 404),
        ("GET /v2/token", 404),
        ("GET /admin/gc", 405),
        ("POST /admin/gc?dry_run=perhaps", 400),
        ("POST /admin/gc?grace=-1", 400),
    ] {
        assert_eq!(ask(&socket, request).await.0, status, "{request}");
    }
    let said = |mirror: &Mirror, what: &str| mirror.log().iter().any(|line| line.contains(what));
    eventually!(said(&mirror, "\"user\":\"(owner)\""));
    // It stays where it is when the configuration is read again, and goes with a clean stop.
    mirror.hang_up();
    eventually!(said(&mirror, "SIGHUP: the repositories"));
    assert_eq!(ask(&socket, "GET /admin/quota").await.0, 200);
    mirror.terminate();
    assert!(!socket.exists());
    // What a killed process leaves is replaced.
    mirror.start().await;
    mirror.kill();
    assert!(socket.exists());
    assert!(UnixStream::connect(&socket).await.is_err());
    let (dead, _) = owner(&mirror);
    // Nobody has the store: the command opens it itself.
    let alone = command(&mirror, &["gc"]).output().unwrap();
    assert_eq!(printed(&alone), "0 gone, 0 bytes\n");
    mirror.start().await;
    assert_ne!(owner(&mirror).0, dead);
    assert_eq!(ask(&socket, "GET /admin/quota").await.0, 200);
}

#[tokio::test]
async fn commands_work_on_a_mirror_that_runs() {
    let upstream = Upstream::start().await;
    // Nobody is given anything, and the owner needs no login.
    let more = "[local.dev-local]\n[auth]\n[[auth.allow]]\nwho = [\"anonymous\"]\non = [\"dev-local\"]\nmay = [\"pull\", \"push\", \"delete\"]\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], more).await;
    let client = mirror.client();
    let (gone, kept) = (image::small(Flavour::Oci, 1), image::small(Flavour::Oci, 2));
    client.push("dev-local/a", "gone", &gone).await;
    client.push("dev-local/a", "kept", &kept).await;
    client.delete("/v2/dev-local/a/manifests/gone").await;
    let collected = |arguments: &[&str]| {
        let output = command(&mirror, arguments).output().unwrap();
        printed(&output)
    };
    // What was pushed or asked for a moment ago is left alone.
    assert_eq!(collected(&["gc"]), "0 gone, 0 bytes\n");
    let would = collected(&["gc", "--dry-run", "--grace", "0"]);
    let line = format!("dev-local/a@{}\tuntagged", gone.digest());
    assert!(
        would.contains(&line) && would.contains("would go"),
        "{would}"
    );
    assert!(client.has("dev-local/a", gone.digest(), &gone).await);
    let went = collected(&["gc", "--grace", "0"]);
    assert_eq!(went.replace("gone,", "would go,"), would);
    assert!(!client.has("dev-local/a", gone.digest(), &gone).await);
    assert!(client.has("dev-local/a", "kept", &kept).await);
    let quota = collected(&["quota"]);
    assert_eq!(quota, "docker-hub\t-\tnothing told yet\tnone kept\n");
    let json: Value = serde_json::from_str(&collected(&["quota", "--json"])).unwrap();
    assert_eq!(json["quotas"][0]["repository"], "docker-hub");
    // A flipped bit is found beside the requests, and the rest stays.
    let blob = &kept.blobs[0].digest;
    let victim = mirror
        .data()
        .join(format!("blobs/sha256/{}/{}", &blob[7..9], &blob[7..]));
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let verified = command(&mirror, &["verify"]).output().unwrap();
    assert_eq!(verified.status.code(), Some(1));
    let text = String::from_utf8(verified.stdout).unwrap();
    assert!(
        text.starts_with(blob.as_str()) && text.contains("1 are not"),
        "{text}"
    );
    assert!(!victim.exists());
    let again = command(&mirror, &["verify"]).output().unwrap();
    assert!(printed(&again).contains(", 0 are not"));
    // With a login or without, over HTTP these are for administrators.
    for path in ["/admin/gc", "/admin/verify"] {
        let answer = client.send(http::Method::POST, path, &[]).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_data_directory_with_a_long_path_has_its_socket_elsewhere() {
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    let runtime = tempfile::tempdir().unwrap();
    let data = dir.path().join("d".repeat(120));
    let environment = [("XDG_RUNTIME_DIR", runtime.path().to_str().unwrap())];
    let remotes = [Remote::hub(&upstream.url())];
    let mut mirror = Mirror::in_environment(dir, data, &remotes, "", &environment).await;
    let (_, socket) = owner(&mirror);
    let apart = socket.parent().unwrap().to_owned();
    assert_eq!(apart.parent(), Some(runtime.path()));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&apart), mode(&socket)), (0o700, 0o600));
    let output = command(&mirror, &["quota"]).output().unwrap();
    assert!(printed(&output).starts_with("docker-hub\t"));
    // Left behind by a kill, it is removed by the next one, which makes its own.
    mirror.kill();
    mirror.start().await;
    let (_, next) = owner(&mirror);
    assert!(next != socket && !apart.exists() && next.exists());
    mirror.terminate();
    assert_eq!(std::fs::read_dir(runtime.path()).unwrap().count(), 0);
}

/// Needs root, to be somebody else. Where that cannot be, the mode of the socket and the comparison have tests of their own.
#[tokio::test]
async fn whoever_else_comes_is_refused() {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        return;
    }
    let upstream = Upstream::start().await;
    let mirror = Mirror::of(&upstream.url()).await;
    let (_, socket) = owner(&mirror);
    // A program of the stranger's own, where it can be read.
    let program = mirror.configuration().with_file_name("roadstead");
    std::fs::copy(env!("CARGO_BIN_EXE_roadstead"), &program).unwrap();
    let open = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(program.parent().unwrap(), 0o755);
    open(&mirror.configuration(), 0o644);
    let as_stranger = || {
        let done = Command::new(&program)
            .arg("gc")
            .arg("-c")
            .arg(mirror.configuration())
            .arg("--data")
            .arg(mirror.data())
            .uid(STRANGER)
            .gid(STRANGER)
            .output()
            .unwrap();
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    assert!(as_stranger().contains("Permission denied"));
    // Even one for whom every door was left open.
    open(&mirror.data().join("lock"), 0o644);
    open(mirror.data(), 0o755);
    assert!(as_stranger().contains("does not answer"));
    open(&socket, 0o666);
    assert!(as_stranger().contains("does not answer"));
    assert!(wait_until(|| mirror.log().iter().any(|line| {
        line.contains("somebody else came to the admin socket") && line.contains("65534")
    })));
    assert_eq!(ask(&socket, "GET /admin/quota").await.0, 200);
}
