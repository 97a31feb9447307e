use url::Url;

use super::{Endpoint, Origin, UrlError, parse};

fn origin(text: &str) -> String {
    format!("{:?}", Origin::of(&parse(text, None).unwrap()).unwrap())
}

#[test]
fn spellings_of_one_host_are_one_host() {
    for (text, canonical) in [
        (
            "https://Auth.Docker.IO./token",
            "https://auth.docker.io:443",
        ),
        ("http://0x7f.1/", "http://127.0.0.1:80"),
        ("http://2130706433:81/", "http://127.0.0.1:81"),
        ("http://2852039166/", "http://169.254.169.254:80"),
        ("http://0xA9FEA9FE/", "http://169.254.169.254:80"),
        ("http://0251.0376.0251.0376/", "http://169.254.169.254:80"),
        ("http://127.0.0.1./", "http://127.0.0.1:80"),
        (
            "http://[::ffff:169.254.169.254]/",
            "http://[::ffff:a9fe:a9fe]:80",
        ),
        (
            "https://xn--bcher-kva.example/",
            "https://xn--bcher-kva.example:443",
        ),
        ("http://LOCALHOST.:5000", "http://localhost:5000"),
    ] {
        assert_eq!(origin(text), canonical, "{text}");
    }
}

#[test]
fn what_is_refused() {
    let base = Url::parse("https://registry.example/v2/x/blobs/y").unwrap();
    for text in [
        "",
        " https://a/",
        "https://a b/",
        "https://evil\\@auth.docker.io",
        "https://auth.docker.io%2eevil",
        "https://user:pw@auth.docker.io@evil/",
        "https://user@evil/",
        "https://@evil/",
        "https:///evil",
        "https://",
        "https:evil",
        "https:/evil",
        "https://a\r\n/",
        "https://a\tb/",
        "https://a/\u{e9}",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://a../",
        "https://./",
        "https://a:99999/",
        "file:///etc/passwd",
        "gopher://a/",
        "ftp://a/",
        "unix:/x",
        "data:,x",
        "javascript:alert(1)",
        "https://1.2.3.4.5/",
        "https://0x100000000/",
        "///evil",
        "//",
    ] {
        assert!(parse(text, None).is_err(), "{text}");
        assert!(parse(text, Some(&base)).is_err(), "relative: {text}");
    }
    assert!(parse("//evil/x", None).is_err());
    assert!(parse("/x", None).is_err());
    assert_eq!(
        parse(&format!("https://a/{}", "x".repeat(20_000)), None),
        Err(UrlError::TooLong)
    );
}

#[test]
fn relative_targets() {
    let base = Url::parse("https://registry.example/v2/x/blobs/y").unwrap();
    for (text, whole) in [
        ("/other?a=b", "https://registry.example/other?a=b"),
        ("../../up", "https://registry.example/v2/up"),
        ("../../../../../../up", "https://registry.example/up"),
        ("//cdn.example/z", "https://cdn.example/z"),
        ("https://cdn.example/z#part", "https://cdn.example/z"),
        (
            "/to?next=https://u@x/",
            "https://registry.example/to?next=https://u@x/",
        ),
    ] {
        assert_eq!(
            parse(text, Some(&base)).map(String::from).as_deref(),
            Ok(whole),
            "{text}"
        );
    }
}

#[test]
fn urls_of_an_upstream() {
    let endpoint = |url: &str, ns: Option<&str>| {
        Endpoint::new(&Url::parse(url).unwrap(), ns.map(str::to_owned)).unwrap()
    };
    assert_eq!(
        endpoint("https://r.example", None)
            .url("/v2/a/b/manifests/sha256:00", &[])
            .as_str(),
        "https://r.example/v2/a/b/manifests/sha256:00"
    );
    assert_eq!(
        endpoint(
            "https://r.example:8443/artifactory/api/docker/hub/",
            Some("docker.io")
        )
        .url("/v2/a/tags/list", &[("n", "10")])
        .as_str(),
        "https://r.example:8443/artifactory/api/docker/hub/v2/a/tags/list?n=10&ns=docker.io"
    );
    for url in [
        "https://u:p@r.example",
        "https://r.example/?x=y",
        "https://r.example/#x",
        "ftp://r.example",
    ] {
        assert!(
            Endpoint::new(&Url::parse(url).unwrap(), None).is_err(),
            "{url}"
        );
    }
    assert_eq!(
        endpoint("https://R.example:443/", None)
            .origin()
            .to_string(),
        "r.example"
    );
    assert_eq!(
        endpoint("http://r.example:443/", None).origin().to_string(),
        "r.example:443"
    );
}
