//! Audit lines: who changed what, who logged in, who was refused.

use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::Value;

use crate::eventually;
use crate::support::image;
use crate::support::{Mirror, Remote, Upstream};

const RULES: &str = r#"
[local.dev-local]
[audit]
path = "audit.jsonl"
[auth]
users = "users.htpasswd"
[[auth.allow]]
who = ["alice"]
on = ["dev-local"]
may = ["pull", "push", "delete"]
"#;

const PASSWORD: &str = "alice-has-a-password";

fn write_users(dir: &Path) {
    let hash = roadstead::auth::hash(PASSWORD).unwrap();
    let users = dir.join("users.htpasswd");
    std::fs::write(users, format!("alice:{hash}\n")).unwrap();
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn count(file: &Path, action: &str, outcome: &str) -> usize {
    let is = |line: &&Value| line["action"] == action && line["outcome"] == outcome;
    lines(file).iter().filter(is).count()
}

#[tokio::test]
async fn who_did_what_is_written_down() {
    let upstream = Upstream::start().await;
    let dir = tempfile::tempdir().unwrap();
    write_users(dir.path());
    let data = dir.path().join("data");
    let remotes = [Remote::hub(&upstream.url())];
    let mirror = Mirror::in_directory(dir, data, &remotes, RULES).await;
    let client = mirror.client();
    let directory = mirror.configuration().parent().unwrap().to_owned();
    let file = directory.join("audit.jsonl");
    let login = format!("Basic {}", STANDARD.encode(format!("alice:{PASSWORD}")));
    let login = ("authorization", login.as_str());

    let blob = image::blob(1, 100);
    let path = format!("/v2/dev-local/a/blobs/uploads/?digest={}", blob.digest);
    let put = client
        .send_body(Method::POST, &path, &[login], blob.bytes.clone())
        .await;
    assert_eq!(put.status, StatusCode::CREATED);
    // Where to send bytes is not worth a line, nor is what is read.
    let begun = client
        .send(Method::POST, "/v2/dev-local/a/blobs/uploads/", &[login])
        .await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let path = format!("/v2/dev-local/a/blobs/{}", blob.digest);
    assert_eq!(
        client.send(Method::GET, &path, &[login]).await.status,
        StatusCode::OK
    );
    assert_eq!(
        client.send(Method::DELETE, &path, &[login]).await.status,
        StatusCode::ACCEPTED
    );
    let uploads: Vec<Value> = lines(&file)
        .into_iter()
        .filter(|line| line["action"] == "upload")
        .collect();
    assert_eq!(uploads.len(), 1);
    for (key, expected) in [
        ("outcome", "done"),
        ("user", "alice"),
        ("client", "127.0.0.1"),
        ("repository", "dev-local"),
        ("digest", blob.digest.as_str()),
    ] {
        let found = uploads[0][key].as_str().unwrap();
        assert!(found.starts_with(expected), "{key}: {found}");
    }
    assert!(uploads[0]["timestamp"].is_string() && uploads[0]["request"].is_string());
    assert_eq!(count(&file, "delete", "done"), 1);
    // Four requests with the same password, one login.
    assert_eq!(count(&file, "login", "done"), 1);

    let wrong = format!("Basic {}", STANDARD.encode("alice:not-her-password"));
    let answer = client
        .send(Method::GET, &path, &[("authorization", &wrong)])
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(count(&file, "login", "refused"), 1);
    let answer = client.send(Method::GET, &path, &[]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(count(&file, "access", "refused"), 1);

    // A change of the users, of the configuration, and one that is none.
    std::fs::write(directory.join("users.htpasswd"), "").unwrap();
    eventually!({
        let answer = client.send(Method::GET, &path, &[login]).await;
        answer.status == StatusCode::UNAUTHORIZED
    });
    assert_eq!(count(&file, "users", "done"), 1);
    mirror.hang_up();
    eventually!(count(&file, "configure", "done") == 1);
    let configuration = std::fs::read_to_string(mirror.configuration()).unwrap();
    std::fs::write(
        mirror.configuration(),
        format!("{configuration}\n[nonsense]\n"),
    )
    .unwrap();
    mirror.hang_up();
    eventually!(count(&file, "configure", "failed") == 1);

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains("not-her-password"));
    // Moved away, a new one comes with the next hangup.
    std::fs::rename(&file, directory.join("audit.jsonl.1")).unwrap();
    mirror.hang_up();
    eventually!(count(&file, "configure", "failed") == 1);
}

#[tokio::test]
async fn without_its_file_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mirror.toml");
    std::fs::write(
        &file,
        "[server]\nlisten = \"127.0.0.1:0\"\n[audit]\npath = \"no/such/folder/audit.jsonl\"\n",
    )
    .unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .arg("-c")
        .arg(&file)
        .arg("serve")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        said.contains("audit.path") && said.contains("no/such/folder"),
        "{said}"
    );
}

/// A push whose client is gone before the answer is done all the same, and so is its line.
#[tokio::test]
async fn a_client_that_leaves_leaves_a_line() {
    let dir = tempfile::tempdir().unwrap();
    write_users(dir.path());
    let data = dir.path().join("data");
    let mirror = Mirror::in_directory(dir, data, &[], RULES).await;
    let file = mirror.configuration().with_file_name("audit.jsonl");
    let login = STANDARD.encode(format!("alice:{PASSWORD}"));
    let head = format!(
        "PUT /v2/dev-local/a/manifests/1 HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {login}\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    let mut stream = tokio::net::TcpStream::connect(mirror.address())
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
        .await
        .unwrap();
    // It has been let in before it leaves.
    eventually!(count(&file, "login", "done") == 1);
    drop(stream);
    eventually!(count(&file, "push", "unknown") + count(&file, "push", "refused") == 1);
}
