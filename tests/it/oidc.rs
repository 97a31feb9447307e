//! Tokens of an issuer as logins: by every way that clients show them, by rules on claims, over changes of keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::image::{self, Flavour};
use crate::support::signer::Signer;
use crate::support::tls::Authority;
use crate::support::{Answer, Client, Issuer, Mirror, Remote, Upstream};

const MAIN: &str = "repo:org/app:ref:refs/heads/main";
const PULL_REQUEST: &str = "repo:org/app:pull_request";

fn rules(issuer: &Issuer, more: &str) -> String {
    format!(
        r#"
[local.dev-local]
[auth]
[[auth.oidc]]
issuer = "{}"
audience = "mirror"
groups_claim = "groups"
require = {{ repository_owner = "org" }}
{more}
[[auth.allow]]
who = ["anonymous"]
on = ["docker-hub"]
may = ["pull"]
[[auth.allow]]
who = ["oidc:repo:org/*:ref:refs/heads/main"]
on = ["dev-local/app/**"]
may = ["pull", "push"]
[[auth.allow]]
who = ["@oidc:ops", "oidc:repo:org/**"]
on = ["dev-local"]
may = ["pull"]
"#,
        issuer.url()
    )
}

async fn mirror_of(upstream: &Upstream, rules: &str) -> Mirror {
    Mirror::with(&[Remote::hub(&upstream.url())], rules).await
}

fn claims(issuer: &Issuer, subject: &str) -> Value {
    let mut claims = issuer.claims("mirror", subject);
    claims["repository_owner"] = json!("org");
    claims
}

fn basic(name: &str, token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{token}")))
}

impl Client {
    async fn shown(&self, login: &str, method: Method, path: &str) -> Answer {
        let headers = [("authorization", login), ("accept", "*/*")];
        self.send(method, path, &headers).await
    }

    async fn push_with(&self, login: &str, name: &str, image: &crate::support::Image) -> u16 {
        let login = ("authorization", login);
        for blob in &image.blobs {
            let path = format!("/v2/{name}/blobs/uploads/?digest={}", blob.digest);
            let put = self
                .send_body(Method::POST, &path, &[login], blob.bytes.clone())
                .await;
            let status = put.status;
            if status != StatusCode::CREATED {
                return status.as_u16();
            }
        }
        let path = format!("/v2/{name}/manifests/1");
        let headers = [login, ("content-type", image.root.media_type.as_str())];
        let put = self.send_body(Method::PUT, &path, &headers, image.root.bytes.clone());
        put.await.status.as_u16()
    }
}

#[tokio::test]
async fn a_job_logs_in_by_every_way_and_may_what_its_claims_give() {
    let upstream = Upstream::start().await;
    let (rsa, ec) = (Signer::rsa("rsa"), Signer::p256("ec"));
    let issuer = Issuer::start(&[&rsa, &ec]).await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = mirror_of(&upstream, &rules(&issuer, "")).await;
    let client = mirror.client();
    let token = rsa.token(&claims(&issuer, MAIN));

    // Basic with any name, and Bearer, on every route.
    for login in [
        basic("oauth2accesstoken", &token),
        basic("", &token),
        basic(&"x".repeat(200), &token),
        format!("Bearer {token}"),
        format!("bearer {}", ec.token(&claims(&issuer, MAIN))),
    ] {
        let base = client.shown(&login, Method::GET, "/v2/").await;
        assert_eq!(base.status, StatusCode::OK, "{base:?}");
        assert_eq!(
            client.push_with(&login, "dev-local/app/a", &image).await,
            201
        );
        let path = "/v2/dev-local/app/a/manifests/1";
        let pulled = client.shown(&login, Method::GET, path).await;
        assert!(pulled.is(&image.root.bytes));
        // Where a pattern does not reach.
        assert_eq!(
            client.push_with(&login, "dev-local/other", &image).await,
            403
        );
    }
    // The token endpoint: Basic with and without a scope, Bearer, and the OAuth 2 form.
    let query =
        "/v2/token?service=roadstead&scope=repository:dev-local/app/a:pull,push&offline_token=true";
    let form = |username: &str| {
        let form = [
            ("grant_type", "password"),
            ("username", username),
            ("password", &token),
            ("service", "roadstead"),
            ("access_type", "offline"),
            ("scope", "repository:dev-local/app/a:pull,push"),
        ];
        let text = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        bytes::Bytes::from(text)
    };
    let answers = [
        client.shown(&basic("ci", &token), Method::GET, query).await,
        client
            .shown(&format!("Bearer {token}"), Method::GET, query)
            .await,
        client
            .send_body(Method::POST, "/v2/token", &[], form("ci"))
            .await,
        client
            .send_body(Method::POST, "/v2/token", &[], form(""))
            .await,
    ];
    for answer in answers {
        let told = answer.json();
        assert_eq!(answer.status, StatusCode::OK, "{told}");
        let lasts = told["expires_in"].as_u64().unwrap();
        assert!(
            (1..=60).contains(&lasts),
            "no longer than what it is for: {told}"
        );
        assert!(told.get("refresh_token").is_none());
        let ours = format!("Bearer {}", told["token"].as_str().unwrap());
        assert_eq!(
            client.push_with(&ours, "dev-local/app/a", &image).await,
            201
        );
        assert_eq!(
            client.push_with(&ours, "dev-local/app/b", &image).await,
            401
        );
    }
    let bare = client
        .shown(&basic("ci", &token), Method::GET, "/v2/token?account=ci")
        .await;
    assert_eq!(bare.status, StatusCode::OK);

    // Another subject of the same issuer pulls and does not push; groups give what they are given, through our own tokens too.
    let other = basic("ci", &ec.token(&claims(&issuer, PULL_REQUEST)));
    let path = "/v2/dev-local/app/a/manifests/1";
    assert!(
        client
            .shown(&other, Method::GET, path)
            .await
            .is(&image.root.bytes)
    );
    assert_eq!(
        client.push_with(&other, "dev-local/app/a", &image).await,
        403
    );
    let mut grouped = claims(&issuer, "somebody");
    grouped["groups"] = json!(["everybody", "ops"]);
    let login = basic("ci", &rsa.token(&grouped));
    let query = "/v2/token?scope=repository:dev-local/app/a:pull";
    let told = client.shown(&login, Method::GET, query).await.json();
    let ours = format!("Bearer {}", told["token"].as_str().unwrap());
    assert!(
        client
            .shown(&ours, Method::GET, path)
            .await
            .is(&image.root.bytes)
    );
    // Who pushed stands in the history.
    let log = mirror.log().join("\n");
    assert!(log.contains("oidc:repo:org/app:ref:refs/heads/main"));
    let (_, signature) = token.rsplit_once('.').unwrap();
    assert!(!log.contains(signature), "a token is in the log");
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn what_does_not_count_is_401_and_opens_nothing() {
    let upstream = Upstream::start().await;
    let (key, stranger) = (Signer::p256("k"), Signer::p256("k"));
    let issuer = Issuer::start(&[&key]).await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let rules = rules(&issuer, "");
    let changed = |field: &str, value: Value| {
        let mut claims = claims(&issuer, MAIN);
        claims[field] = value;
        key.token(&claims)
    };
    let now = claims(&issuer, MAIN)["iat"].as_u64().unwrap();
    let good = key.token(&claims(&issuer, MAIN));
    // A few for each mirror: after ten the address has to wait.
    let cases = [
        ("aud", changed("aud", json!("other"))),
        ("expired", changed("exp", json!(now - 1))),
        ("nbf", changed("nbf", json!(now + 600))),
        ("owner", changed("repository_owner", json!("evil"))),
        (
            "a subject that no rule names",
            changed("sub", json!("repo:evil/app:x")),
        ),
        ("typed", changed("exp", json!("9999999999"))),
        ("a stranger's key", stranger.token(&claims(&issuer, MAIN))),
        ("none", {
            let text = claims(&issuer, MAIN).to_string();
            stranger.sign(&json!({"alg": "none", "kid": "k"}), &text)
        }),
    ];
    for (what, token) in &cases {
        let mirror = mirror_of(&upstream, &rules).await;
        let client = mirror.client();
        let query = "/v2/token?scope=repository:docker-hub/library/nginx:pull";
        for (login, path) in [
            (basic("ci", token), "/v2/"),
            (format!("Bearer {token}"), "/v2/dev-local/app/a/manifests/1"),
            // Not even what everybody may, since this was meant for us.
            (basic("ci", token), query),
            (basic("ci", token), "/v2/token?account=ci"),
        ] {
            let answer = client.shown(&login, Method::GET, path).await;
            assert_eq!(answer.status.as_u16(), 401, "{what} {path} {answer:?}");
        }
        let is_said = |line: &&String| line.contains("the token of an issuer does not count");
        crate::eventually!(mirror.log().iter().filter(is_said).count() == 4);
        // Then a right one, which the wrong ones do not hold up; and the guessing ends.
        let mut answers = Vec::new();
        for _ in 0..20 {
            let answer = client.shown(&basic("ci", token), Method::GET, "/v2/").await;
            answers.push(answer.status.as_u16());
            let answer = client.shown(&basic("ci", &good), Method::GET, "/v2/").await;
            assert_eq!(answer.status.as_u16(), 200, "{what}");
        }
        // Those alone are guesses that somebody made up.
        let last = match *what {
            "a stranger's key" | "none" => 429,
            _ => 401,
        };
        assert_eq!((answers[0], answers[19]), (401, last), "{what} {answers:?}");
    }
}

#[tokio::test]
async fn keys_change_and_issuers_go_down() {
    let upstream = Upstream::start().await;
    let (first, second, never) = (Signer::rsa("1"), Signer::p256("2"), Signer::p256("3"));
    let issuer = Issuer::start(&[&first]).await;
    let mirror = mirror_of(&upstream, &rules(&issuer, "")).await;
    let client = mirror.client();
    let status = async |token: &str| {
        let answer = client.shown(&basic("ci", token), Method::GET, "/v2/").await;
        answer.status.as_u16()
    };
    let (old, new) = (
        first.token(&claims(&issuer, MAIN)),
        second.token(&claims(&issuer, MAIN)),
    );
    crate::eventually!(issuer.fetches() == 1);
    assert_eq!(status(&old).await, 200);
    // A new key is found by the first who shows it, and the one that went counts no more.
    issuer.publish(&[&second]);
    let many = (0..20).map(|_| status(&new));
    let answers = futures_util::future::join_all(many).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(status(&old).await, 401);
    // A flood of ids asks nothing more within the minute, and takes no good key away.
    for n in 0..200 {
        let header = json!({"alg": "ES256", "kid": format!("../{n}")});
        let text = claims(&issuer, MAIN).to_string();
        let answer = status(&never.sign(&header, &text)).await;
        assert!(matches!(answer, 401 | 429), "{answer}");
    }
    assert_eq!(issuer.fetches(), 2);
    // Down, the keys that are known count on.
    issuer.be_down(true);
    assert_eq!(status(&new).await, 200);
}

#[tokio::test]
async fn a_mirror_starts_without_its_issuer_and_finds_it_later() {
    let upstream = Upstream::start().await;
    let key = Signer::p256("k");
    let issuer = Issuer::start(&[&key]).await;
    issuer.be_down(true);
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = mirror_of(&upstream, &rules(&issuer, "")).await;
    let client = mirror.client();
    let login = basic("ci", &key.token(&claims(&issuer, MAIN)));
    crate::eventually!(
        mirror
            .log()
            .iter()
            .any(|line| line.contains("cannot fetch the keys"))
    );
    // Everybody else goes on.
    let path = "/v2/docker-hub/library/nginx/manifests/1";
    assert!(client.shown("Basic Og==", Method::GET, path).await.status != StatusCode::OK);
    let anonymous = client.get(path).await;
    assert!(anonymous.is(&image.root.bytes));
    issuer.be_down(false);
    let answer = client.shown(&login, Method::GET, "/v2/").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn an_issuer_behind_tls_is_believed_by_its_authority() {
    let upstream = Upstream::start().await;
    let (key, authority) = (Signer::p256("k"), Authority::new());
    let issuer = Issuer::start_tls(&[&key], &authority.localhost()).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = authority.write(dir.path());
    for (more, status) in [
        (format!("ca = \"{}\"", ca.display()), 200),
        (String::new(), 401),
    ] {
        let mirror = mirror_of(&upstream, &rules(&issuer, &more)).await;
        let login = basic("ci", &key.token(&claims(&issuer, MAIN)));
        let answer = mirror.client().shown(&login, Method::GET, "/v2/").await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        let problem = mirror.log().iter().any(|line| line.contains("TLS with"));
        assert_eq!(problem, status == 401);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn issuers_come_and_go_on_sighup() {
    let upstream = Upstream::start().await;
    let key = Signer::p256("k");
    let issuer = Issuer::start(&[&key]).await;
    let rules = rules(&issuer, "");
    let mirror = mirror_of(&upstream, &rules).await;
    let client = mirror.client();
    let login = basic("ci", &key.token(&claims(&issuer, MAIN)));
    let query = "/v2/token?scope=repository:dev-local/app/a:pull,push";
    let told = client.shown(&login, Method::GET, query).await.json();
    let ours = format!("Bearer {}", told["token"].as_str().unwrap());
    let status = async |login: &str| {
        let answer = client.shown(login, Method::GET, "/v2/").await;
        answer.status.as_u16()
    };
    assert_eq!((status(&login).await, status(&ours).await), (200, 200));
    let file = mirror.configuration();
    let text = std::fs::read_to_string(&file).unwrap();
    // Told another audience: neither their token nor ours counts any more.
    std::fs::write(
        &file,
        text.replace("audience = \"mirror\"", "audience = \"new\""),
    )
    .unwrap();
    mirror.hang_up();
    crate::eventually!(status(&login).await == 401);
    assert_eq!(status(&ours).await, 401);
    // A broken one leaves what is in force.
    std::fs::write(
        &file,
        text.replace("audience = \"mirror\"", "audience = \"\""),
    )
    .unwrap();
    mirror.hang_up();
    crate::eventually!(
        mirror
            .log()
            .iter()
            .any(|line| line.contains("this configuration cannot be used"))
    );
    std::fs::write(&file, &text).unwrap();
    mirror.hang_up();
    crate::eventually!(status(&login).await == 200);
}
