use crate::oci::Platform;

#[test]
fn platforms_are_written_as_they_are_read() {
    for text in [
        "linux/amd64",
        "linux/arm/v7",
        "windows(10.0.20348.2700)/amd64",
        "unknown/unknown",
    ] {
        assert_eq!(Platform::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(
        Platform::parse("Linux/AMD64").unwrap(),
        Platform::new("linux", "amd64")
    );
}

#[test]
fn what_is_no_platform_is_refused() {
    for text in [
        "",
        "linux",
        "linux/",
        "/amd64",
        "linux/arm/v7/x",
        "linux amd64",
        "linux/am d64",
        "windows(10/amd64",
        "windows(10)x/amd64",
        "windows)/amd64",
        "linux/amd(64)",
    ] {
        assert!(Platform::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_left_open_may_be_anything() {
    let satisfies = |have: &str, wanted: &str| {
        Platform::parse(have)
            .unwrap()
            .satisfies(&Platform::parse(wanted).unwrap())
    };
    assert!(satisfies("linux/arm/v7", "linux/arm"));
    assert!(!satisfies("linux/arm/v7", "linux/arm/v6"));
    assert!(!satisfies("linux/arm", "linux/arm/v6"));
    assert!(satisfies("linux/arm64", "linux/arm64/v8"));
    assert!(satisfies("linux/arm64/v8", "linux/arm64"));
    assert!(!satisfies("linux/amd64", "linux/arm64"));
    assert!(!satisfies("windows/amd64", "linux/amd64"));
    assert!(satisfies("windows(10.0.17763.1)/amd64", "windows/amd64"));
    assert!(satisfies(
        "windows(10.0.17763.1)/amd64",
        "windows(10.0.17763)/amd64"
    ));
    assert!(!satisfies(
        "windows(10.0.17763.1)/amd64",
        "windows(10.0.1776)/amd64"
    ));
    assert!(!satisfies("windows/amd64", "windows(10)/amd64"));
}
