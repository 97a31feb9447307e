use proptest::prelude::*;

use super::{CHALLENGE_MAX, Challenge, parse};

fn read(lines: &[&str]) -> Vec<Challenge> {
    parse(lines.iter().map(|line| line.as_bytes()))
}

fn bearer(realm: &str, service: Option<&str>) -> Challenge {
    Challenge::Bearer {
        realm: realm.to_owned(),
        service: service.map(str::to_owned),
    }
}

#[test]
fn what_registries_send() {
    for (line, expected) in [
        (
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
            vec![bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
            )],
        ),
        (
            r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull""#,
            vec![bearer("https://ghcr.io/token", Some("ghcr.io"))],
        ),
        (
            r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#,
            vec![Challenge::Basic],
        ),
        (
            r#"BEARER Realm = "https://a/t" , Service=x,error="invalid_token", error_description="say \"no\", twice""#,
            vec![bearer("https://a/t", Some("x"))],
        ),
        (
            r#"Basic realm="a, b", Bearer realm="https://a/t",service="s", Negotiate"#,
            vec![
                Challenge::Basic,
                bearer("https://a/t", Some("s")),
                Challenge::Other,
            ],
        ),
        (
            r#"Negotiate dG9rZW4=, Basic, Bearer realm="https://a/t""#,
            vec![
                Challenge::Other,
                Challenge::Basic,
                bearer("https://a/t", None),
            ],
        ),
        (
            r#"Digest realm="x", nonce=abc, Basic realm="y""#,
            vec![Challenge::Other, Challenge::Basic],
        ),
        (
            r#"Bearer realm="https://a/\"t""#,
            vec![bearer("https://a/\"t", None)],
        ),
        (
            r#"Bearer realm="https://a/t",service="""#,
            vec![bearer("https://a/t", None)],
        ),
        ("Basic", vec![Challenge::Basic]),
        (", ,Basic realm=x,,", vec![Challenge::Basic]),
    ] {
        assert_eq!(read(&[line]), expected, "{line}");
    }
}

#[test]
fn several_lines() {
    assert_eq!(
        read(&[
            "Negotiate",
            r#"Bearer realm="https://a/t""#,
            "Basic realm=x"
        ]),
        vec![
            Challenge::Other,
            bearer("https://a/t", None),
            Challenge::Basic
        ]
    );
}

#[test]
fn syntax_errors_spoil_their_challenge() {
    for line in [
        r#"Bearer realm="https://a/t"#,
        "Bearer realm=",
        r#"Bearer realm="a"b""#,
        r#"Bearer realm="https://a/t" service="x""#,
        r#"Bearer realm="https://a/t",realm="https://evil/t""#,
        r#"Bearer realm="https://a/t",service=a,service=b"#,
        "Bearer realm=\"https://a/\0t\"",
        "Bearer realm=\"https://a/\\\0t\"",
        "Bearer realm=\"https://a/t\\",
        "Bearer",
        "Bearer service=x",
        r#"Bearer realm="""#,
        r#"Bearer "https://a/t""#,
        r#"Bearer=realm="https://a/t""#,
        "\"",
        "=",
        "",
    ] {
        assert_eq!(read(&[line]), vec![], "{line}");
    }
    // What stood before the error counts.
    assert_eq!(
        read(&[r#"Basic realm=x, Bearer realm="https://a/t"#]),
        vec![Challenge::Basic]
    );
    assert_eq!(parse([&b"\xff\xfe"[..]].into_iter()), vec![]);
}

#[test]
fn capped() {
    let long = format!(r#"Bearer realm="https://a/{}""#, "x".repeat(CHALLENGE_MAX));
    assert_eq!(read(&[&long]), vec![]);
    let padding = format!("Basic realm={}", "x".repeat(CHALLENGE_MAX - 20));
    assert_eq!(
        read(&[&padding, r#"Bearer realm="https://a/t""#]),
        vec![Challenge::Basic]
    );
    assert!(read(&[&"Basic,".repeat(600)]).len() <= 16);
}

proptest! {
    #[test]
    fn never_panics(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4)) {
        let _ = parse(lines.iter().map(Vec::as_slice));
    }

    #[test]
    fn never_panics_near_the_grammar(line in r#"[BbearAsic ="\\,;a\x00é]{0,80}"#) {
        let _ = parse([line.as_bytes()].into_iter());
    }

    #[test]
    fn what_is_written_is_read(realm in "[ -~]{1,60}", service in "[ -~]{1,60}") {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let line = format!("Bearer realm=\"{}\",service=\"{}\"", quote(&realm), quote(&service));
        prop_assert_eq!(read(&[&line]), vec![bearer(&realm, Some(&service))]);
    }
}
