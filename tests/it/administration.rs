//! Administration, metrics and health by every way that is not theirs, and pages that pass for ours (RELIABILITY A1).

use http::{Method, StatusCode};

use crate::access::{guarded, guarded_with};
use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Remote, Upstream, free_port, raw};

const ADMINISTRATION: [&str; 8] = [
    "/admin/audit",
    "/admin/pulls",
    "/admin/missing",
    "/admin/quota",
    "/admin/tags/dev-local/team/app/1",
    "/api/repositories",
    "/artifactory/api/repositories/dev-local",
    "/metrics",
];

/// Another writing of a path: no way around what the path itself needs.
fn writings(path: &str) -> Vec<String> {
    let rest = &path[1..];
    let mut all = vec![
        format!("/{path}"),
        format!("//{path}"),
        format!("/.{path}"),
        format!("/v2/..{path}"),
        format!("/v2/../..{path}"),
        format!("/v2/%2e%2e{path}"),
        format!("/v2/%2E%2E%2F{rest}"),
        format!("/v2/..%2f{rest}"),
        format!("/v2/..;{path}"),
        format!("/v2/dev-local/../..{path}"),
        format!("/livez/..{path}"),
        format!("/livez{path}"),
        format!("\\{rest}"),
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path}%2f"),
        format!("{path}%00"),
        format!("{path};x=1"),
        format!("{path}.json"),
        format!("{path}?ns=docker.io"),
        path.to_uppercase(),
        path.replace('a', "%61"),
        path.replacen('/', "/%2f", 1),
    ];
    all.retain(|one| one != path);
    all
}

#[tokio::test]
async fn by_no_other_writing_of_its_path() {
    let upstream = Upstream::start().await;
    let mirror = guarded(&upstream).await;
    for path in ADMINISTRATION {
        for writing in writings(path).into_iter().chain([path.to_owned()]) {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
                let request = format!(
                    "{method} {writing} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let answer = raw::exchange(mirror.address(), request.as_bytes()).await;
                let status = raw::status(&answer);
                assert!(
                    [400, 401, 404, 405].contains(&status),
                    "{method} {writing}: {status}"
                );
            }
        }
    }
    // Health is for everybody, and tells nobody more.
    for path in ["/livez", "/readyz"] {
        assert_eq!(&mirror.client().get(path).await.body[..], b"ok\n");
    }
    assert_eq!(upstream.log().len(), 0);
}

#[tokio::test]
async fn by_no_other_listener() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let (admin, bound) = (free_port(), free_port());
    let listeners = format!(
        "[server]\nadmin_listen = \"127.0.0.1:{admin}\"\n[[server.bind]]\nlisten = \"127.0.0.1:{bound}\"\nrepository = \"docker-hub\"\n"
    );
    let mirror = guarded_with(&upstream, &listeners).await;
    let at = |port: u16| crate::support::Client::new(([127, 0, 0, 1], port).into());
    // The bound listener is a registry like the other: administration needs a login there.
    for path in ADMINISTRATION {
        let answer = at(bound).get(path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        let answer = mirror.client().get(path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert!(
        at(bound)
            .manifest("library/nginx", "1")
            .await
            .is(&image.root.bytes)
    );
    // The listener for administration has no registry, and asks for a login for all but what has no secrets.
    for (path, status) in [
        ("/livez", 200),
        ("/metrics", 200),
        ("/admin/audit", 401),
        ("/admin/quota", 401),
        ("/admin/pulls", 401),
        ("/admin/missing", 401),
        ("/admin/tags/dev-local/team/app/1", 401),
        ("/v2/", 404),
        ("/v2/token", 404),
        ("/v2/library/nginx/manifests/1", 404),
        ("/api/repositories", 404),
        ("/artifactory/dev-local/team/app", 404),
    ] {
        assert_eq!(at(admin).get(path).await.status.as_u16(), status, "{path}");
    }
    let root = at(admin).with("root", Method::GET, "/admin/audit").await;
    assert_eq!(root.status, StatusCode::OK);
    let keeper = at(admin).with("keeper", Method::GET, "/admin/audit").await;
    assert_eq!(keeper.status, StatusCode::FORBIDDEN);
}

const OPEN: &str = "[server]\nexternal_url = \"http://mirror.lab:5000\"\n[[server.bind]]\nhost = \"team.lab\"\nrepository = \"dev-local\"\n[local.dev-local]\n";

/// Without users, loopback is what keeps strangers out; a page of theirs comes in by the browser of whoever sits there.
#[tokio::test]
async fn a_page_behind_a_rebound_name_changes_nothing() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], OPEN).await;
    let client = mirror.client();
    client.push("dev-local/team/app", "1", &image).await;
    let foreign = [
        "evil.example",
        "evil.example:5000",
        "127.0.0.1.evil.example",
        "mirror.lab.evil.example",
    ];
    for host in foreign {
        for (method, path) in [
            (Method::POST, "/v2/dev-local/team/app/blobs/uploads/"),
            (Method::PUT, "/v2/dev-local/team/app/manifests/2"),
            (Method::DELETE, "/v2/dev-local/team/app/manifests/1"),
            (Method::DELETE, "/artifactory/dev-local/team/app"),
            (
                Method::PUT,
                "/api/storage/dev-local/team/app/1?properties=a=b",
            ),
            (Method::PUT, "/api/repositories/new-local"),
            (Method::DELETE, "/api/repositories/dev-local"),
            (Method::POST, "/api/docker/dev-local/v2/promote"),
            (Method::POST, "/admin/tags/dev-local/team/app/1"),
            (Method::GET, "/admin/audit"),
            (Method::GET, "/admin/quota"),
            (Method::GET, "/metrics"),
            (Method::GET, "/api/storage/dev-local/team/app"),
            (Method::GET, "/api/search/prop?docker.repoName=*"),
            (Method::GET, "/admin/tags/dev-local/team/app/1"),
            (Method::GET, "/api/repositories"),
        ] {
            // What a browser sends for a page of that very host.
            let own = format!("http://{host}");
            let headers = [
                ("host", host),
                ("origin", own.as_str()),
                ("sec-fetch-site", "same-origin"),
            ];
            let answer = client.send(method.clone(), path, &headers).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{host} {method} {path}"
            );
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                said.contains("server.external_url") && said.contains(host),
                "{said}"
            );
        }
        // Pulls are open to whoever reaches us; that is what Docker asks under names of its own.
        let headers = [("host", host), ("accept", "*/*")];
        let pulled = client
            .send(Method::GET, "/v2/library/nginx/manifests/1", &headers)
            .await;
        assert_eq!(pulled.status, StatusCode::OK, "{host}");
    }
    let port = mirror.address().port();
    let own = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        "192.0.2.7".to_owned(),
        "mirror.lab:5000".to_owned(),
        "MIRROR.lab".to_owned(),
        "team.lab:5000".to_owned(),
        "app.localhost".to_owned(),
    ];
    for host in &own {
        let headers = [("host", host.as_str())];
        let path = if host.starts_with("team") {
            "/v2/team/app/blobs/uploads/"
        } else {
            "/v2/dev-local/team/app/blobs/uploads/"
        };
        let opened = client.send(Method::POST, path, &headers).await;
        assert_eq!(opened.status, StatusCode::ACCEPTED, "{host}");
        let audit = client.send(Method::GET, "/admin/audit", &headers).await;
        assert_eq!(audit.status, StatusCode::OK, "{host}");
    }
}

/// A form on a page of another site: the one request that a browser sends anywhere without asking first.
#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], OPEN).await;
    let client = mirror.client();
    client.push("dev-local/team/app", "1", &image).await;
    for kind in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
    ] {
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            for path in [
                "/v2/dev-local/team/app/blobs/uploads/",
                "/api/docker/dev-local/v2/promote",
                "/api/repositories/new-local",
                "/admin/tags/dev-local/team/app/1",
            ] {
                let answer = client
                    .send_body(
                        Method::POST,
                        path,
                        &[("content-type", kind), (name, value)],
                        "a=b".into(),
                    )
                    .await;
                assert_eq!(
                    answer.status,
                    StatusCode::FORBIDDEN,
                    "{kind} {value} {path}"
                );
                assert_eq!(answer.header("set-cookie"), None);
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
    }
    let there = client.get("/v2/dev-local/team/app/tags/list").await.json();
    assert_eq!(there["tags"], serde_json::json!(["1"]));
}
