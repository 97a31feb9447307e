use super::{TokenHost, judge, push_scope, scope};
use crate::oci::Name;
use crate::upstream::Kind;
use crate::upstream::endpoint::{Origin, parse};

fn origin(text: &str) -> Origin {
    Origin::of(&parse(text, None).unwrap()).unwrap()
}

fn hosts(list: &[&str]) -> Vec<TokenHost> {
    list.iter()
        .map(|text| TokenHost::parse(text).unwrap())
        .collect()
}

#[test]
fn who_may_see_credentials() {
    for (own, realm, declared, fine) in [
        (
            "https://registry-1.docker.io",
            "https://auth.docker.io/token",
            &[][..],
            true,
        ),
        (
            "https://registry-1.docker.io",
            "https://AUTH.docker.io.:443/token",
            &[],
            true,
        ),
        (
            "https://registry-1.docker.io",
            "https://auth.docker.io:8443/token",
            &[],
            false,
        ),
        (
            "https://registry-1.docker.io",
            "https://auth.docker.io.evil/",
            &[],
            false,
        ),
        (
            "https://registry-1.docker.io",
            "https://xn--uth-5na.docker.io/",
            &[],
            false,
        ),
        (
            "https://evil.example",
            "https://auth.docker.io/token",
            &[],
            false,
        ),
        (
            "https://registry-1.docker.io:444",
            "https://auth.docker.io/token",
            &[],
            false,
        ),
        ("https://ghcr.io", "https://ghcr.io/token", &[], true),
        ("https://quay.io", "https://quay.io/v2/auth", &[], true),
        (
            "https://public.ecr.aws",
            "https://public.ecr.aws/token/",
            &[],
            true,
        ),
        (
            "https://europe-docker.pkg.dev",
            "https://europe-docker.pkg.dev/v2/token",
            &[],
            true,
        ),
        (
            "https://registry.gitlab.com",
            "https://gitlab.com/jwt/auth",
            &[],
            true,
        ),
        ("https://a.example", "https://b.example/t", &[], false),
        (
            "https://a.example",
            "https://b.example/t",
            &["b.example"],
            true,
        ),
        (
            "https://a.example",
            "https://b.example:8443/t",
            &["b.example"],
            true,
        ),
        (
            "https://a.example",
            "https://b.example:8443/t",
            &["b.example:443"],
            false,
        ),
        (
            "https://a.example",
            "https://b.example/t",
            &["B.example.:443"],
            true,
        ),
        (
            "https://a.example",
            "https://x.b.example/t",
            &["b.example"],
            false,
        ),
        ("https://a.example", "https://a.example:8443/t", &[], false),
        (
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5000/t",
            &[],
            true,
        ),
        (
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5001/t",
            &[],
            false,
        ),
        (
            "http://127.0.0.1:5000",
            "http://127.0.0.2:5000/t",
            &[],
            false,
        ),
        (
            "http://127.0.0.1:5000",
            "http://0x7f.1:5001/t",
            &["127.0.0.1:5001"],
            true,
        ),
        (
            "http://[::1]:5000",
            "http://[::1]:5001/t",
            &["[::1]:5001"],
            true,
        ),
        ("http://10.0.0.1", "https://10.0.0.1/t", &[], false),
    ] {
        let judged = judge(&origin(own), realm, true, &hosts(declared));
        assert_eq!(judged.is_ok(), fine, "{own} {realm}: {judged:?}");
        if let Err(error) = judged {
            assert_eq!(error.kind(), Kind::Credentials);
            assert!(error.to_string().contains("token_hosts"), "{error}");
        }
        // Anonymously anyone may be asked.
        assert!(
            judge(&origin(own), realm, false, &[]).is_ok(),
            "{own} {realm}"
        );
    }
}

#[test]
fn cleartext_is_never_a_way_down() {
    for has_credentials in [true, false] {
        for realm in [
            "http://a.example/t",
            "http://a.example:443/t",
            "http://b.example/t",
        ] {
            let error = judge(
                &origin("https://a.example"),
                realm,
                has_credentials,
                &hosts(&["b.example"]),
            )
            .unwrap_err();
            assert_eq!(error.kind(), Kind::Credentials, "{realm}");
        }
    }
}

#[test]
fn realms_that_are_no_urls() {
    for realm in [
        "",
        "//evil/t",
        "/token",
        "token",
        "file:///etc/passwd",
        "gopher://evil/",
        "ftp://evil/",
        "unix:/run/x",
        "data:,x",
        "https://user:pw@auth.docker.io@evil/",
        "https://evil\\@auth.docker.io",
        "https://auth.docker.io%2eevil",
        "http://[fe80::1%eth0]/",
    ] {
        let error = judge(&origin("https://a.example"), realm, false, &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::BadAnswer, "{realm}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
}

#[test]
fn token_hosts_are_hosts() {
    for text in [
        "",
        "https://a",
        "a/b",
        "a:b",
        "a:",
        "user@a",
        "a b",
        "a:99999",
        "::1",
    ] {
        assert!(TokenHost::parse(text).is_err(), "{text}");
    }
}

#[test]
fn our_own_scope() {
    let name = Name::parse("library/nginx").unwrap();
    assert_eq!(
        scope(&origin("https://ghcr.io"), &name),
        "repository:library/nginx:pull"
    );
    assert_eq!(scope(&origin("https://public.ecr.aws"), &name), "aws");
    let push = |host: &str, from| push_scope(&origin(host), &name, from);
    let own = format!("repository:{name}:pull,push");
    assert_eq!(push("https://ghcr.io", None), own);
    let both = format!("{own} repository:{name}:pull");
    assert_eq!(push("https://ghcr.io", Some(&name)), both);
    assert_eq!(push("https://public.ecr.aws", Some(&name)), "aws");
}
