//! What clients say they take.

use proptest::prelude::*;

use crate::oci::MediaType;
use crate::oci::accept::{ACCEPT_BYTES_MAX, ACCEPT_TYPES_MAX, Accept};
use crate::oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

fn takes(headers: &[&str], media_type: &str) -> bool {
    Accept::parse(headers.iter().copied()).takes(&MediaType::parse(media_type).unwrap())
}

#[test]
fn taken() {
    for headers in [
        &[][..],
        &[""],
        &[", ,"],
        &["q=NaN"],
        &["*/json"],
        &["*/*"],
        &["text/html, */*;q=0.1"],
        &["application/*"],
        &["Application/*;q=0"],
        &[OCI_INDEX],
        &["application/vnd.OCI.image.index.v1+json; q=NaN"],
        &[
            "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json",
        ],
        &[DOCKER_LIST, OCI_INDEX],
    ] {
        assert!(takes(headers, OCI_INDEX), "{headers:?}");
    }
}

#[test]
fn not_taken() {
    for headers in [
        &[OCI_MANIFEST][..],
        &["application/json"],
        &["text/*"],
        &[DOCKER_MANIFEST, DOCKER_LIST],
    ] {
        assert!(!takes(headers, OCI_INDEX), "{headers:?}");
    }
}

#[test]
fn caps() {
    let many = "text/html,".repeat(ACCEPT_TYPES_MAX);
    assert!(takes(&["text/html", OCI_INDEX], OCI_INDEX));
    assert!(!takes(&[&many, OCI_INDEX], OCI_INDEX));
    let long = format!("text/html;{}", "x".repeat(ACCEPT_BYTES_MAX));
    assert!(
        takes(&[&long], OCI_INDEX),
        "nothing was read, so nothing is known"
    );
    assert!(!takes(&["text/html", &long, OCI_INDEX], OCI_INDEX));
    let ten_thousand = vec!["a/b"; 10_000].join(",");
    assert!(!takes(&[&ten_thousand], OCI_INDEX));
}

proptest! {
    #[test]
    fn arbitrary_headers_never_panic(headers in prop::collection::vec("\\PC*|[a*/,; ]{0,20}", 0..5)) {
        let accept = Accept::parse(headers.iter().map(String::as_str));
        accept.takes(&MediaType::parse(OCI_INDEX).unwrap());
    }
}
