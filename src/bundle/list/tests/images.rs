use proptest::prelude::*;

use super::super::{Image, ImageError, Place};

fn full(written: &str) -> String {
    let place = Place::of(written, &|key| key == "docker-hub" || key == "prod.local").unwrap();
    place.to_string()
}

#[test]
fn names_mean_what_docker_means_by_them() {
    for (written, meant) in [
        ("nginx", "docker.io/library/nginx"),
        ("team/app", "docker.io/team/app"),
        ("docker.io/nginx", "docker.io/library/nginx"),
        ("index.docker.io/nginx", "docker.io/library/nginx"),
        (
            "registry-1.docker.io/library/nginx",
            "docker.io/library/nginx",
        ),
        ("ghcr.io/nginx", "ghcr.io/nginx"),
        ("GHCR.io/a/b", "ghcr.io/a/b"),
        ("localhost/a", "localhost/a"),
        ("host:5000/a", "host:5000/a"),
        ("[::1]:5000/a", "[::1]:5000/a"),
        ("docker-hub/nginx", "docker-hub/nginx"),
        ("prod.local/team/app", "prod.local/team/app"),
        ("docker-hub", "docker.io/library/docker-hub"),
        ("other-key/nginx", "docker.io/other-key/nginx"),
    ] {
        assert_eq!(full(written), meant, "{written}");
    }
    let place = Place::of("docker-hub/nginx", &|key| key == "docker-hub").unwrap();
    assert!(place.is_key() && place.head() == "docker-hub" && place.name().as_str() == "nginx");
}

#[test]
fn an_image_is_taken_apart() {
    let digest = format!("sha256:{}", "a".repeat(64));
    for (text, name, tag, has_digest) in [
        ("nginx", "nginx", None, false),
        (" nginx:1.27 ", "nginx", Some("1.27"), false),
        ("host:5000/a", "host:5000/a", None, false),
        ("host:5000/a:b", "host:5000/a", Some("b"), false),
        (&format!("a@{digest}"), "a", None, true),
        (&format!("h.io:1/a:t@{digest}"), "h.io:1/a", Some("t"), true),
    ] {
        let image = Image::parse(text).unwrap();
        assert_eq!(image.name, name);
        assert_eq!(image.tag.map(|tag| tag.to_string()).as_deref(), tag);
        assert_eq!(image.digest.is_some(), has_digest);
    }
}

#[test]
fn what_names_no_image_is_refused_with_a_remedy() {
    for (text, remedy) in [
        ("", "write an image"),
        ("https://nginx", "leave out `https://`"),
        ("docker://nginx", "leave out `docker://`"),
        ("{{ .Values.image }}", "template"),
        ("nginx:${TAG}", "template"),
        ("Nginx", "lower-case"),
        ("nginx:", "a tag has"),
        ("nginx:a:b", "a tag has"),
        ("nginx@sha256:abc", "a digest looks like"),
        ("nginx@", "a digest looks like"),
        ("a//b", "lower-case"),
        ("ho_st.io/a", "the host"),
        ("-a.io/a", "the host"),
        ("host:99999/a", "the host"),
        ("host:/a", "the host"),
        ("[::1/a", "the host"),
        ("[::1]x/a", "the host"),
        ("[nine]:1/a", "the host"),
        ("ghcr.io/", "lower-case"),
        ("../../etc", "the host"),
        ("a/../b", "lower-case"),
    ] {
        let error = Image::parse(text).unwrap_err().to_string();
        assert!(error.contains(remedy), "{text}: {error}");
    }
    let long = "a".repeat(super::super::IMAGE_MAX + 1);
    assert!(matches!(Image::parse(&long), Err(ImageError::Name(_))));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,80}") {
        let _ = Image::parse(&text);
        let _ = Place::of(&text, &|_| true);
    }

    #[test]
    fn a_full_name_is_full(text in "[a-z:./-]{1,20}") {
        if let Ok(place) = Place::of(&text, &|_| false) {
            let again = Place::of(&place.to_string(), &|_| false).unwrap();
            prop_assert_eq!(again, place);
        }
    }
}
