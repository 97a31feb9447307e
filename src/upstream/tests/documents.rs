//! Documents of servers that are no registries: where they may be, and what comes of what is not one.

use std::sync::Arc;

use super::{Server, Step, raw, reply};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::upstream::{Config, Documents};

const MAX: usize = 100;

fn documents(url: &str, allowed: &[&str]) -> Documents {
    let url = url::Url::parse(url).unwrap();
    let config = Config {
        allow_addresses: allowed.iter().map(|net| net.parse().unwrap()).collect(),
        ..Config::new("auth.oidc", url, "test")
    };
    Documents::new(config, &Tasks::new(), Arc::new(Metrics::new())).unwrap()
}

#[tokio::test]
async fn a_document_is_what_its_own_url_says() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/a" => reply("200 OK", &[], "{}"),
        "/full" => reply("200 OK", &[], &"x".repeat(MAX)),
        "/long" => reply("200 OK", &[], &"x".repeat(MAX + 1)),
        "/endless" => raw(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
            "5\r\nxxxxx\r\n".repeat(100)
        )),
        "/packed" => reply("200 OK", &[("Content-Encoding", "gzip")], "{}"),
        "/cut" => {
            let mut steps = raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}");
            steps.push(Step::Close);
            steps
        }
        "/moved" => reply("302 Found", &[("Location", "/a")], ""),
        _ => reply("404 Not Found", &[], "{}"),
    })
    .await;
    let documents = documents(&server.url("/"), &[]);
    let get = async |path: &str| documents.get(&server.url(path), MAX).await;
    assert_eq!(get("/a").await.unwrap(), "{}");
    assert_eq!(get("/full").await.unwrap().len(), MAX);
    for (path, says) in [
        ("/long", "more than 100 bytes"),
        ("/endless", "more than 100 bytes"),
        ("/packed", "encoding"),
        ("/moved", "redirects"),
        ("/none", "404"),
    ] {
        let error = get(path).await.unwrap_err().to_string();
        assert!(error.contains(says), "{path}: {error}");
    }
    assert!(get("/cut").await.is_err());
    assert_eq!(server.count("/a"), 1, "no redirect is followed");
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[tokio::test]
async fn a_document_elsewhere_is_not_fetched_from_inside() {
    let server = Server::canary().await;
    let own = Server::canary().await;
    let place = server.url("/keys");
    let port = server.address.port();
    let strict = documents(&own.url("/"), &[]);
    for url in [
        place.clone(),
        format!("http://localhost:{port}/keys"),
        format!("http://[::ffff:127.0.0.1]:{port}/keys"),
        format!("http://a@127.0.0.1:{port}/keys"),
        "http://192.0.2.1/keys".to_owned(),
        "http://registry.example/keys".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://169.254.169.254/keys".to_owned(),
        "https://10.0.0.1/keys".to_owned(),
        String::new(),
    ] {
        assert!(strict.get(&url, MAX).await.is_err(), "{url}");
    }
    assert_eq!(server.connections(), 0);
    // The configured place itself may be inside, and so may what is allowed.
    assert!(strict.get(&own.url("/keys"), MAX).await.is_ok());
    let open = documents(&own.url("/"), &["127.0.0.0/8"]);
    assert_eq!(open.get(&place, MAX).await.unwrap(), "tweet");
}
