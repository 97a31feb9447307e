use super::{ForeignLayers, URLS_MAX, UrlPattern, UrlPatternError};
use crate::oci::ant::PatternError;

fn fits(pattern: &str, url: &str) -> bool {
    let layers = ForeignLayers::new(vec![UrlPattern::parse(pattern).unwrap()]);
    !layers.admit(&[url.to_owned()]).is_empty()
}

#[test]
fn artifactorys_patterns_on_urls() {
    const MCR: &str = "https://mcr.microsoft.com/v2/windows/servercore/blobs/sha256:0d2f";
    for (pattern, url) in [
        ("**", MCR),
        ("**", "http://10.0.0.1:8080/x?y=z"),
        ("**/", MCR),
        ("**/**", MCR),
        ("**/mcr.microsoft.com/**", MCR),
        ("**/mcr.microsoft.com/**", "https://mcr.microsoft.com"),
        ("**/mcr.microsoft.com/", MCR),
        ("**/MCR.Microsoft.com/**", MCR),
        (
            "**/mcr.microsoft.com/**",
            "https://MCR.microsoft.com.:443/v2/x",
        ),
        ("**/**/mcr.microsoft.com/**", MCR),
        ("**/mcr.microsoft.com/v2/**/blobs/*", MCR),
        (
            "**/go.microsoft.com/**",
            "https://go.microsoft.com/fwlink/?linkid=860052",
        ),
        (
            "**/registry-1.docker.io/**",
            "https://registry-1.docker.io/v2/a",
        ),
        ("**/*microsoft*/**", MCR),
        ("**/*.microsoft.com/**", "https://a.b.microsoft.com/x"),
        ("**/github.com/**", "http://github.com/a"),
        ("https://github.com/**", "https://github.com/a"),
        ("http*://github.com/**", "http://github.com/a"),
        ("https://**", MCR),
        ("**/*/layers/**", "https://anywhere.example/layers/1"),
        (
            "**/registry.example:5000/**",
            "http://registry.example:5000/x",
        ),
        ("**/127.0.0.1:*/**", "http://127.0.0.1:4711/x"),
    ] {
        assert!(fits(pattern, url), "{pattern} {url}");
    }
}

/// What a text would fit, and a host does not.
#[test]
fn a_host_in_the_pattern_is_the_urls_host() {
    for (pattern, url) in [
        (
            "**/mcr.microsoft.com/**",
            "https://evil.example/mcr.microsoft.com/x",
        ),
        (
            "**/mcr.microsoft.com/**",
            "https://evil.example/a/b/mcr.microsoft.com/x",
        ),
        (
            "**/mcr.microsoft.com/**",
            "https://mcr.microsoft.com.evil.example/x",
        ),
        (
            "**/mcr.microsoft.com/**",
            "https://evil.example/?x=/mcr.microsoft.com/x",
        ),
        (
            "**/mcr.microsoft.com/**",
            "https://evil.example/#/mcr.microsoft.com/x",
        ),
        (
            "**/mcr.microsoft.com/**",
            "https://mcr.microsoft.com:8443/x",
        ),
        ("**/mcr.microsoft.com/**", "https://evilmcr.microsoft.com/x"),
        (
            "**/mcr.microsoft.com/v2/**",
            "https://mcr.microsoft.com/v1/../v3/x",
        ),
        (
            "**/mcr.microsoft.com/v2/**",
            "https://mcr.microsoft.com/v2/%2e%2e/x",
        ),
        (
            "**/**/mcr.microsoft.com/**",
            "https://evil.example/mcr.microsoft.com/x",
        ),
        (
            "https://**/mcr.microsoft.com/**",
            "https://evil.example/mcr.microsoft.com/x",
        ),
        ("https://mcr.microsoft.com/**", "http://mcr.microsoft.com/x"),
        ("**/mcr.microsoft.com", "https://mcr.microsoft.com/x"),
        ("**/*/layers/**", "https://anywhere.example/a/layers/1"),
    ] {
        assert!(!fits(pattern, url), "{pattern} {url}");
    }
}

#[test]
fn only_plain_web_urls_are_asked() {
    for url in [
        "https://user:password@mcr.microsoft.com/x",
        "https://user@mcr.microsoft.com/x",
        "https://mcr.microsoft.com@evil.example/x",
        "https://mcr.microsoft.com\\@evil.example/x",
        "https:mcr.microsoft.com/x",
        "//mcr.microsoft.com/x",
        "/x",
        "",
        "ftp://mcr.microsoft.com/x",
        "file:///etc/passwd",
        "gopher://mcr.microsoft.com/x",
        "https://%6dcr.microsoft.com/x",
        "https://mcr.microsoft.com/x y",
        "https:///x",
    ] {
        assert!(!fits("**", url), "{url}");
    }
}

#[test]
fn patterns_that_are_none() {
    let refused = |text| UrlPattern::parse(text).unwrap_err();
    for text in [
        "mcr.microsoft.com/**",
        "image/**",
        "",
        "*/a/**",
        "https:/a/**",
    ] {
        assert_eq!(refused(text), UrlPatternError::Start, "{text}");
    }
    for text in ["**github.com**", "**/**.example/**", "https://a/x**"] {
        let stars = UrlPatternError::Pattern(PatternError::Stars);
        assert_eq!(refused(text), stars, "{text}");
    }
    for text in ["ftp://a/**", "://a", "s3://**"] {
        assert_eq!(refused(text), UrlPatternError::Scheme, "{text}");
    }
    for text in ["**/a b/**", "**/bücher.example/**", "**/u@a/**", "**/a\\b"] {
        assert_eq!(refused(text), UrlPatternError::Character, "{text}");
    }
}

#[test]
fn the_first_few_in_their_order_and_each_once() {
    let layers = ForeignLayers::new(vec![UrlPattern::parse("**").unwrap()]);
    let urls: Vec<String> = [
        "https://b.example/",
        "https://a.example/",
        "https://B.example",
    ]
    .map(str::to_owned)
    .into();
    let admitted = layers.admit(&urls);
    let hosts: Vec<String> = admitted.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["b.example", "a.example"]);
    let many: Vec<String> = (0..100).map(|n| format!("https://a.example/{n}")).collect();
    assert_eq!(layers.admit(&many).len(), URLS_MAX);
    assert!(ForeignLayers::default().admit(&many).is_empty());
}

#[test]
fn what_is_shown_of_a_url_is_its_host() {
    let layers = ForeignLayers::new(vec![UrlPattern::parse("**").unwrap()]);
    let url = &layers.admit(&["https://a.example/x?sig=SECRET".to_owned()])[0];
    assert_eq!(format!("{url}"), "a.example");
    assert!(!format!("{url:?}").contains("SECRET"));
}
