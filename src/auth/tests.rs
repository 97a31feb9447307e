//! Users, passwords and tokens.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::users::hash_at;
use super::*;
use crate::clock::Wall;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Somewhere with users `ada` and `bob`, whose passwords are their names twice.
fn somewhere() -> (tempfile::TempDir, Auth) {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    write_users(&users, &["ada", "bob"]);
    let auth = Auth::open(config(&users), dir.path()).unwrap();
    (dir, auth)
}

fn config(users: &Path) -> Config {
    Config {
        users: Some(users.to_owned()),
        realm: "mirror".to_owned(),
        token_ttl: TOKEN_TTL,
        policy: Policy::default(),
        oidc: Vec::new(),
        certificates: true,
    }
}

fn write_users(path: &Path, names: &[&str]) {
    let lines: Vec<String> = names
        .iter()
        .map(|name| format!("{name}:{}\n", hash_at(4, &format!("{name}{name}")).unwrap()))
        .collect();
    std::fs::write(path, lines.concat()).unwrap();
}

fn grants() -> Vec<Grant> {
    vec![Grant {
        key: "hub".to_owned(),
        image: "team/app".to_owned(),
        may: Rights::default().with(Right::Pull),
    }]
}

#[test]
fn a_users_file_that_is_broken_names_the_line() {
    let hash = hash_at(4, "x").unwrap();
    let costly = hash.replacen("$04$", "$31$", 1);
    for (text, says) in [
        ("ada".to_owned(), "users:1: no colon"),
        (
            format!("# users\n\nada:{hash}\nada:{hash}"),
            "users:4: this user is there already",
        ),
        ("ada:{SHA}abc".to_owned(), "users:1: the hash is not bcrypt"),
        (
            "ada:$apr1$x$y".to_owned(),
            "users:1: the hash is not bcrypt",
        ),
        ("ada:secret".to_owned(), "users:1: the hash is not bcrypt"),
        (format!("ada:{costly}"), "users:1: this hash takes too long"),
        (format!("anonymous:{hash}"), "users:1: this is no user name"),
        (format!("@ci:{hash}"), "users:1: this is no user name"),
        (format!(":{hash}"), "users:1: this is no user name"),
    ] {
        let error = Table::parse(&text, Path::new("users")).unwrap_err();
        assert!(error.to_string().starts_with(says), "{text}: {error}");
    }
    let table = Table::parse(&format!("bob:{hash}\r\nada:{hash}\n"), Path::new("users"));
    assert_eq!(table.unwrap().names(), ["ada", "bob"]);
}

#[tokio::test]
async fn passwords_count_as_long_as_they_stand_in_the_file() {
    let (dir, auth) = somewhere();
    let log_in = async |name: &str, password: &str| {
        auth.by_password(name, &Secret::new(password), ADDRESS)
            .await
    };
    for _ in 0..2 {
        assert_eq!(log_in("ada", "adaada").await, Ok(Identity::user("ada")));
    }
    assert_eq!(log_in("ada", "bobbob").await, Err(Refused::Wrong));
    assert_eq!(log_in("eve", "eveeve").await, Err(Refused::Wrong));
    // Beyond what bcrypt looks at nothing counts as right.
    let long = "x".repeat(80);
    assert_eq!(log_in("ada", &long).await, Err(Refused::Wrong));
    let users = dir.path().join("users");
    write_users(&users, &["bob", "eve"]);
    assert_eq!(log_in("ada", "adaada").await, Err(Refused::Wrong));
    assert_eq!(log_in("eve", "eveeve").await, Ok(Identity::user("eve")));
    // What is broken leaves those before it.
    std::fs::write(&users, "broken").unwrap();
    assert_eq!(log_in("eve", "eveeve").await, Ok(Identity::user("eve")));
    // Without a file there is nobody.
    std::fs::remove_file(&users).unwrap();
    assert_eq!(log_in("eve", "eveeve").await, Err(Refused::Wrong));
}

#[tokio::test]
async fn guessing_is_limited_by_name_and_by_address() {
    let (_dir, auth) = somewhere();
    let address = |n: u8| IpAddr::from([192, 0, 2, n]);
    let guess = async |name: &str, n: u8| {
        let wrong = Secret::new("wrong");
        auth.by_password(name, &wrong, address(n))
            .await
            .unwrap_err()
    };
    let mut refused = 0;
    for n in 0..30 {
        refused += usize::from(matches!(guess("ada", n).await, Refused::TooMany(_)));
    }
    assert!(
        (15..30).contains(&refused),
        "{refused} of 30 guesses at one name"
    );
    let mut refused = 0;
    for n in 0..30 {
        let name = format!("user{n}");
        refused += usize::from(matches!(guess(&name, 200).await, Refused::TooMany(_)));
    }
    assert!(
        (15..30).contains(&refused),
        "{refused} of 30 guesses from one address"
    );
    // Another name from elsewhere is not held up, and a right password is no guess.
    let right = Secret::new("bobbob");
    for n in 100..130 {
        let found = auth.by_password("bob", &right, address(n)).await;
        assert_eq!(found, Ok(Identity::user("bob")));
    }
    // Guesses of those who may have meant somebody else are counted apart, for names that are there and names that are not.
    let right = Secret::new("adaada");
    let perhaps = auth.by_password_perhaps("ada", &right, address(1)).await;
    assert_eq!(perhaps, Ok(Identity::user("ada")));
    let wrong = Secret::new("wrong");
    for _ in 0..12 {
        let perhaps = auth.by_password_perhaps("bob", &wrong, address(1)).await;
        assert_eq!(perhaps, Err(Refused::Wrong));
    }
    let changed = Secret::new("bobbob ");
    let perhaps = auth.by_password_perhaps("bob", &changed, address(1)).await;
    assert_eq!(perhaps, Err(Refused::Wrong));
    assert!(
        auth.attempts.allows("bob", address(1)).is_ok(),
        "logins are not held up"
    );
    assert!(auth.strangers.allows("bob", address(2)).is_err());
}

#[tokio::test]
async fn guesses_side_by_side_are_counted_one_by_one() {
    let (_dir, auth) = somewhere();
    let wrong = Secret::new("wrong");
    let guesses = (0..60).map(|_| auth.by_password("ada", &wrong, ADDRESS));
    let answers = futures_util::future::join_all(guesses).await;
    let checked = answers
        .iter()
        .filter(|answer| **answer == Err(Refused::Wrong))
        .count();
    assert!(checked <= 14, "{checked} of 60 were checked");
    let many = (0..500).map(|_| auth.by_password("bob", &wrong, ADDRESS));
    let answers = futures_util::future::join_all(many).await;
    assert!(
        answers
            .iter()
            .any(|answer| matches!(answer, Err(Refused::TooMany(_))))
    );
}

#[test]
fn tokens_grant_what_they_say_until_the_password_changes() {
    let (dir, auth) = somewhere();
    let ada = Identity::user("ada");
    let issued = auth.issue(&ada, &grants());
    assert_eq!(issued.expires_in, 300);
    let found = auth.by_token(issued.token.expose()).unwrap();
    assert_eq!(found.name(), Some("ada"));
    assert!(found.grants("hub", Some("team/app"), Right::Pull));
    for (key, image, right) in [
        ("hub", "team/app", Right::Push),
        ("hub", "team/other", Right::Pull),
        ("dev", "team/app", Right::Pull),
    ] {
        assert!(!found.grants(key, Some(image), right));
    }
    assert!(!found.is_whole() && !found.lists());
    let refresh = auth.issue_refresh(&ada).unwrap();
    assert_eq!(auth.by_refresh(refresh.token.expose()).unwrap(), ada);
    // Neither is the other.
    assert_eq!(
        auth.by_token(refresh.token.expose()),
        Err(TokenError::Kind.into())
    );
    assert_eq!(
        auth.by_refresh(issued.token.expose()),
        Err(TokenError::Kind.into())
    );
    let nobody = auth.issue(&Identity::anonymous(), &grants());
    assert_eq!(auth.by_token(nobody.token.expose()).unwrap().name(), None);
    assert!(auth.issue_refresh(&Identity::anonymous()).is_none());
    // After a restart they still count.
    drop(auth);
    let users = dir.path().join("users");
    let auth = Auth::open(config(&users), dir.path()).unwrap();
    assert!(auth.by_token(issued.token.expose()).is_ok());
    // Another password is another user, as far as tokens go.
    write_users(&users, &["ada", "bob"]);
    for found in [
        auth.by_token(issued.token.expose()),
        auth.by_refresh(refresh.token.expose()),
    ] {
        assert_eq!(found, Err(TokenError::Subject.into()));
    }
    // Another mirror's are none of ours.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Auth::open(config(&users), elsewhere.path()).unwrap();
    assert_eq!(
        other.by_token(issued.token.expose()),
        Err(TokenError::Key.into())
    );
}

#[test]
fn certificates_name_users_and_nobody_else() {
    let (dir, auth) = somewhere();
    for (name, expected) in [
        ("ada", Some("ada")),
        ("not-in-the-file", Some("not-in-the-file")),
        ("ada@example.com", Some("ada@example.com")),
        ("spiffe://example/ci", Some("spiffe://example/ci")),
        ("", None),
        ("anonymous", None),
        ("@ci", None),
        ("a b", None),
        ("oidc:repo:org/app", None),
        ("*", None),
    ] {
        let found = auth.by_certificate(name);
        assert_eq!(found.name(), expected, "{name}");
    }
    let ada = auth.by_certificate("ada");
    assert!(auth.issue_refresh(&ada).is_none());
    let issued = auth.issue(&ada, &grants());
    assert_eq!(
        auth.by_token(issued.token.expose()).unwrap().name(),
        Some("ada")
    );
    // A password that changes is not hers, and certificates that are not taken any more end it.
    write_users(&dir.path().join("users"), &["bob"]);
    assert!(auth.by_token(issued.token.expose()).is_ok());
    let without = Config {
        certificates: false,
        ..config(&dir.path().join("users"))
    };
    auth.take(Auth::prepare(without).unwrap());
    assert!(auth.by_token(issued.token.expose()).is_err());
    assert_eq!(auth.by_certificate("ada"), Identity::anonymous());
}

/// RELIABILITY 1.3 and T2: everything that a token can be but right.
#[test]
fn tokens_that_are_not_right() {
    let (dir, auth) = somewhere();
    let kept: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("token-keys.json")).unwrap())
            .unwrap();
    let secret = B64.decode(kept[0]["secret"].as_str().unwrap()).unwrap();
    let kid = kept[0]["kid"].as_str().unwrap();
    let sign = |header: &Value, claims: &str| {
        let text = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let tag = aws_lc_rs::hmac::sign(&key, text.as_bytes());
        format!("{text}.{}", B64.encode(tag.as_ref()))
    };
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": kid});
    let now = clock::now().as_ms() / 1000;
    let right = json!({
        "iss": "mirror", "aud": "mirror", "sub": "", "exp": now + 60, "nbf": now, "iat": now, "jti": "1", "pwd": "", "access": [],
    });
    assert!(
        auth.by_token(&sign(&header, &right.to_string())).is_ok(),
        "the corpus differs from this by one thing each"
    );
    for (field, values) in [
        (
            "exp",
            vec![
                json!(now - 1),
                json!("9999999999"),
                json!(null),
                json!([]),
                json!(-1),
                json!(1.5e10),
                json!(1_795_264_458.5),
            ],
        ),
        (
            "nbf",
            vec![json!(now + 3600), json!("0"), json!(null), json!({})],
        ),
        ("iat", vec![json!(now + 3600), json!("0"), json!(null)]),
        (
            "iss",
            vec![json!("other"), json!(null), json!(["mirror"]), json!("")],
        ),
        (
            "aud",
            vec![json!("other"), json!(null), json!(["other"]), json!("")],
        ),
        ("sub", vec![json!(null), json!(1), json!("nobody")]),
        ("access", vec![json!("all"), json!([{"type": 1}])]),
    ] {
        for value in values {
            let mut claims = right.clone();
            claims[field] = value.clone();
            let found = auth.by_token(&sign(&header, &claims.to_string()));
            assert!(found.is_err(), "{field} {value}");
        }
        if field != "access" {
            let mut claims = right.clone();
            claims.as_object_mut().unwrap().remove(field);
            assert!(
                auth.by_token(&sign(&header, &claims.to_string())).is_err(),
                "no {field}"
            );
        }
    }
    let huge = right
        .to_string()
        .replace(&format!("\"exp\":{}", now + 60), "\"exp\":1e400");
    assert!(auth.by_token(&sign(&header, &huge)).is_err());
    for other in [
        json!({"typ": "JWT", "alg": "none", "kid": kid}),
        json!({"typ": "JWT", "alg": "HS512", "kid": kid}),
        json!({"typ": "JWT", "alg": "RS256", "kid": kid}),
        json!({"typ": "JWE", "alg": "HS256", "kid": kid}),
        json!({"typ": "JWT", "alg": "HS256"}),
        json!({"typ": "JWT", "alg": "HS256", "kid": "../../etc/passwd"}),
        json!({"typ": "JWT", "alg": "HS256", "kid": kid, "jwk": {"kty": "oct", "k": "AA"}}),
        json!({"typ": "JWT", "alg": "HS256", "kid": kid, "jku": "https://evil.example"}),
        json!({"typ": "JWT", "alg": "HS256", "kid": kid, "x5c": []}),
        json!({"typ": "JWT", "alg": "HS256", "kid": kid, "crit": ["exp"]}),
        json!({"typ": "JWT", "alg": "HS256", "kid": kid, "enc": "A256GCM"}),
    ] {
        assert!(
            auth.by_token(&sign(&other, &right.to_string())).is_err(),
            "{other}"
        );
    }
    let good = sign(&header, &right.to_string());
    // One that was right before, too, and is remembered.
    assert!(auth.by_token(&good).is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut flipped = B64.decode(signature).unwrap();
    flipped[0] ^= 1;
    for text in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        ".".repeat(3 << 20),
        "x".repeat(3 << 20),
        signed.to_owned(),
        format!("{signed}."),
        format!("{signed}.{}", B64.encode(flipped)),
        format!("{good}.x"),
        format!("{good}.x.y"),
        format!("{good}{}", " ".repeat(TOKEN_MAX)),
    ] {
        let shown: String = text.chars().take(40).collect();
        assert!(auth.by_token(&text).is_err(), "{shown}");
    }
}

#[test]
fn a_token_that_is_remembered_still_ends() {
    let (dir, auth) = somewhere();
    let now = clock::now();
    let at = |seconds: i64| Wall::from_ms(now.as_ms() + seconds * 1000);
    let issued = auth.issue(&Identity::user("ada"), &grants());
    let token = issued.token.expose();
    assert!(auth.by_token(token).is_ok() && auth.keys.read(token, "mirror", at(290)).is_ok());
    for (realm, seconds) in [("mirror", 301), ("mirror", -10), ("other", 0)] {
        let read = auth.keys.read(token, realm, at(seconds));
        assert_eq!(read.unwrap_err(), TokenError::Invalid, "{realm} {seconds}");
    }
    write_users(&dir.path().join("users"), &["bob"]);
    assert_eq!(auth.by_token(token), Err(TokenError::Subject.into()));
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_checked_for_as_long() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    // As many of one cost as of another: the choice between them is always the same.
    let lines: Vec<String> = [("ada", 9), ("bob", 5), ("eve", 9), ("fay", 5)]
        .map(|(name, cost)| format!("{name}:{}\n", hash_at(cost, "x").unwrap()))
        .into();
    std::fs::write(&users, lines.concat()).unwrap();
    let auth = Auth::open(config(&users), dir.path()).unwrap();
    let wrong = Secret::new("wrong");
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..15_u8 {
        for (name, times) in [("ada", &mut known), ("nobody", &mut unknown)] {
            let current = auth.current();
            let table = current.users.table();
            let turn = auth.passwords.turn().await.unwrap();
            let start = Instant::now();
            let against = (table.get(name), table.usual_cost());
            let found = auth.passwords.verify(&turn, (name, &wrong), against);
            assert!(!found.await, "{n}");
            times.push(start.elapsed());
        }
    }
    known.sort();
    unknown.sort();
    // Medians of one run against each other: without a check of its own the second is a thousandth of the first, at the other cost a
    // sixteenth.
    let ratio = known[7].as_secs_f64() / unknown[7].as_secs_f64();
    assert!((0.25..4.0).contains(&ratio), "{known:?} {unknown:?}");
}

#[test]
fn keys_change_and_the_old_ones_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let start = clock::now();
    let later = |days: i64| Wall::from_ms(start.as_ms() + days * 24 * 3_600_000);
    let keys = Keys::open(dir.path(), start).unwrap();
    let kept = || -> Vec<Value> {
        let text = std::fs::read_to_string(dir.path().join("token-keys.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    keys.rotate(later(1)).unwrap();
    assert_eq!(kept().len(), 1);
    for (days, count) in [(8, 2), (16, 3), (24, 3)] {
        keys.rotate(later(days)).unwrap();
        assert_eq!(kept().len(), count, "{days}");
    }
    let mode = std::fs::metadata(dir.path().join("token-keys.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0);
    std::fs::write(dir.path().join("token-keys.json"), "{").unwrap();
    assert!(Keys::open(dir.path(), start).is_err());
}

proptest! {
    #[test]
    fn never_panics(token in "[ -~]{0,300}", users in "[ -~\n:$]{0,300}") {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path(), clock::now()).unwrap();
        prop_assert!(keys.read(&token, "mirror", clock::now()).is_err());
        let _either = Table::parse(&users, Path::new("users"));
        let _either = On::parse(&users);
    }
}
