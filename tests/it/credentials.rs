//! Credentials go to the host they were configured for and its declared token host, whatever a registry says (RELIABILITY P29, C1–C20, R1–R20).
//!
//! A table of things that a hostile registry answers, each tried with a password, with a token, and with a refresh token. Addresses inside
//! are allowed to all of them, so that nothing but the care for credentials keeps them from the listeners that lure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::image::{self, Content, Flavour};
use crate::support::tls::{Authority, front};
use crate::support::{Act, Canary, Image, Mirror, Remote, Upstream, secrets};

/// What the mirror has for the registry.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Has {
    /// A password, which the registry takes itself.
    Password,
    /// A token that the password got.
    Token,
    /// A refresh token.
    Refresh,
}

/// What the registry does. In texts `LURE` and `INSIDE` are hosts that must learn nothing, `PORT` the port of the first of them, `OWN` is the
/// registry itself.
#[derive(Debug, Clone)]
enum Does {
    /// Asks for a login by these challenges.
    Challenges(&'static [&'static str]),
    /// Answers a blob so: status and headers.
    Blob(u16, &'static [(&'static str, &'static str)]),
    /// The same for a manifest by its tag.
    Manifest(u16, &'static [(&'static str, &'static str)]),
    /// Lists tags with this header.
    Tags(&'static [(&'static str, &'static str)]),
    /// The token service answers so: status, headers, body.
    Gives(u16, &'static [(&'static str, &'static str)], &'static str),
}

/// The row of section 5.4, what is done, and the status that the client gets.
type Row = (&'static str, Does, u16);

const LOCATION: &str = "Location";

fn rows() -> Vec<Row> {
    use Does::{Blob, Challenges, Gives, Manifest, Tags};
    let mut rows = vec![
        (
            "C1",
            Challenges(&["Bearer realm=\"http://INSIDE/token\",service=\"x\""]),
            502,
        ),
        (
            "C1",
            Challenges(&["Bearer realm=\"http://localhost:PORT/token\",service=\"x\""]),
            502,
        ),
        (
            "C3",
            Challenges(&["Bearer realm=\"http://LURE/token\",service=\"x\""]),
            502,
        ),
        (
            "C4",
            Challenges(&["Bearer realm=\"http://me:pw@LURE/token\""]),
            502,
        ),
        (
            "C4",
            Challenges(&["Bearer realm=\"http://OWN@LURE/token\""]),
            502,
        ),
        (
            "C4",
            Challenges(&["Bearer realm=\"http://LURE\\\\@OWN/token\""]),
            502,
        ),
        (
            "C4",
            Challenges(&["Bearer realm=\"http://OWN%40LURE/token\""]),
            502,
        ),
        (
            "C4",
            Challenges(&["Bearer realm=\"http://127。0。0。1:PORT/token\""]),
            502,
        ),
        (
            "C4",
            Challenges(&["Bearer realm=\"http://LURE#@OWN/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://0.0.0.0:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://[::]:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://[::1]:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://[::ffff:127.0.0.1]:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://2130706433:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://0x7f000001:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://0177.0.0.1:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://127.1:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://[64:ff9b::7f00:1]:PORT/token\""]),
            502,
        ),
        (
            "C5",
            Challenges(&["Bearer realm=\"http://[fe80::1%lo]:PORT/token\""]),
            502,
        ),
        (
            "C6",
            Challenges(&["Bearer realm=\"http://localhost.:PORT/token\""]),
            502,
        ),
        ("C7", Challenges(&["Bearer realm=\"//LURE/token\""]), 502),
        (
            "C7",
            Challenges(&["Bearer realm=\"gopher://LURE/token\""]),
            502,
        ),
        (
            "C7",
            Challenges(&["Bearer realm=\"ftp://LURE/token\""]),
            502,
        ),
        (
            "C7",
            Challenges(&["Bearer realm=\"file:///etc/passwd\""]),
            502,
        ),
        ("C7", Challenges(&["Bearer realm=\"\""]), 502),
        ("C7", Challenges(&["Bearer service=\"x\""]), 502),
        (
            "C8",
            Challenges(&["Bearer realm=\"http://LURE/token\",realm=\"http://OWN/token\""]),
            502,
        ),
        (
            "C8",
            Challenges(&["Bearer realm=\"http://OWN/token\",realm=\"http://LURE/token\""]),
            502,
        ),
        (
            "C8",
            Challenges(&[
                "Bearer realm=\"http://LURE/token\"",
                "Bearer realm=\"http://LURE/other\"",
            ]),
            502,
        ),
        (
            "C8",
            Challenges(&["Negotiate", "Bearer realm=\"http://LURE/token\""]),
            502,
        ),
        (
            "C8",
            Challenges(&["Digest realm=\"http://LURE/\",nonce=\"x\""]),
            502,
        ),
        ("C9", Challenges(&["Bearer realm=\"http://LURE/token"]), 502),
        ("C9", Challenges(&["Bearer realm=http://LURE/token"]), 502),
        (
            "C9",
            Challenges(&["Bearer realm=\"http://OWN/\"@LURE/token\""]),
            502,
        ),
        (
            "C9",
            Challenges(&["Bearer realm=\"http:\\/\\/LURE\\/token\""]),
            502,
        ),
        (
            "C9",
            Challenges(&["Bearer service=\"x\" realm=\"http://LURE/token\""]),
            502,
        ),
        (
            "C15",
            Gives(307, &[(LOCATION, "http://LURE/token")], "{}"),
            502,
        ),
        (
            "C15",
            Gives(302, &[(LOCATION, "http://INSIDE/token")], "{}"),
            502,
        ),
        (
            "C15",
            Gives(200, &[("Refresh", "0; url=http://LURE/")], "<html>"),
            502,
        ),
        (
            "C12",
            Gives(200, &[], "{\"token\":\"T.repository\\r\\nHost: LURE\"}"),
            502,
        ),
        (
            "C16",
            Gives(
                401,
                &[("WWW-Authenticate", "Bearer realm=\"http://LURE/token\"")],
                "{}",
            ),
            502,
        ),
        (
            "C16",
            Gives(
                401,
                &[("WWW-Authenticate", "Basic realm=\"http://LURE/\"")],
                "{}",
            ),
            502,
        ),
        (
            "C16",
            Gives(407, &[("Proxy-Authenticate", "Basic realm=\"x\"")], "{}"),
            502,
        ),
        ("R1", Blob(307, &[(LOCATION, "")]), 502),
        ("R4", Blob(307, &[(LOCATION, "gopher://LURE/x")]), 502),
        ("R4", Blob(307, &[(LOCATION, "file:///etc/passwd")]), 502),
        (
            "R4",
            Blob(307, &[(LOCATION, "javascript:fetch('http://LURE/')")]),
            502,
        ),
        (
            "R6",
            Blob(307, &[(LOCATION, "http://localhost:PORT/x")]),
            502,
        ),
        ("R10", Blob(307, &[(LOCATION, "//LURE/x")]), 502),
        ("R10", Blob(307, &[(LOCATION, "http://me:pw@LURE/x")]), 502),
        ("R10", Blob(307, &[(LOCATION, "http://OWN@LURE/x")]), 502),
        (
            "R10",
            Blob(307, &[(LOCATION, "http://LURE/x#http://OWN/")]),
            502,
        ),
        (
            "R10",
            Blob(
                307,
                &[(LOCATION, "http://OWN/v2/\r\nLocation: http://LURE/")],
            ),
            502,
        ),
        (
            "R10",
            Blob(307, &[(LOCATION, "http://127。0。0。1:PORT/x")]),
            502,
        ),
        ("R12", Blob(300, &[(LOCATION, "http://LURE/x")]), 502),
        ("R12", Blob(305, &[(LOCATION, "http://LURE/x")]), 502),
        ("R12", Blob(306, &[(LOCATION, "http://LURE/x")]), 502),
        (
            "R14",
            Blob(404, &[("Refresh", "0; url=http://LURE/x")]),
            404,
        ),
        (
            "R20",
            Blob(
                407,
                &[
                    ("Proxy-Authenticate", "Basic realm=\"x\""),
                    (LOCATION, "http://LURE/"),
                ],
            ),
            502,
        ),
        (
            "R20",
            Blob(
                404,
                &[
                    ("Alt-Svc", "h2=\"LURE\", http/1.1=\"LURE\""),
                    ("Strict-Transport-Security", "max-age=9"),
                ],
            ),
            404,
        ),
        (
            "U34",
            Tags(&[("Link", "<http://LURE/v2/a/b/tags/list>; rel=\"next\"")]),
            200,
        ),
        (
            "U34",
            Tags(&[("Link", "<//LURE/v2/a/b/tags/list>; rel=\"next\"")]),
            200,
        ),
    ];
    // R5, R7, R9, R11, R13: another host that wants a login, too, whose no to a manifest is the registry's (DECISIONS 1). A cookie of the
    // registry's is nobody's.
    const AWAY: &[(&str, &str)] = &[
        (LOCATION, "http://LURE/x?of=registry"),
        (
            "Set-Cookie",
            "session=s3cret-canary; Domain=127.0.0.1; Path=/",
        ),
    ];
    for status in [301, 302, 303, 307, 308] {
        rows.push(("R7 R9", Blob(status, AWAY), 502));
        rows.push(("R7 R13", Manifest(status, AWAY), 403));
    }
    rows
}

/// One row with a registry and lures of its own.
struct Stage {
    row: Row,
    key: &'static str,
    upstream: Upstream,
    lure: Canary,
    inside: Canary,
    image: Image,
    blob: Content,
}

impl Stage {
    async fn set(number: usize, row: Row, has: Has) -> Self {
        let upstream = Upstream::start().await;
        let image = image::small(Flavour::Oci, 1);
        let blob = image::blob(2, 1000);
        upstream.hold("a/b", "1", &image);
        upstream.hold("a/b", "2", &image);
        upstream.hold_blob(&blob);
        let stage = Self {
            row,
            key: format!("case-{number}").leak(),
            upstream,
            lure: Canary::luring("127.0.0.1:0"),
            inside: Canary::luring("127.0.0.2:0"),
            image,
            blob,
        };
        stage.wants(has);
        stage
    }

    /// What the registry wants while it is honest.
    fn wants(&self, has: Has) {
        let token = |name: &str| Act {
            status: Some(200),
            body: Some(format!("{{\"{name}\":\"T.repository.{}\"}}", secrets::of("token")).into()),
            ..Act::default()
        };
        match has {
            Has::Password => {
                let basic = (
                    "WWW-Authenticate".to_owned(),
                    "Basic realm=\"x\"".to_owned(),
                );
                let challenge = Act {
                    headers: vec![basic],
                    ..Act::status(401)
                };
                self.upstream.script("", "/v2/", 1, challenge);
            }
            Has::Token => {
                self.upstream.want_token(Some(&login()), None);
                self.upstream.script("GET", "/token", 1, token("token"));
            }
            Has::Refresh => {
                self.upstream.want_token(Some(&login()), None);
                self.upstream
                    .script("POST", "/token", 1, token("access_token"));
            }
        }
    }

    fn says(&self, text: &str) -> String {
        text.replace("LURE", &self.lure.address().to_string())
            .replace("INSIDE", &self.inside.address().to_string())
            .replace("PORT", &self.lure.address().port().to_string())
            .replace("OWN", &self.upstream.address().to_string())
    }

    fn act(&self, status: u16, headers: &[(&str, &str)], body: Option<&str>) -> Act {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| ((*name).to_owned(), self.says(value)));
        let mut act = Act::status(status);
        act.headers = headers.collect();
        if let Some(body) = body {
            act.body = Some(self.says(body).into());
        }
        act
    }

    /// Plays the row; the status that the client gets.
    async fn play(&self, mirror: &Mirror, has: Has) -> u16 {
        let client = mirror.client();
        let name = format!("{}/a/b", self.key);
        let blob = format!("/v2/{name}/blobs/{}", self.blob.digest);
        let first = matches!(self.row.1, Does::Challenges(_) | Does::Gives(..));
        let is_warm = !first || (has == Has::Token && matches!(self.row.1, Does::Challenges(_)));
        if is_warm {
            let answer = client.manifest(&name, "1").await;
            assert!(
                answer.is(&self.image.root.bytes),
                "{:?} {answer:?}",
                self.row
            );
        } else {
            self.upstream.unscript();
            self.upstream.want_token(Some(&login()), None);
        }
        let answer = match &self.row.1 {
            Does::Challenges(challenges) => {
                let headers: Vec<_> = challenges
                    .iter()
                    .map(|one| ("WWW-Authenticate", *one))
                    .collect();
                self.upstream
                    .script("", "/v2/", 9, self.act(401, &headers, None));
                client.get(&blob).await
            }
            Does::Gives(status, headers, body) => {
                let act = self.act(*status, headers, Some(body));
                self.upstream.script("", "/token", 9, act);
                client.get(&blob).await
            }
            Does::Blob(status, headers) => {
                self.upstream
                    .script("", "/blobs/", 9, self.act(*status, headers, None));
                client.get(&blob).await
            }
            Does::Manifest(status, headers) => {
                self.upstream
                    .script("", "/manifests/", 9, self.act(*status, headers, None));
                client.manifest(&name, "2").await
            }
            Does::Tags(headers) => {
                let act = self.act(200, headers, Some("{\"name\":\"a/b\",\"tags\":[\"1\"]}"));
                self.upstream.script("GET", "/tags/list", 9, act);
                client.get(&format!("/v2/{name}/tags/list")).await
            }
        };
        answer.status.as_u16()
    }

    /// Nobody learned anything who should not.
    fn is_kept(&self, has: Has) {
        let row = &self.row;
        for canary in [&self.lure, &self.inside] {
            for heard in canary.heard() {
                let said = String::from_utf8_lossy(&heard).to_ascii_lowercase();
                assert_eq!(secrets::marker_in(&heard), None, "{has:?} {row:?}: {said}");
                for header in ["authorization", "cookie", "refresh_token", "account="] {
                    assert!(!said.contains(header), "{has:?} {row:?}: {said}");
                }
            }
        }
        // A realm elsewhere is not even asked; where a redirect may be followed, it was, or this proves nothing.
        let asked = self.lure.connections() + self.inside.connections();
        let followed = row.0.starts_with("R7");
        match row.1 {
            Does::Challenges(_) | Does::Gives(..) | Does::Tags(_) => {
                assert_eq!(asked, 0, "{has:?} {row:?}");
            }
            Does::Blob(..) | Does::Manifest(..) => {
                assert!(asked > 0 || !followed, "{has:?} {row:?}");
            }
        }
        assert!(!self.upstream.log().is_empty(), "{has:?} {row:?}");
    }
}

fn login() -> String {
    format!("alice:{}", secrets::of("alice"))
}

async fn play_all(has: Has) {
    let mut stages = Vec::new();
    for (number, row) in rows().into_iter().enumerate() {
        stages.push(Stage::set(number, row, has).await);
    }
    assert!(stages.len() >= 60, "{}", stages.len());
    let dir = tempfile::tempdir().unwrap();
    let credentials = match has {
        Has::Password | Has::Token => {
            std::fs::write(dir.path().join("password"), secrets::of("alice")).unwrap();
            "{ username = \"alice\", password_file = \"password\" }"
        }
        Has::Refresh => {
            let auths: serde_json::Map<_, _> = stages
                .iter()
                .map(|stage| {
                    let auth = serde_json::json!({
                        "auth": STANDARD.encode("<token>:"), "identitytoken": secrets::of("refresh"),
                    });
                    (stage.upstream.address().to_string(), auth)
                })
                .collect();
            let config = serde_json::json!({ "auths": auths }).to_string();
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            "{ docker_config = \"config.json\" }"
        }
    };
    let remotes: Vec<Remote> = stages
        .iter()
        .map(|stage| Remote {
            key: stage.key,
            url: stage.upstream.url(),
            serves: format!("{}.example", stage.key).leak(),
            ..Remote::hub_with(
                "",
                &format!(
                    "tag_ttl = \"0s\"\nnegative_ttl = \"0s\"\ncredentials = {credentials}\nallow_addresses = [\"127.0.0.0/8\", \"::1/128\"]"
                ),
            )
        })
        .collect();
    let data = dir.path().join("data");
    let more = "[mirror]\ndefault = \"case-0\"\n";
    let mirror = Mirror::in_directory(dir, data, &remotes, more).await;
    let mut wrong = Vec::new();
    for stage in &stages {
        let got = stage.play(&mirror, has).await;
        if got != stage.row.2 {
            wrong.push(format!("{:?}: {got}", stage.row));
        }
        stage.is_kept(has);
    }
    assert!(wrong.is_empty(), "{has:?}:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_password_goes_nowhere_else() {
    play_all(Has::Password).await;
}

#[tokio::test]
async fn a_token_goes_nowhere_else() {
    play_all(Has::Token).await;
}

#[tokio::test]
async fn a_refresh_token_goes_nowhere_else() {
    play_all(Has::Refresh).await;
}

/// C2, C18, R3: over TLS there is no way down to cleartext, and no token service that cannot prove who it is.
#[tokio::test]
async fn over_tls_nothing_goes_where_tls_does_not() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let canary = Canary::luring("127.0.0.1:0");
    let lure = canary.address();
    let expired = authority.issue_until(&["localhost", "127.0.0.1"], 2024);
    let services = [
        front(&stranger.localhost(), lure).await,
        front(&expired, lure).await,
        front(&authority.issue(&["other.example"]), lure).await,
    ];
    let mut realms = vec![
        format!("http://{lure}/token"),
        format!("http://localhost:{}/token", lure.port()),
    ];
    realms.extend(services.map(|port| format!("https://localhost:{port}/token")));
    for realm in realms {
        let upstream = Upstream::start().await;
        let blob = image::blob(1, 1000);
        upstream.hold_blob(&blob);
        let port = front(&authority.localhost(), upstream.address()).await;
        let dir = tempfile::tempdir().unwrap();
        authority.write(dir.path());
        std::fs::write(dir.path().join("password"), secrets::of("alice")).unwrap();
        // Everything about these hosts is declared but that they may be asked without TLS.
        let hosts: Vec<String> = services
            .iter()
            .map(|port| format!("\"localhost:{port}\""))
            .collect();
        let more = format!(
            "ca = \"ca.crt\"\ncredentials = {{ username = \"alice\", password_file = \"password\" }}\nallow_addresses = [\"127.0.0.0/8\", \"::1/128\"]\ntoken_hosts = [\"localhost:{0}\", \"127.0.0.1:{0}\", {1}]",
            lure.port(),
            hosts.join(", "),
        );
        let remote = Remote::hub_with(&format!("https://localhost:{port}"), &more);
        let data = dir.path().join("data");
        let mirror = Mirror::in_directory(dir, data, &[remote], "").await;
        upstream.want_token(Some(&login()), Some(&realm));
        let answer = mirror.client().blob("a/b", &blob.digest).await;
        assert!(answer.status.is_server_error(), "{realm}: {answer:?}");
        assert!(
            upstream.count("", "/v2/") > 0,
            "{realm}: the registry was never reached"
        );
        let downhill = Act::redirect(307, &format!("http://{lure}/x"));
        upstream.script("", "/v2/", 9, downhill);
        let answer = mirror
            .client()
            .blob("a/b", &image::blob(3, 10).digest)
            .await;
        assert!(answer.status.is_server_error(), "{realm}: {answer:?}");
        assert_eq!(canary.connections(), 0, "{realm}");
    }
}
