//! What an issuer's token can be but right, and when its keys are fetched.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde_json::{Value, json};
use tokio::time::{advance, sleep};

use super::*;
use crate::auth::{self, Grant, On, Policy, Right, Rights, Rule, TOKEN_TTL, TokenError, Who};
use crate::secret::Secret;

#[path = "../../../tests/it/support/signer.rs"]
#[expect(unreachable_pub, reason = "shared with the tests from outside")]
mod signer;
use signer::Signer;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const ISSUER: &str = "https://issuer.example";

/// What an issuer publishes, by URL; `Err`: it is down. Counts what is asked.
#[derive(Debug, Clone, Default)]
struct Published(Arc<Mutex<(HashMap<String, Fetched>, usize)>>);

impl Published {
    fn of(issuer: &str, keys: &[&Signer]) -> Self {
        let published = Self::default();
        let place = format!("{issuer}/.well-known/openid-configuration");
        let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
        published.put(&place, &document);
        published.keys(issuer, keys);
        published
    }

    fn put(&self, url: &str, document: &Value) {
        let bytes = Bytes::from(document.to_string());
        self.0.lock().unwrap().0.insert(url.to_owned(), Ok(bytes));
    }

    fn keys(&self, issuer: &str, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.put(&format!("{issuer}/keys"), &json!({"keys": keys}));
    }

    /// How often the keys were asked for.
    fn count(&self) -> usize {
        self.0.lock().unwrap().1
    }

    fn fetch(&self) -> Fetch {
        let published = self.clone();
        Fetch::new(move |url, max| {
            let published = published.clone();
            async move {
                let mut inside = published.0.lock().unwrap();
                inside.1 += usize::from(url.ends_with("/keys"));
                let found = inside.0.get(&url).cloned();
                let found = found.unwrap_or_else(|| Err("it is down".to_owned()))?;
                assert!(found.len() <= max);
                Ok(found)
            }
        })
    }
}

fn config() -> Config {
    Config {
        issuer: ISSUER.to_owned(),
        audience: "mirror".to_owned(),
        user_claim: "sub".to_owned(),
        user_prefix: "oidc:".to_owned(),
        groups_claim: Some("groups".to_owned()),
        require: BTreeMap::from([("repository_owner".to_owned(), "org".to_owned())]),
        algorithms: Algorithm::USUAL.to_vec(),
        ca: None,
        allow_addresses: Vec::new(),
    }
}

/// Rules: whoever is `oidc:repo:org/**` or in `@oidc:ops` pulls.
fn open(dir: &Path) -> Auth {
    let rule = |who: &str| Rule {
        who: vec![Who::parse(who)],
        on: vec![On::parse("hub").unwrap()],
        may: Rights::default().with(Right::Pull),
    };
    let config = auth::Config {
        users: None,
        realm: "mirror".to_owned(),
        token_ttl: TOKEN_TTL,
        policy: Policy {
            rules: vec![rule("oidc:repo:org/**"), rule("@oidc:ops"), rule("*")],
            groups: BTreeMap::new(),
        },
        oidc: Vec::new(),
        certificates: true,
    };
    Auth::open(config, dir).unwrap()
}

fn now() -> i64 {
    clock::now().as_ms() / 1000
}

fn right() -> Value {
    json!({
        "iss": ISSUER, "aud": "mirror", "sub": "repo:org/app:ref:refs/heads/main", "exp": now() + 60, "nbf": now(), "iat": now(),
        "repository_owner": "org",
    })
}

async fn show(auth: &Auth, token: &str) -> Result<Identity, Refused> {
    // Each from an address of its own, so that none is held up for the one before it.
    let address = IpAddr::from(rand());
    auth.by_issuer(token, address).await.unwrap()
}

fn rand() -> [u8; 4] {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn tokens_are_logins_for_whom_rules_name() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let keys = [
        Signer::rsa("r"),
        Signer::p256("e"),
        Signer::p384("e2"),
        Signer::ed25519("d"),
    ];
    let published = Published::of(ISSUER, &keys.each_ref());
    let all = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];
    let algorithms = all.map(|name| Algorithm::parse(name).unwrap()).to_vec();
    let told = Config {
        algorithms,
        ..config()
    };
    auth.trust(vec![(told, published.fetch())], &tasks);
    for key in &keys {
        let found = show(&auth, &key.token(&right())).await.unwrap();
        assert_eq!(found.name(), Some("oidc:repo:org/app:ref:refs/heads/main"));
        assert!(auth.may(&found, "hub", Some("a"), Right::Pull));
        assert!(!auth.may(&found, "hub", Some("a"), Right::Push));
    }
    let pss = json!({"alg": "PS256", "kid": "r"});
    let found = show(&auth, &keys[0].sign(&pss, &right().to_string())).await;
    assert!(found.is_ok());
    // As a password, whatever the name beside it.
    let token = Secret::new(keys[1].token(&right()));
    for name in ["", "oauth2accesstoken", "ada"] {
        let found = auth.by_password(name, &token, ADDRESS).await.unwrap();
        assert_eq!(found.name(), Some("oidc:repo:org/app:ref:refs/heads/main"));
        assert!(
            auth.by_password_perhaps(name, &token, ADDRESS)
                .await
                .is_ok()
        );
    }
    // By a group that rules name; the others are not kept.
    let mut claims = right();
    claims["sub"] = json!("somebody");
    assert_eq!(
        show(&auth, &keys[0].token(&claims)).await,
        Err(Refused::Issuer(OidcError::Nobody(
            "oidc:somebody".to_owned()
        ))),
        "neither a rule for every user nor one for everybody is about them"
    );
    claims["groups"] = json!(["everybody", "ops"]);
    let found = show(&auth, &keys[0].token(&claims)).await.unwrap();
    assert_eq!(found.voucher().unwrap().groups, ["oidc:ops"]);
    claims["groups"] = json!("ops");
    assert!(show(&auth, &keys[0].token(&claims)).await.is_ok());
    // More than one audience, no `nbf`, a header without id where one key alone could be meant.
    let mut claims = right();
    claims["aud"] = json!(["other", "mirror"]);
    claims.as_object_mut().unwrap().remove("nbf");
    let header = json!({"alg": "ES256"});
    assert!(
        show(&auth, &keys[1].sign(&header, &claims.to_string()))
            .await
            .is_ok()
    );
    // What is no token of an issuer goes the usual ways.
    claims["iss"] = json!("https://other.example");
    for text in ["", "password", "eyJ", "eyJ.eyJ.x", &keys[0].token(&claims)] {
        assert!(auth.by_issuer(text, ADDRESS).await.is_none(), "{text}");
    }
    assert_eq!(published.count(), 1);
}

#[tokio::test]
async fn what_we_issue_ends_with_what_it_is_issued_for() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let key = Signer::p256("e");
    let published = Published::of(ISSUER, &[&key]);
    auth.trust(vec![(config(), published.fetch())], &tasks);
    let mut claims = right();
    claims["groups"] = json!(["ops"]);
    let grants = [Grant {
        key: "hub".to_owned(),
        image: "a".to_owned(),
        may: Rights::default().with(Right::Pull),
    }];
    let mut issued = Vec::new();
    for (lasts, at_most) in [(30, 30), (86_400, TOKEN_TTL.as_secs())] {
        claims["exp"] = json!(now() + lasts);
        let found = show(&auth, &key.token(&claims)).await.unwrap();
        let token = auth.issue(&found, &grants);
        assert!(
            (at_most - 3..=at_most).contains(&token.expires_in),
            "{token:?}"
        );
        assert!(auth.issue_refresh(&found).is_none());
        let again = auth.by_token(token.token.expose()).unwrap();
        assert_eq!(again.name(), found.name());
        assert_eq!(again.voucher().unwrap().groups, ["oidc:ops"]);
        assert!(auth.may(&again, "hub", Some("a"), Right::Pull));
        issued.push(token);
    }
    // No certificate speaks for an issuer.
    let told = Config {
        user_prefix: "spiffe:".to_owned(),
        issuer: format!("{ISSUER}/2"),
        ..config()
    };
    let both = vec![(config(), published.fetch()), (told, published.fetch())];
    assert!(auth.by_certificate("spiffe://a/b").name().is_some());
    auth.trust(both, &tasks);
    assert!(auth.by_certificate("spiffe://a/b").name().is_none());
    // The same issuer told the same goes on; told otherwise, nothing of before counts.
    let count = |issued: &[auth::Issued]| {
        let counts = |token: &&auth::Issued| auth.by_token(token.token.expose()).is_ok();
        issued.iter().filter(counts).count()
    };
    auth.trust(vec![(config(), published.fetch())], &tasks);
    assert_eq!((count(&issued), published.count()), (2, 1));
    let strict = Config {
        audience: "other".to_owned(),
        ..config()
    };
    auth.trust(vec![(strict, published.fetch())], &tasks);
    assert_eq!(count(&issued), 0);
    assert_eq!(
        auth.by_token(issued[0].token.expose()),
        Err(TokenError::Subject.into())
    );
    auth.trust(Vec::new(), &tasks);
    assert!(
        auth.by_issuer(&key.token(&right()), ADDRESS)
            .await
            .is_none()
    );
}

/// RELIABILITY 1.3, P36 and T2: each differs from what counts by one thing.
#[tokio::test]
async fn tokens_that_are_not_right() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let (rsa, ec, stranger) = (Signer::rsa("r"), Signer::p256("e"), Signer::rsa("r"));
    let published = Published::of(ISSUER, &[&rsa, &ec]);
    auth.trust(vec![(config(), published.fetch())], &tasks);
    assert!(show(&auth, &rsa.token(&right())).await.is_ok());
    assert!(show(&auth, &ec.token(&right())).await.is_ok());
    let mut cases: Vec<(String, String)> = Vec::new();

    let soon = now() + 3600;
    let claims = json!({
        "exp": [now() - 1, now(), 0, "9999999999", null, [], [9_999_999_999_u64], {}, -1, 1.5e10, 1_795_264_458.5, true, ""],
        "iat": [soon, "0", null, [], -1, 1.5, true],
        "nbf": [soon, "0", null, {}, [], -1, 0.5, false],
        "aud": ["other", "", null, [], ["other"], ["mirror", 1], {"mirror": 1}, 1, "Mirror", "mirror "],
        "sub": [null, "", 1, ["repo:org/app:x"], "repo:evil/app:x", "repo:org\n/app", "repo:organ/app:x", "x".repeat(600)],
        "repository_owner": [null, "", "evil", "org2", "ORG", ["evil"], {}, 1, true, [["org"]]],
        "groups": [1, [1], [null], {}, [""], ["a\u{0}"]],
    });
    for (field, values) in claims.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            let mut claims = right();
            claims[field] = value.clone();
            let shown: String = format!("{field} {value}").chars().take(60).collect();
            cases.push((shown, rsa.token(&claims)));
        }
        if !["nbf", "groups"].contains(&field.as_str()) {
            let mut claims = right();
            claims.as_object_mut().unwrap().remove(field);
            cases.push((format!("no {field}"), rsa.token(&claims)));
        }
    }

    let text = right().to_string();
    for header in [
        json!({"alg": "none", "kid": "r"}),
        json!({"alg": "None", "kid": "r"}),
        json!({"alg": "", "kid": "r"}),
        json!({"alg": null, "kid": "r"}),
        json!({"alg": ["RS256"], "kid": "r"}),
        json!({"alg": "HS256", "kid": "r"}),
        json!({"alg": "HS512", "kid": "r"}),
        // Not configured, and not of this key's kind.
        json!({"alg": "RS384", "kid": "r"}),
        json!({"alg": "PS256", "kid": "r"}),
        json!({"alg": "EdDSA", "kid": "r"}),
        json!({"alg": "ES256", "kid": "r"}),
        json!({"alg": "RS256", "kid": "e"}),
        json!({"alg": "RS256", "kid": ""}),
        json!({"alg": "RS256", "kid": 1}),
        json!({"alg": "RS256", "kid": "../../../../etc/passwd"}),
        json!({"alg": "RS256", "kid": "r\u{0}"}),
        json!({"alg": "RS256", "kid": "R"}),
        json!({"alg": "RS256", "kid": "https://evil.example/keys"}),
        json!({"alg": "RS256", "kid": "r", "jwk": stranger.jwk()}),
        json!({"alg": "RS256", "kid": "r", "jku": "https://evil.example/keys"}),
        json!({"alg": "RS256", "kid": "r", "x5u": "https://evil.example/pem"}),
        json!({"alg": "RS256", "kid": "r", "x5c": ["MIIB"]}),
        json!({"alg": "RS256", "kid": "r", "crit": ["exp"], "exp": 1}),
        json!({"alg": "RS256", "kid": "r", "crit": []}),
        json!({"alg": "RS256", "kid": "r", "b64": false}),
        json!({"alg": "RS256", "kid": "r", "enc": "A256GCM"}),
        json!({"alg": "RS256", "kid": "r", "zip": "DEF"}),
        json!({"alg": "RS256", "kid": "r", "cty": "JWT"}),
        json!({"alg": "RS256", "kid": "r", "typ": "JWE"}),
        json!({"alg": "RS256", "kid": "r", "typ": "logout+jwt"}),
        json!({"alg": "RS256", "kid": "r", "typ": 1}),
        json!([]),
        json!("RS256"),
    ] {
        cases.push((header.to_string(), rsa.sign(&header, &text)));
    }
    // Signed by the secret that everybody can read.
    for secret in [rsa.modulus().unwrap(), rsa.jwk().to_string(), String::new()] {
        let head = B64.encode(json!({"alg": "HS256", "kid": "r"}).to_string());
        let signed = format!("{head}.{}", B64.encode(&text));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
        cases.push((
            "an HMAC".to_owned(),
            format!("{signed}.{}", B64.encode(tag.as_ref())),
        ));
    }
    cases.push((
        "a stranger's signature".to_owned(),
        stranger.token(&right()),
    ));
    let header = rsa.header();
    for (what, text) in [
        (
            "1e400",
            text.replace(&format!("\"exp\":{}", right()["exp"]), "\"exp\":1e400"),
        ),
        ("more than one text", format!("{text}{text}")),
    ] {
        let token = rsa.sign(&header, &text);
        assert!(
            auth.by_issuer(&token, ADDRESS)
                .await
                .is_none_or(|found| found.is_err()),
            "{what}"
        );
    }
    let good = rsa.token(&right());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut flipped = B64.decode(signature).unwrap();
    flipped[100] ^= 1;
    let mut other = right();
    other["sub"] = json!("repo:org/other:x");
    let (head, _) = good.split_once('.').unwrap();
    for (what, token) in [
        ("no signature", format!("{signed}.")),
        (
            "half a signature",
            format!("{signed}.{}", signature.split_at(100).0),
        ),
        (
            "another signature",
            format!("{signed}.{}", B64.encode(flipped)),
        ),
        ("a padded signature", format!("{good}==")),
        (
            "other claims",
            format!("{head}.{}.{signature}", B64.encode(other.to_string())),
        ),
        ("no header", format!("eyJ{}", good.split_at(head.len()).1)),
        ("too long", format!("{good}{}", "A".repeat(TOKEN_MAX))),
        ("3 MiB", format!("eyJ{}", "A".repeat(3 << 20))),
        ("3 MiB of dots", format!("eyJ{}", ".".repeat(3 << 20))),
    ] {
        cases.push((what.to_owned(), token));
    }
    assert!(cases.len() >= 80, "{}", cases.len());
    for (what, token) in &cases {
        let found = show(&auth, token).await;
        assert!(
            matches!(found, Err(Refused::Issuer(_))),
            "{what}: {found:?}"
        );
    }
    // Nobody is told of in these forms, so they are no issuer's: refused as what they are by whoever they are shown to.
    for token in [
        format!("{good}.x"),
        format!("{good}.x.y"),
        signed.to_owned(),
        "eyJhbGciOiJub25lIn0".to_owned(),
    ] {
        assert!(auth.by_issuer(&token, ADDRESS).await.is_none());
        assert!(auth.by_token(&token).is_err());
        assert!(
            auth.by_password("ada", &Secret::new(token), ADDRESS)
                .await
                .is_err()
        );
    }
    // Of all of them only those with an id that is not there may have had the keys fetched, and once.
    assert_eq!(published.count(), 2);
    assert!(show(&auth, &good).await.is_ok());
}

#[tokio::test]
async fn wrong_tokens_count_by_address_and_right_ones_are_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let key = Signer::p256("e");
    auth.trust(
        vec![(config(), Published::of(ISSUER, &[&key]).fetch())],
        &tasks,
    );
    let good = key.token(&right());
    // One that is for somebody else was not made up: a forgotten job keeps nobody out.
    let mut claims = right();
    claims["aud"] = json!("other");
    let forgotten = Secret::new(key.token(&claims));
    for _ in 0..20 {
        let found = auth.by_password("ci", &forgotten, ADDRESS).await;
        assert!(matches!(found, Err(Refused::Issuer(_))), "{found:?}");
    }
    let wrong = Secret::new(Signer::p256("e").token(&right()));
    let mut held_up = 0;
    for n in 0..20 {
        let name = format!("name{n}");
        let found = auth.by_password(&name, &wrong, ADDRESS).await;
        held_up += usize::from(matches!(found, Err(Refused::TooMany(_))));
    }
    assert!((5..15).contains(&held_up), "{held_up} of 20");
    assert!(matches!(
        auth.by_password("ada", &Secret::new("guess"), ADDRESS)
            .await,
        Err(Refused::TooMany(_))
    ));
    assert!(auth.by_issuer(&good, ADDRESS).await.unwrap().is_ok());
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    let found = auth
        .by_password("name1", &Secret::new("guess"), elsewhere)
        .await;
    assert_eq!(found, Err(Refused::Wrong), "names are not counted");
}

/// With a clock that stands still until it is told.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_hourly_and_once_a_minute_for_unknown_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let (old, new, never) = (
        Signer::rsa("old"),
        Signer::p256("new"),
        Signer::p256("never"),
    );
    let published = Published::of(ISSUER, &[&old]);
    auth.trust(vec![(config(), published.fetch())], &tasks);
    assert!(show(&auth, &old.token(&right())).await.is_ok());
    assert_eq!(published.count(), 1);
    // A new key is found at once, and all that wait for it wait for one fetch.
    published.keys(ISSUER, &[&old, &new]);
    let token = new.token(&right());
    let shown = (0..50).map(|_| show(&auth, &token));
    let found = futures_util::future::join_all(shown).await;
    assert!(found.iter().all(Result::is_ok));
    assert_eq!(published.count(), 2);
    // A flood of ids fetches nothing more within the minute, and takes no good key away.
    let flood = async |count: usize| {
        for n in 0..count {
            let header = json!({"alg": "ES256", "kid": format!("k{n}")});
            let found = show(&auth, &never.sign(&header, &right().to_string())).await;
            assert_eq!(found, Err(Refused::Issuer(OidcError::Key)));
        }
    };
    flood(200).await;
    assert_eq!(published.count(), 2);
    for minute in 0..5 {
        advance(Duration::from_secs(60)).await;
        flood(50).await;
        assert_eq!(published.count(), 3 + minute);
        assert!(show(&auth, &old.token(&right())).await.is_ok());
    }
    // Within the hour nothing is due, then once.
    let before = published.count();
    auth.tidy();
    settle().await;
    assert_eq!(published.count(), before);
    advance(Duration::from_secs(3601)).await;
    published.keys(ISSUER, &[&new]);
    auth.tidy();
    auth.tidy();
    settle().await;
    assert_eq!(published.count(), before + 1);
    // What was withdrawn counts no more.
    assert!(show(&auth, &old.token(&right())).await.is_err());
    assert!(show(&auth, &token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn keys_are_kept_for_a_day_while_the_issuer_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let (key, never) = (Signer::p256("e"), Signer::p256("never"));
    let published = Published::of(ISSUER, &[&key]);
    let document = format!("{ISSUER}/.well-known/openid-configuration");
    auth.trust(vec![(config(), published.fetch())], &tasks);
    assert!(show(&auth, &key.token(&right())).await.is_ok());
    let whole = published.0.lock().unwrap().0.clone();
    // Whatever it answers instead, the good keys stay.
    let other = json!({"issuer": "https://other.example", "jwks_uri": format!("{ISSUER}/keys")});
    for (place, wrong) in [
        (&document, json!({})),
        (&document, other),
        (
            &document,
            json!({"issuer": ISSUER, "jwks_uri": "http://issuer.example/keys"}),
        ),
        (
            &document,
            json!({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}),
        ),
        (&format!("{ISSUER}/keys"), json!({"keys": []})),
        (
            &format!("{ISSUER}/keys"),
            json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "e"}]}),
        ),
        (&format!("{ISSUER}/keys"), json!("down")),
    ] {
        published.0.lock().unwrap().0 = whole.clone();
        published.put(place, &wrong);
        advance(Duration::from_secs(61)).await;
        assert!(
            show(&auth, &never.token(&right())).await.is_err(),
            "{wrong}"
        );
        assert!(show(&auth, &key.token(&right())).await.is_ok(), "{wrong}");
    }
    published.0.lock().unwrap().0.clear();
    advance(Duration::from_secs(23 * 3600)).await;
    auth.tidy();
    settle().await;
    assert!(show(&auth, &key.token(&right())).await.is_ok());
    advance(Duration::from_secs(3600)).await;
    let down = Err(Refused::Issuer(OidcError::Unreachable));
    for _ in 0..30 {
        let found = auth.by_issuer(&key.token(&right()), ADDRESS).await;
        assert_eq!(
            found,
            Some(down.clone()),
            "an issuer that is down makes nobody a guesser"
        );
    }
    // And it comes back.
    published.0.lock().unwrap().0 = whole;
    advance(Duration::from_secs(61)).await;
    assert!(show(&auth, &key.token(&right())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_does_not_answer_holds_up_its_own_for_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let (auth, tasks) = (open(dir.path()), Tasks::new());
    let fetch = Fetch::new(|_, _| std::future::pending());
    auth.trust(vec![(config(), fetch)], &tasks);
    let key = Signer::p256("e");
    let start = tokio::time::Instant::now();
    let found = show(&auth, &key.token(&right())).await;
    assert_eq!(found, Err(Refused::Issuer(OidcError::Unreachable)));
    assert!(start.elapsed() <= PATIENCE + Duration::from_millis(10));
}

#[test]
fn keys_that_are_none() {
    let (rsa, ec) = (Signer::rsa("r"), Signer::p256("e"));
    let allowed = Algorithm::USUAL;
    let usable = |key: &Value| {
        let set = json!({"keys": [key]}).to_string();
        jwks::Jwks::parse(set.as_bytes(), &allowed).is_some()
    };
    assert!(usable(&rsa.jwk()) && usable(&ec.jwk()));
    for (from, field, value) in [
        (&rsa, "use", json!("enc")),
        (&rsa, "key_ops", json!(["sign"])),
        (&rsa, "alg", json!("PS256")),
        (&rsa, "alg", json!("HS256")),
        (&rsa, "alg", json!("ES256")),
        (&rsa, "kty", json!("oct")),
        (&rsa, "kty", json!("EC")),
        (&rsa, "n", json!("AQAB")),
        (&rsa, "n", json!(B64.encode(vec![255; 2048]))),
        (&rsa, "n", json!(null)),
        (&rsa, "e", json!(B64.encode(vec![255; 64]))),
        (&ec, "crv", json!("P-521")),
        (&ec, "crv", json!("P-384")),
        (&ec, "x", json!("AA")),
        (&ec, "y", json!("not base64!")),
        (&ec, "kid", json!(7)),
    ] {
        let mut key = from.jwk();
        key[field] = value.clone();
        assert!(!usable(&key), "{field} {value}");
    }
    let mut several = vec![json!({"kty": "oct", "k": "AA"}), json!(1)];
    several.push(rsa.jwk());
    let set = json!({"keys": several}).to_string();
    assert_eq!(
        jwks::Jwks::parse(set.as_bytes(), &allowed).unwrap().len(),
        1
    );
}

proptest::proptest! {
    #[test]
    fn never_panics(head in "\\PC{0,80}", claims in "\\PC{0,80}", rest in "[ -~]{0,80}", set in "\\PC{0,80}") {
        let told = config();
        let token = format!("{}.{}.{rest}", B64.encode(head), B64.encode(claims));
        for token in [&token, &rest] {
            if let Some(claims) = token::Claims::peek(token) {
                assert!(claims.judge(&told, clock::now()).is_err());
            }
            assert!(token::Signed::parse(token, &told).is_err());
        }
        assert!(jwks::Jwks::parse(set.as_bytes(), &Algorithm::USUAL).is_none());
    }
}
