use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn globs(patterns: &[&str]) -> Globs {
    Globs::parse(patterns).unwrap()
}

fn key() -> PublicKey {
    let pair = rcgen::KeyPair::generate().unwrap();
    PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap()
}

const IMAGE: Facts = Facts {
    size: 100,
    is_attachment: false,
    is_runnable: true,
    is_index: false,
};
const INDEX: Facts = Facts {
    is_index: true,
    ..IMAGE
};
/// What says so only by its tag.
const SBOM: Facts = Facts {
    is_runnable: false,
    ..IMAGE
};
const SIGNATURE: Facts = Facts {
    is_attachment: true,
    ..SBOM
};

struct Case {
    asked: Asked,
    age: Duration,
    is_vouched: bool,
    facts: Option<Facts>,
    signature: Option<Signature>,
}

/// A tag that has been known for a hundred hours.
const OLD: Case = Case {
    asked: Asked::Tag,
    age: Duration::from_secs(100 * 3600),
    is_vouched: false,
    facts: None,
    signature: None,
};

fn at(asked: Asked, facts: Facts) -> Case {
    Case {
        asked,
        facts: Some(facts),
        age: HOUR,
        ..OLD
    }
}

fn decided(rules: &Rules, name: &str, case: &Case) -> Decision {
    let now = Wall::from_ms(1_000_000_000_000);
    let age = i64::try_from(case.age.as_millis()).unwrap();
    let name = Name::parse(name).unwrap();
    let candidate = Candidate {
        name: &name,
        asked: case.asked,
        first_seen: Wall::from_ms(now.as_ms() - age),
        is_vouched: case.is_vouched,
        facts: case.facts,
        signature: case.signature,
    };
    decide(rules, &candidate, now)
}

const YES: Decision = Decision::Admitted { about: false };
const ABOUT: Decision = Decision::Admitted { about: true };

#[test]
fn patterns_are_of_names_and_deny_wins() {
    let rules = Rules {
        allow: globs(&["library/*", "team/**"]),
        deny: globs(&["**/secret"]),
        ..Rules::default()
    };
    for (name, expected) in [
        ("library/nginx", YES),
        ("team/a/b", YES),
        ("team/a/secret", Decision::Refused(Rule::Deny)),
        ("other/app", Decision::Refused(Rule::Allow)),
        ("library/a/b", Decision::Refused(Rule::Allow)),
    ] {
        assert_eq!(decided(&rules, name, &OLD), expected, "{name}");
        assert_eq!(decided(&Rules::default(), name, &OLD), YES, "{name}");
    }
}

#[test]
fn age_counts_from_the_first_sight() {
    let rules = Rules {
        min_age: 72 * HOUR,
        ..Rules::default()
    };
    let young = |left| {
        Decision::Refused(Rule::MinAge {
            wanted: 72 * HOUR,
            left,
        })
    };
    let aged = |hours: u32| Case {
        age: hours * HOUR,
        ..OLD
    };
    assert_eq!(decided(&rules, "a", &aged(0)), young(72 * HOUR));
    assert_eq!(decided(&rules, "a", &aged(71)), young(HOUR));
    assert_eq!(decided(&rules, "a", &aged(72)), YES);
    for (asked, facts, expected) in [
        (Asked::Tag, IMAGE, young(71 * HOUR)),
        (Asked::Tag, SIGNATURE, young(71 * HOUR)),
        (Asked::Digest, IMAGE, young(71 * HOUR)),
        (Asked::Digest, SBOM, young(71 * HOUR)),
        (Asked::Digest, SIGNATURE, ABOUT),
        (Asked::AboutTag, SIGNATURE, ABOUT),
        (Asked::AboutTag, SBOM, ABOUT),
        (Asked::AboutTag, INDEX, ABOUT),
        (Asked::AboutTag, IMAGE, young(71 * HOUR)),
    ] {
        assert_eq!(
            decided(&rules, "a", &at(asked, facts)),
            expected,
            "{asked:?} {facts:?}"
        );
    }
    let child = Case {
        is_vouched: true,
        age: HOUR,
        ..OLD
    };
    assert_eq!(decided(&rules, "a", &child), YES);
    let unread = Case {
        asked: Asked::Digest,
        ..aged(0)
    };
    assert_eq!(decided(&rules, "a", &unread), Decision::NeedsFacts);
}

#[test]
fn size_and_signature_are_asked_for_as_far_as_they_matter() {
    let small = Rules {
        max_size: Some(99),
        ..Rules::default()
    };
    let large = Decision::Refused(Rule::MaxSize { size: 100, max: 99 });
    assert_eq!(decided(&small, "a", &OLD), Decision::NeedsFacts);
    assert_eq!(decided(&small, "a", &at(Asked::Tag, IMAGE)), large);
    let child = Case {
        is_vouched: true,
        ..at(Asked::Digest, IMAGE)
    };
    assert_eq!(decided(&small, "a", &child), large);
    assert_eq!(decided(&small, "a", &at(Asked::AboutTag, SIGNATURE)), large);

    let signed = Rules {
        min_age: 2 * HOUR,
        cosign_key: Some(key()),
        ..Rules::default()
    };
    let with = |signature| Case { signature, ..OLD };
    for (signature, expected) in [
        (None, Decision::NeedsSignature),
        (Some(Signature::Verified), YES),
        (Some(Signature::Missing), Decision::Refused(Rule::Unsigned)),
        (
            Some(Signature::Wrong),
            Decision::Refused(Rule::WrongSignature),
        ),
    ] {
        assert_eq!(decided(&signed, "a", &with(signature)), expected);
    }
    // Nobody is asked for the signature of what is refused anyway.
    let young = Case { age: HOUR, ..OLD };
    assert!(matches!(
        decided(&signed, "a", &young),
        Decision::Refused(Rule::MinAge { .. })
    ));
    let child = Case {
        is_vouched: true,
        ..OLD
    };
    assert_eq!(decided(&signed, "a", &child), YES);
    assert_eq!(
        decided(&signed, "a", &at(Asked::AboutTag, SIGNATURE)),
        ABOUT
    );
}

#[test]
fn tags_about_a_digest_are_told_from_others() {
    let hex = "a".repeat(64);
    for (tag, expected) in [
        (format!("sha256-{hex}"), Asked::AboutTag),
        (format!("sha256-{hex}.sig"), Asked::AboutTag),
        (format!("sha256-{hex}.att"), Asked::AboutTag),
        (format!("sha256-{hex}.sbom"), Asked::AboutTag),
        (format!("sha256-{hex}.exe"), Asked::Tag),
        (format!("sha256-{hex}a"), Asked::Tag),
        (format!("sha256-{}.sig", "g".repeat(64)), Asked::Tag),
        ("sha256-.sig".to_owned(), Asked::Tag),
        (format!("v-{hex}"), Asked::Tag),
        ("latest".to_owned(), Asked::Tag),
    ] {
        assert_eq!(Asked::by(&Tag::parse(&tag).unwrap()), expected, "{tag}");
    }
}

#[test]
fn facts_are_read_from_the_manifest() {
    let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
    let image = |layer: &str, subject: bool| {
        let mut manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest("c"), "size": 3 },
            "layers": [{ "mediaType": layer, "digest": digest("l"), "size": 40 }],
        });
        if subject {
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            manifest["subject"] =
                serde_json::json!({ "mediaType": media_type, "digest": digest("s"), "size": 500 });
        }
        let bytes = manifest.to_string();
        Facts::of(&Manifest::parse(bytes.as_bytes(), None).unwrap())
    };
    for (layer, subject, is_attachment) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip", false, false),
        ("application/vnd.oci.image.layer.v1.tar+gzip", true, false),
        (
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            true,
            false,
        ),
        ("application/wasm", true, false),
        (SIMPLE_SIGNING, false, true),
        (DSSE, false, true),
        ("application/spdx+json", false, false),
        ("application/spdx+json", true, true),
    ] {
        let facts = image(layer, subject);
        assert_eq!(facts.size, 43, "the subject is no part of it");
        assert_eq!(facts.is_attachment, is_attachment, "{layer} {subject}");
    }
}

#[test]
fn a_refusal_says_what_would_admit_it() {
    let rule = |rule: Rule| rule.to_string();
    let young = Rule::MinAge {
        wanted: 72 * HOUR,
        left: 40 * HOUR + Duration::from_secs(1),
    };
    assert_eq!(
        rule(young),
        "min_age: it must have been known here for 72h, and will have been in 41h"
    );
    let refusal = Refusal {
        digest: None,
        rule: Rule::MaxSize { size: 9, max: 8 },
    };
    assert_eq!(
        refusal.to_string(),
        "this mirror does not admit this by its rule max_size: it has 9 bytes of at most 8"
    );
    let small = Rule::MinAge {
        wanted: Duration::from_secs(90),
        left: Duration::from_millis(900),
    };
    assert!(rule(small).ends_with("for 90s, and will have been in 900ms"));
}

#[test]
fn another_key_or_size_is_other_terms() {
    let with = |max_size, cosign_key| Rules {
        max_size,
        cosign_key,
        ..Rules::default()
    };
    let terms = [
        with(None, None),
        with(Some(1), None),
        with(Some(2), None),
        with(None, Some(key())),
        with(None, Some(key())),
    ]
    .map(|rules| rules.terms());
    let different: std::collections::HashSet<_> = terms.iter().collect();
    assert_eq!(different.len(), terms.len());
    let older = Rules {
        min_age: HOUR,
        deny: globs(&["x"]),
        ..Rules::default()
    };
    assert_eq!(older.terms(), terms[0]);
}
