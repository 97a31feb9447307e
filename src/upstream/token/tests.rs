use std::time::Duration;

use proptest::prelude::*;

use super::{Key, exchange, get, parse};
use crate::secret::Secret;
use crate::upstream::endpoint::{Origin, parse as parse_url};
use crate::upstream::login::Login;
use crate::upstream::realm::judge;

fn key(realm: &str, service: &str, login: Option<Login>) -> Key {
    let own = Origin::of(&parse_url("https://r.example", None).unwrap()).unwrap();
    Key {
        realm: judge(&own, realm, false, &[]).unwrap(),
        service: Some(service.to_owned()),
        scope: "repository:a/b:pull".to_owned(),
        login,
    }
}

#[test]
fn replies() {
    let header = |text: &str| format!("Bearer {text}");
    for (reply, expected) in [
        (
            r#"{"token":"a.b-c_d~e+f/g="}"#,
            Some(("a.b-c_d~e+f/g=", 60)),
        ),
        (r#"{"access_token":"x","expires_in":300}"#, Some(("x", 300))),
        (
            r#"{"token":"first","access_token":"second"}"#,
            Some(("first", 60)),
        ),
        (
            r#"{"token":"","access_token":"second"}"#,
            Some(("second", 60)),
        ),
        (
            r#"{"token":null,"access_token":"second"}"#,
            Some(("second", 60)),
        ),
        (r#"{"token":"x","expires_in":0}"#, Some(("x", 60))),
        (r#"{"token":"x","expires_in":-1}"#, Some(("x", 60))),
        (r#"{"token":"x","expires_in":1e18}"#, Some(("x", 3600))),
        (r#"{"token":"x","expires_in":"60"}"#, Some(("x", 60))),
        (r#"{"token":"x","expires_in":90.5}"#, Some(("x", 90))),
        (
            r#"{"token":"x","expires_in":null,"issued_at":"1970-01-01T00:00:00Z"}"#,
            Some(("x", 60)),
        ),
        (r#"{"token":"a\r\nX: y"}"#, None),
        (r#"{"token":"a b"}"#, None),
        (r#"{"token":"ä"}"#, None),
        (r#"{"token":5,"access_token":"x"}"#, None),
        (r#"{"token":["x"]}"#, None),
        (r#"{"token":""}"#, None),
        ("{}", None),
        ("[]", None),
        ("<html>", None),
        ("", None),
    ] {
        match (parse(reply.as_bytes()), expected) {
            (Some((token, life)), Some((text, seconds))) => {
                assert_eq!(token.header().to_str().unwrap(), header(text), "{reply}");
                assert_eq!(life.as_secs(), seconds, "{reply}");
                assert!(!format!("{token:?}").contains(text), "{token:?}");
            }
            (None, None) => {}
            (parsed, _) => panic!("{reply}: {parsed:?}"),
        }
    }
    assert!(parse(format!(r#"{{"token":"{}"}}"#, "x".repeat(16 * 1024 + 1)).as_bytes()).is_none());
    let deep = format!("{}{}", r#"{"a":"#.repeat(20_000), "1");
    assert!(parse(deep.as_bytes()).is_none());
    assert_eq!(
        parse(br#"{"token":"x","expires_in":99999999999999999999}"#)
            .unwrap()
            .1,
        Duration::from_secs(3600)
    );
}

#[test]
fn questions() {
    let request = get(&key(
        "https://auth.example/token?x=1",
        "a&realm=evil\r\nb",
        None,
    ))
    .unwrap();
    assert_eq!(
        request.uri(),
        "https://auth.example/token?x=1&service=a%26realm%3Devil%0D%0Ab&scope=repository%3Aa%2Fb%3Apull"
    );
    assert!(!request.headers().contains_key("authorization"));
    let login = Login::new("me".to_owned(), Secret::new("pw"));
    let request = get(&key("https://auth.example/token", "s", Some(login))).unwrap();
    assert_eq!(request.headers()["authorization"], "Basic bWU6cHc=");
    assert!(request.headers()["authorization"].is_sensitive());
    assert!(request.uri().query().unwrap().ends_with("&account=me"));
    let login = Login::new("<token>".to_owned(), Secret::new("identity"));
    let request = exchange(
        &key("https://auth.example/token", "s", Some(login)),
        "identity",
    )
    .unwrap();
    assert_eq!(request.uri(), "https://auth.example/token");
    assert!(!request.headers().contains_key("authorization"));
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }
}
