//! Tokens that a client may show, and what it may ask for (RELIABILITY 1.3, T1, T2, T4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::access::{challenges, guarded, password, roadstead, token_of};
use crate::support::image::{self, Flavour};
use crate::support::{Answer, Canary, Client, Mirror, Upstream, raw, wait_until};

const MANIFEST: &str = "/v2/dev-local/team/app/manifests/1";
const SCOPE: &str = "scope=repository:dev-local/team/app:pull,push";

/// A mirror with an image that `reader`, `builder` and `keeper` may pull.
async fn with_image() -> (Upstream, Mirror) {
    let upstream = Upstream::start().await;
    let image = image::small(Flavour::Oci, 1);
    upstream.hold("library/nginx", "1", &image);
    let mirror = guarded(&upstream).await;
    let pushed = mirror
        .client()
        .push_as("keeper", "dev-local/team/app", "1", &image)
        .await;
    assert_eq!(pushed, StatusCode::CREATED);
    (upstream, mirror)
}

async fn form(client: &Client, text: String) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    client
        .send_body(Method::POST, "/v2/token", &headers, text.into())
        .await
}

/// Signs as the mirror does.
struct Signer {
    secret: Vec<u8>,
    header: Value,
    claims: Value,
}

impl Signer {
    /// With the mirror's own key, and everything as in a token that it gave.
    fn of(mirror: &Mirror, token: &str) -> Self {
        let file = std::fs::read_to_string(mirror.data().join("token-keys.json")).unwrap();
        let kept: Value = serde_json::from_str(&file).unwrap();
        let part = |at: usize| {
            let text = B64.decode(token.split('.').nth(at).unwrap()).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        Self {
            secret: B64.decode(kept[0]["secret"].as_str().unwrap()).unwrap(),
            header: part(0),
            claims: part(1),
        }
    }

    fn sign_with(&self, secret: &[u8], header: &str, claims: &str) -> String {
        let text = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", B64.encode(tag.as_ref()))
    }

    fn header(&self, changes: Value) -> String {
        let mut header = self.header.clone();
        merge(&mut header, changes);
        self.sign_with(&self.secret, &header.to_string(), &self.claims.to_string())
    }

    fn claims(&self, changes: Value) -> String {
        let mut claims = self.claims.clone();
        merge(&mut claims, changes);
        self.sign_with(&self.secret, &self.header.to_string(), &claims.to_string())
    }

    /// One claim, written as it stands here.
    fn written(&self, field: &str, value: &str) -> String {
        let text = self.claims.to_string();
        let before = format!("\"{field}\":{}", self.claims[field]);
        let after = text.replace(&before, &format!("\"{field}\":{value}"));
        assert_ne!(text, after);
        self.sign_with(&self.secret, &self.header.to_string(), &after)
    }
}

fn merge(into: &mut Value, changes: Value) {
    for (name, value) in changes.as_object().unwrap() {
        into[name] = value.clone();
    }
}

/// Each of these differs from a good token by one thing, and is 401 wherever a token is shown, without a connection to anybody.
#[tokio::test]
async fn tokens_that_are_not_right() {
    let (upstream, mirror) = with_image().await;
    let client = mirror.client();
    let canary = Canary::start();
    let good = token_of(&client.token("keeper", SCOPE).await);
    let signer = Signer::of(&mirror, &good);
    let right = signer.claims(json!({}));
    let shown = client.bearing(&right, Method::GET, MANIFEST).await;
    assert_eq!(
        shown.status,
        StatusCode::OK,
        "the corpus begins with a good one"
    );
    let now = signer.claims["iat"].as_u64().unwrap();
    let url = canary.url();
    let kid = signer.header["kid"].as_str().unwrap().to_owned();
    let mut corpus: Vec<(String, String)> = Vec::new();
    let mut add = |what: String, token: String| corpus.push((what, token));
    for (what, changes) in [
        ("none", json!({"alg": "none"})),
        ("None", json!({"alg": "None"})),
        ("HS512", json!({"alg": "HS512"})),
        ("RS256", json!({"alg": "RS256"})),
        ("ES256", json!({"alg": "ES256"})),
        ("EdDSA", json!({"alg": "EdDSA"})),
        ("alg null", json!({"alg": null})),
        ("jwk", json!({"jwk": {"kty": "oct", "k": "AAAA"}})),
        ("jku", json!({"jku": url})),
        ("x5u", json!({"x5u": url})),
        ("x5c", json!({"x5c": ["AAAA"]})),
        ("x5t", json!({"x5t": "AAAA"})),
        ("kid up", json!({"kid": "../../etc/passwd"})),
        ("kid null device", json!({"kid": "../../../dev/null"})),
        ("kid url", json!({"kid": url})),
        ("kid SQL", json!({"kid": "' OR 1=1 --"})),
        ("kid empty", json!({"kid": ""})),
        ("kid list", json!({"kid": [kid]})),
        ("kid null", json!({"kid": null})),
        ("crit", json!({"crit": ["exp"]})),
        ("b64", json!({"b64": false, "crit": ["b64"]})),
        ("zip", json!({"zip": "DEF"})),
        ("cty", json!({"cty": "JWT"})),
        ("JWE", json!({"enc": "A256GCM"})),
        ("typ", json!({"typ": "JWE"})),
    ] {
        add(format!("header {what}"), signer.header(changes));
    }
    for (field, value) in [
        ("exp", json!(now - 1)),
        ("exp", json!("9999999999")),
        ("exp", json!(null)),
        ("exp", json!([])),
        ("exp", json!({})),
        ("exp", json!(true)),
        ("exp", json!(-1)),
        ("exp", json!(9_999_999_999.5)),
        ("nbf", json!(now + 3600)),
        ("nbf", json!("0")),
        ("nbf", json!(null)),
        ("iat", json!(now + 3600)),
        ("iat", json!(null)),
        ("aud", json!("other")),
        ("aud", json!(["roadstead"])),
        ("aud", json!(null)),
        ("iss", json!("other")),
        ("iss", json!(null)),
        ("sub", json!("root")),
        ("sub", json!("nobody")),
        ("sub", json!(["keeper"])),
        ("sub", json!("keeper\u{0}")),
        ("pwd", json!("")),
        ("pwd", json!(null)),
        ("access", json!("*")),
        (
            "access",
            json!([{"type": "repository", "name": 1, "actions": []}]),
        ),
    ] {
        add(
            format!("{field} {value}"),
            signer.claims(json!({ field: value })),
        );
    }
    for (field, value) in [
        ("exp", "1e400"),
        ("exp", "1e10"),
        ("exp", "99999999999999999999"),
        ("exp", "0x7fffffff"),
        ("nbf", "-0.5"),
    ] {
        add(format!("{field} {value}"), signer.written(field, value));
    }
    let (header, claims) = (signer.header.to_string(), signer.claims.to_string());
    let mut parts = right.rsplitn(2, '.');
    let (tag, signed) = (parts.next().unwrap(), parts.next().unwrap());
    let mut flipped = B64.decode(tag).unwrap();
    flipped[31] ^= 1;
    let twice = claims.replacen('{', "{\"sub\":\"root\",", 1);
    for (what, token) in [
        ("no signature", format!("{signed}.")),
        ("no third part", signed.to_owned()),
        (
            "another signature",
            format!("{signed}.{}", B64.encode(flipped)),
        ),
        ("half a signature", format!("{signed}.{}", &tag[..20])),
        ("a fourth part", format!("{right}.x")),
        ("five parts", format!("{right}.x.y")),
        ("another key", signer.sign_with(&[0; 32], &header, &claims)),
        ("no key", signer.sign_with(&[], &header, &claims)),
        (
            "the kid as key",
            signer.sign_with(kid.as_bytes(), &header, &claims),
        ),
        (
            "two subjects",
            signer.sign_with(&signer.secret, &header, &twice),
        ),
        ("padding", format!("{right}=")),
        ("dots", ".".repeat(7000)),
        ("two dots", "..".to_owned()),
        ("nothing but a", "a".repeat(8000)),
        ("9 KiB", format!("{right}{}", "a".repeat(9 << 10))),
    ] {
        add(what.to_owned(), token);
    }
    assert!(corpus.len() >= 70, "{}", corpus.len());
    for (what, token) in &corpus {
        let shown = client.bearing(token, Method::GET, MANIFEST).await;
        assert_eq!(shown.status, StatusCode::UNAUTHORIZED, "{what}: {shown:?}");
        assert!(
            !shown.body.windows(5).any(|part| part == b"layer"),
            "{what}"
        );
        let asked = client
            .bearing(token, Method::GET, &format!("/v2/token?{SCOPE}"))
            .await;
        assert!(
            asked.status == StatusCode::UNAUTHORIZED || token_of(&asked) != *token,
            "{what}: {asked:?}"
        );
        let text = format!("grant_type=refresh_token&refresh_token={token}");
        assert_eq!(
            form(&client, text).await.status,
            StatusCode::UNAUTHORIZED,
            "{what}"
        );
    }
    // More than a head may have never becomes a token.
    for length in [40 << 10, 3 << 20] {
        let token = ".".repeat(length);
        let request =
            format!("GET {MANIFEST} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        let answer = raw::exchange(mirror.address(), request.as_bytes()).await;
        assert!([0, 400, 431].contains(&raw::status(&answer)), "{length}");
    }
    // A flood of unknown keys costs the good one nothing.
    for n in 0..1000 {
        let token = signer.header(json!({ "kid": format!("{n:032x}") }));
        let shown = client.bearing(&token, Method::GET, MANIFEST).await;
        assert_eq!(shown.status, StatusCode::UNAUTHORIZED);
    }
    let shown = client.bearing(&right, Method::GET, MANIFEST).await;
    assert_eq!(shown.status, StatusCode::OK);
    assert_eq!(
        (canary.connections(), upstream.log().len()),
        (0, 0),
        "nobody was asked"
    );
}

/// T1: a token grants what its user may, whatever is asked for, and asking has limits.
#[tokio::test]
async fn what_may_be_asked_for() {
    let (_upstream, mirror) = with_image().await;
    let client = mirror.client();
    for scope in [
        "repository:*:*",
        "repository:**:pull",
        "repository:dev-local/*:pull",
        "repository:dev-local/**:*",
        "a:b:c:d",
        "repository::pull",
        "repository:dev-local/team/app",
        "repository:dev-local/team/app:",
        "repository:../dev-local/team/app:pull",
        "repository:dev-local/team/app/../app:pull",
        "repository:DEV-LOCAL/team/app:pull",
        "repository:dev-local/team/app%00:pull",
        "registry:*:*",
        "*:*:*",
        "user:root:*",
    ] {
        let query: String = url::form_urlencoded::Serializer::new("scope=".to_owned())
            .append_pair("scope", scope)
            .finish();
        // Of the mightiest user, too: a token is for images by name.
        for user in ["reader", "root"] {
            let answer = client.token(user, &query).await;
            assert_eq!(answer.status, StatusCode::OK, "{user} {scope}");
            let token = token_of(&answer);
            for (method, path) in [
                (Method::GET, MANIFEST),
                (Method::GET, "/api/repositories"),
                (Method::DELETE, "/artifactory/dev-local/team/app"),
                (Method::GET, "/admin/audit"),
            ] {
                let shown = client.bearing(&token, method, path).await;
                assert!(
                    matches!(shown.status.as_u16(), 401 | 403 | 404),
                    "{user} {scope} {path}: {shown:?}"
                );
            }
        }
    }
    // Who the token is for the credentials say, not the form.
    let answer = client
        .token("reader", &format!("account=root&client_id=root&{SCOPE}"))
        .await;
    let token = token_of(&answer);
    let upload = "/v2/dev-local/team/app/blobs/uploads/";
    let shown = client.bearing(&token, Method::POST, upload).await;
    assert_eq!(shown.status, StatusCode::FORBIDDEN);
    let text = format!(
        "grant_type=password&username=reader&password={}&account=root&username=root&{SCOPE}",
        password("reader")
    );
    let token = token_of(&form(&client, text).await);
    let shown = client.bearing(&token, Method::POST, upload).await;
    assert_eq!(shown.status, StatusCode::FORBIDDEN);
    let many = vec!["scope=repository:dev-local/team/app:pull"; 1000].join("&");
    let long = format!("scope=repository:{}:pull", "a".repeat(64 << 10));
    let wide = format!("scope={}", "repository:a/b:pull%20".repeat(17));
    let login = format!(
        "grant_type=password&username=reader&password={}",
        password("reader")
    );
    for (what, text, status) in [
        ("1000 scopes", format!("{login}&{}", &many[..15 << 10]), 400),
        ("1000 scopes, all", format!("{login}&{many}"), 400),
        ("64 KiB", format!("{login}&{long}"), 400),
        ("17 in one", format!("{login}&{wide}"), 400),
        (
            "unknown service",
            format!("{login}&service=other.example&{SCOPE}"),
            400,
        ),
        (
            "two services",
            format!("{login}&service=roadstead&service=other&{SCOPE}"),
            400,
        ),
    ] {
        assert_eq!(form(&client, text).await.status.as_u16(), status, "{what}");
    }
    let shorter = &long[..60 << 10];
    for (query, status) in [(many.as_str(), 414), (shorter, 414), (wide.as_str(), 400)] {
        let answer = client.token("reader", query).await;
        assert_eq!(answer.status.as_u16(), status);
    }
}

/// Takes the configuration in which `from` is `to`, and waits until it counts.
fn change(mirror: &Mirror, from: &str, to: &str) {
    let done = |mirror: &Mirror| {
        let log = mirror.log();
        log.iter()
            .filter(|line| line.contains("SIGHUP: the repositories"))
            .count()
    };
    let before = done(mirror);
    let text = std::fs::read_to_string(mirror.configuration()).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(mirror.configuration(), text.replacen(from, to, 1)).unwrap();
    mirror.hang_up();
    assert!(wait_until(|| done(mirror) > before), "{:?}", mirror.log());
}

/// T4: what was given ends with what it was given for, at the next request.
#[tokio::test]
async fn what_was_given_and_taken_back() {
    let (_upstream, mirror) = with_image().await;
    let client = mirror.client();
    let status = |token: &str, method: Method, path: &'static str| {
        let token = token.to_owned();
        async move { client.bearing(&token, method, path).await.status.as_u16() }
    };
    let upload = "/v2/dev-local/team/app/blobs/uploads/";
    let builder = token_of(&client.token("builder", SCOPE).await);
    assert_eq!(status(&builder, Method::POST, upload).await, 202);
    // A group that is left.
    change(&mirror, "ci = [\"builder\"]", "ci = []");
    assert_eq!(status(&builder, Method::GET, MANIFEST).await, 404);
    assert_eq!(status(&builder, Method::POST, upload).await, 404);
    change(&mirror, "ci = []", "ci = [\"builder\"]");
    assert_eq!(status(&builder, Method::GET, MANIFEST).await, 200);
    // A right less.
    let rule = "on = [\"dev-local/team/**\"]\nmay = [\"pull\", \"push\"]";
    change(
        &mirror,
        rule,
        "on = [\"dev-local/team/**\"]\nmay = [\"pull\"]",
    );
    assert_eq!(status(&builder, Method::GET, MANIFEST).await, 200);
    assert_eq!(status(&builder, Method::POST, upload).await, 403);
    // What everybody may no longer.
    let nginx = "/v2/docker-hub/library/nginx/manifests/1";
    let nobody = token_of(
        &client
            .token("", "scope=repository:docker-hub/library/nginx:pull")
            .await,
    );
    assert_eq!(status(&nobody, Method::GET, nginx).await, 200);
    change(&mirror, "who = [\"anonymous\"]", "who = [\"keeper\"]");
    assert_eq!(status(&nobody, Method::GET, nginx).await, 401);
    // Another password, and the same one again: its hash is another.
    let login = format!(
        "grant_type=password&username=keeper&password={}",
        password("keeper")
    );
    let given = form(&client, format!("{login}&access_type=offline&{SCOPE}"))
        .await
        .json();
    let (access, refresh) = (&given["access_token"], &given["refresh_token"]);
    let access = access.as_str().unwrap().to_owned();
    let again = format!(
        "grant_type=refresh_token&refresh_token={}&{SCOPE}",
        refresh.as_str().unwrap()
    );
    assert_eq!(status(&access, Method::GET, MANIFEST).await, 200);
    assert_eq!(form(&client, again.clone()).await.status, StatusCode::OK);
    for typed in [crate::support::secrets::of("another"), password("keeper")] {
        let (done, said) = roadstead(&mirror, &["user", "add", "keeper"], &format!("{typed}\n"));
        assert!(done, "{said}");
        assert_eq!(status(&access, Method::GET, MANIFEST).await, 401);
        assert_eq!(
            form(&client, again.clone()).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    // A user who is gone, and another one of that name.
    let reader = token_of(&client.token("reader", SCOPE).await);
    assert_eq!(status(&reader, Method::GET, MANIFEST).await, 200);
    assert!(roadstead(&mirror, &["user", "remove", "reader"], "").0);
    assert_eq!(status(&reader, Method::GET, MANIFEST).await, 401);
    let typed = format!("{}\n", password("reader"));
    assert!(roadstead(&mirror, &["user", "add", "reader"], &typed).0);
    let shown = client.bearing(&reader, Method::GET, MANIFEST).await;
    assert_eq!(shown.status, StatusCode::UNAUTHORIZED);
    assert!(challenges(&shown)[0].contains("error=\"invalid_token\""));
}
