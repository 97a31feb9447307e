//! Every field, right and wrong.

use super::*;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn declare(json: &Value) -> Result<Declared, FieldError> {
    let Value::Object(fields) = json.clone() else {
        panic!("an object");
    };
    Declared::create(&key("a-repo"), fields)
}

fn settings(json: &Value) -> Result<Settings, String> {
    let declared = declare(json).map_err(|error| error.to_string())?;
    let settings = declared.settings(&key("a-repo"), &AllSettings::new());
    settings.map_err(|error| error.to_string())
}

#[test]
fn fields_become_settings() {
    let local = settings(&json!({"rclass": "local", "packageType": "docker", "maxUniqueTags": 3}));
    assert!(matches!(local.unwrap(), Settings::Local(local) if local.config.max_unique_tags == 3));
    let remote = settings(&json!({
        "key": "a-repo", "rclass": "remote", "url": "https://quay.io", "username": "me", "password": "p",
        "externalDependenciesEnabled": true, "retrievalCachePeriodSecs": 60, "missedRetrievalCachePeriodSecs": 7, "socketTimeoutMillis": 2500, "offline": true,
    }));
    let Settings::Remote(remote) = remote.unwrap() else {
        panic!("a remote");
    };
    assert_eq!(remote.url.as_str(), "https://quay.io/");
    assert_eq!(remote.cache.tag_ttl, Duration::from_secs(60));
    assert_eq!(remote.cache.negative_ttl, Duration::from_secs(7));
    assert_eq!(remote.timeouts.idle, Duration::from_millis(2500));
    assert!(remote.cache.offline && remote.credentials.len() == 1);
    assert!(!remote.foreign_layers.is_empty());
    let several = settings(&json!({
        "rclass": "virtual", "repositories": ["b-local", "c-remote", "b-local"], "defaultDeploymentRepo": "b-local",
        "resolveDockerTagsByTimestamp": true, "includesPattern": "team/**, library/**", "excludesPattern": "team/secret/**",
    }));
    let Settings::Virtual(several) = several.unwrap() else {
        panic!("virtual");
    };
    assert_eq!(several.members.len(), 2);
    assert!(several.by_timestamp && several.exclusive_names);
    let takes = |name: &str| {
        several.members[0]
            .1
            .takes(&crate::oci::Name::parse(name).unwrap())
    };
    assert!(takes("team/app") && takes("library/nginx"));
    assert!(!takes("team/secret/app") && !takes("other/app"));
}

#[test]
fn what_is_wrong_names_its_field() {
    for (json, expected) in [
        (json!({}), "rclass: it is needed"),
        (json!({"rclass": "federated"}), "rclass: there are"),
        (json!({"rclass": "local", "key": "other"}), "key: the path"),
        (
            json!({"rclass": "local", "packageType": "npm"}),
            "packageType: only",
        ),
        (
            json!({"rclass": "local", "dockerApiVersion": "V1"}),
            "dockerApiVersion",
        ),
        (
            json!({"rclass": "local", "maxUniqueTags": -1}),
            "maxUniqueTags",
        ),
        (
            json!({"rclass": "local", "maxUniqueTags": "3"}),
            "maxUniqueTags",
        ),
        (json!({"rclass": "remote"}), "url: write it"),
        (
            json!({"rclass": "remote", "url": "ftp://x"}),
            "url: write it",
        ),
        (
            json!({"rclass": "remote", "url": "https://a:b@x"}),
            "url: it has",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "username": "a"}),
            "password",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "password": "a"}),
            "username",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "password": 1}),
            "password",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "offline": "yes"}),
            "offline",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "retrievalCachePeriodSecs": u64::MAX}),
            "retrievalCachePeriodSecs",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "socketTimeoutMillis": 0}),
            "socketTimeoutMillis",
        ),
        (
            json!({"rclass": "remote", "url": "https://x", "externalDependenciesPatterns": ["a b"]}),
            "externalDependenciesPatterns",
        ),
        (
            json!({"rclass": "virtual", "repositories": "a"}),
            "repositories",
        ),
        (
            json!({"rclass": "virtual", "repositories": ["A B"]}),
            "repositories",
        ),
        (
            json!({"rclass": "virtual", "repositories": ["a-b"], "includesPattern": "[x"}),
            "includesPattern",
        ),
    ] {
        let error = settings(&json).unwrap_err();
        assert!(error.starts_with(expected), "{json}: {error}");
    }
}

#[test]
fn what_means_nothing_here_is_named() {
    let ignored = |json: Value| declare(&json).unwrap().ignored();
    assert_eq!(
        ignored(json!({
            "rclass": "local", "blackedOut": true, "xrayIndex": false, "made": "up", "notes": "n", "propertySets": ["x"],
            "excludesPattern": "a/**", "blockPushingSchema1": true, "environments": [],
        })),
        ["blackedOut", "excludesPattern", "made", "propertySets"]
    );
    assert_eq!(
        ignored(json!({
            "rclass": "remote", "url": "https://x", "hardFail": true, "enableTokenAuthentication": true, "proxy": "p",
            "assumedOfflinePeriodSecs": 1,
        })),
        ["assumedOfflinePeriodSecs", "proxy"]
    );
    assert_eq!(
        ignored(json!({"rclass": "virtual", "repositories": ["a"], "excludesPattern": "a/**"})),
        Vec::<String>::new()
    );
}

#[test]
fn an_update_keeps_what_it_does_not_say_and_never_shows_the_password() {
    let first = declare(&json!({
        "rclass": "remote", "url": "https://x", "username": "me", "password": "S3CRET", "description": "one",
    }));
    let first = first.unwrap();
    let update = |json: Value| {
        let Value::Object(fields) = json else {
            panic!("an object");
        };
        first.update(&key("a-repo"), fields)
    };
    let second = update(json!({"description": "two"})).unwrap();
    assert_eq!(second.password(), first.password());
    assert_eq!(second.shown(&key("a-repo"))["description"], "two");
    assert_eq!(second.shown(&key("a-repo"))["url"], "https://x");
    assert!(update(json!({"rclass": "local"})).is_err());
    for nothing in [
        json!({"rclass": ""}),
        json!({"rclass": null, "key": "", "packageType": null}),
    ] {
        let same = update(nothing).unwrap();
        assert_eq!(same.shown(&key("a-repo")), first.shown(&key("a-repo")));
    }
    let moved = update(json!({"url": "https://elsewhere"})).unwrap_err();
    assert_eq!(moved.field, "password");
    assert!(update(json!({"url": "https://elsewhere", "password": "new"})).is_ok());
    assert!(
        update(json!({"url": "https://x/below"})).is_ok(),
        "the same host"
    );
    assert!(update(json!({"notes": "x".repeat(FIELDS_MAX)})).is_err());
    let nested = update(json!({"clientTlsPassphrase": "S3CRET"})).unwrap();
    assert!(!nested.fields().contains_key("clientTlsPassphrase"));
    assert!(
        update(json!({"username": "", "password": ""}))
            .unwrap()
            .password()
            .is_none()
    );
    let shown = serde_json::to_string(&second.shown(&key("a-repo"))).unwrap();
    assert!(!shown.contains("S3CRET") && !format!("{second:?}").contains("S3CRET"));
    let kept = serde_json::to_string(second.fields()).unwrap();
    let again = Declared::kept(&key("a-repo"), &kept, second.password().cloned());
    assert_eq!(again.unwrap(), second);
}
