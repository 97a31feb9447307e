//! TLS towards clients: what is served, and what SIGHUP does to it.

use std::process::Command;

use crate::support::Secure;
use crate::support::tls::{Authority, Identity};

#[tokio::test]
async fn certificates_are_replaced_on_sighup_and_bad_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.localhost().write(dir.path(), "mirror");
    let mirror = Secure::start(dir.path(), "");
    crate::eventually!(mirror.ask(&authority).await.is_some());
    let (first, answer) = mirror.ask(&authority).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    // Another authority's certificate is not ours.
    assert!(mirror.ask(&Authority::new()).await.is_none());

    authority.localhost().write(dir.path(), "mirror");
    mirror.hang_up();
    crate::eventually!(
        mirror
            .ask(&authority)
            .await
            .is_some_and(|(now, _)| now != first)
    );
    let (second, _) = mirror.ask(&authority).await.unwrap();

    // A change is seen without being told, and so is one that is no good yet.
    authority.localhost().write(dir.path(), "mirror");
    crate::eventually!(
        mirror
            .ask(&authority)
            .await
            .is_some_and(|(now, _)| now != second)
    );
    let (second, _) = mirror.ask(&authority).await.unwrap();

    // A key of somebody else's: said in the log, and the pair in use stays.
    let stranger = Authority::new().localhost();
    std::fs::write(dir.path().join("mirror.key"), stranger.key).unwrap();
    mirror.hang_up();
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    crate::eventually!(log().contains("the key does not belong to the certificate"));
    assert_eq!(mirror.ask(&authority).await.unwrap().0, second);
}

const RULES: &str = r#"
[local.dev-local]
[auth]
users = "users"
[auth.groups]
builders = ["builder"]
[[auth.allow]]
who = ["@builders"]
on = ["dev-local"]
may = ["pull", "push"]
[[auth.allow]]
who = ["reader"]
on = ["dev-local"]
may = ["pull"]
"#;

#[tokio::test]
async fn a_certificate_is_a_login() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, clients) = (Authority::new(), Authority::new());
    authority.localhost().write(dir.path(), "mirror");
    let ca = clients.write(dir.path());
    let ca = ca.file_name().unwrap().to_str().unwrap();
    // A user of the file, for what goes before a certificate.
    std::fs::write(dir.path().join("users"), "").unwrap();
    std::fs::write(dir.path().join("mirror.toml"), RULES).unwrap();
    let mut add = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    add.arg("-c").arg(dir.path().join("mirror.toml"));
    add.args(["user", "add", "reader"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null());
    let mut child = add.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"reader-password\n").unwrap();
    assert!(child.wait().unwrap().success());
    let mirror = Secure::start_with(dir.path(), &format!(", client_ca = \"{ca}\""), RULES);
    crate::eventually!(mirror.ask(&authority).await.is_some());

    let (builder, reader) = (clients.client("builder"), clients.client("reader"));
    let (stranger, odd) = (clients.client("stranger"), clients.client("oidc:repo:x"));
    let (anonymous, theirs) = (clients.client("anonymous"), authority.client("builder"));
    let send = async |client: Option<&Identity>, line: &str, headers: &str| {
        let answer = mirror.request(&authority, client, line, headers).await;
        answer.map(|(_, text)| text)
    };
    let status = async |client: Option<&Identity>, line: &str, headers: &str| {
        let answer = send(client, line, headers).await?;
        answer.split(' ').nth(1)?.parse::<u16>().ok()
    };
    let push = "POST /v2/dev-local/team/app/blobs/uploads/";
    let list = "GET /v2/dev-local/team/app/tags/list";
    for (who, client, base, pushes, lists) in [
        ("none", None, 401, 401, 401),
        ("builder", Some(&builder), 200, 202, 404),
        ("reader", Some(&reader), 200, 403, 404),
        ("stranger", Some(&stranger), 200, 404, 404),
        // What cannot be a user's name is nobody's.
        ("a name with a colon", Some(&odd), 401, 401, 401),
        ("anonymous", Some(&anonymous), 401, 401, 401),
    ] {
        assert_eq!(status(client, "GET /v2/", "").await, Some(base), "{who}");
        assert_eq!(status(client, push, "").await, Some(pushes), "{who}");
        assert_eq!(status(client, list, "").await, Some(lists), "{who}");
    }
    assert_eq!(status(Some(&theirs), "GET /v2/", "").await, None);

    // The token endpoint: what it gives to a certificate counts without it, for as long as it lasts, and no longer.
    let token = "GET /v2/token?service=roadstead&scope=repository:dev-local/team/app:pull,push&offline_token=true";
    let told = send(Some(&builder), token, "").await.unwrap();
    let (_, told) = told.split_once("\r\n\r\n").unwrap();
    let told: serde_json::Value = serde_json::from_str(told).unwrap();
    assert!(told.get("refresh_token").is_none(), "{told}");
    let bearer = format!(
        "authorization: Bearer {}\r\n",
        told["token"].as_str().unwrap()
    );
    assert_eq!(status(None, push, &bearer).await, Some(202));
    assert_eq!(status(Some(&stranger), push, &bearer).await, Some(202));

    // Authorization goes before a certificate, right or wrong.
    let basic = "authorization: Basic cmVhZGVyOnJlYWRlci1wYXNzd29yZA==\r\n";
    assert_eq!(status(Some(&builder), push, basic).await, Some(403));
    let wrong = "authorization: Basic cmVhZGVyOndyb25n\r\n";
    assert_eq!(status(Some(&builder), push, wrong).await, Some(401));

    // A reload takes another authority.
    authority.write(dir.path());
    mirror.hang_up();
    crate::eventually!(status(Some(&theirs), "GET /v2/", "").await == Some(200));
    assert_eq!(status(Some(&builder), "GET /v2/", "").await, None);
}

#[tokio::test]
async fn a_mirror_with_a_broken_authority_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    Authority::new().localhost().write(dir.path(), "mirror");
    std::fs::write(dir.path().join("ca.pem"), "nothing").unwrap();
    let text = "[server]\nlisten = \"127.0.0.1:0\"\ntls = { certificate = \"mirror.crt\", key = \"mirror.key\", client_ca = \"ca.pem\" }\n";
    std::fs::write(dir.path().join("mirror.toml"), text).unwrap();
    for command in ["serve", "check"] {
        let done = Command::new(env!("CARGO_BIN_EXE_roadstead"))
            .args([command, "-c"])
            .arg(dir.path().join("mirror.toml"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success(), "{command}");
        assert!(
            said.contains("ca.pem: no certificate in it"),
            "{command}: {said}"
        );
    }
}
