use super::{
    Ask, Definition, Definitions, Key, KeyError, Unresolved, choose, resolve, split_prefix,
};

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn definitions() -> Definitions {
    let define = |text: &str, serves: &[&str]| Definition {
        key: key(text),
        serves: serves.iter().map(|host| (*host).to_owned()).collect(),
        is_docker_hub: false,
    };
    Definitions::new(
        vec![
            define("docker-hub", &["docker.io"]),
            define("ghcr-io", &["ghcr.io"]),
            define("lab", &["lab.example:5000"]),
        ],
        key("docker-hub"),
    )
}

/// Resolves `name` with prefix and ns; gives `key name`.
fn told(prefix: Option<&str>, namespaces: &[&str], name: &str) -> Result<String, Unresolved> {
    let namespaces: Vec<String> = namespaces.iter().map(|ns| (*ns).to_owned()).collect();
    let own = ["mirror.example".to_owned(), "127.0.0.1:5000".to_owned()];
    let ask = Ask {
        bound: None,
        prefix,
        namespaces: &namespaces,
        own_hosts: &own,
    };
    let definitions = definitions();
    let chosen = choose(&definitions, &ask)?;
    resolve(&definitions, &chosen, name).map(|target| format!("{} {}", target.key, target.name))
}

#[test]
fn every_rule_in_its_order() {
    let table: [(Option<&str>, &[&str], &str, &str); 18] = [
        (None, &[], "nginx", "docker-hub library/nginx"),
        (None, &[], "library/nginx", "docker-hub library/nginx"),
        (None, &[], "team/app", "docker-hub team/app"),
        (None, &[], "ghcr-io/owner/app", "ghcr-io owner/app"),
        (None, &[], "ghcr.io/owner/app", "ghcr-io owner/app"),
        (None, &[], "docker.io/nginx", "docker-hub library/nginx"),
        (None, &[], "docker-hub/nginx", "docker-hub library/nginx"),
        (Some("ghcr-io"), &[], "owner/app", "ghcr-io owner/app"),
        (
            Some("ghcr.io"),
            &["docker.io"],
            "owner/app",
            "ghcr-io owner/app",
        ),
        (None, &["ghcr.io"], "owner/app", "ghcr-io owner/app"),
        (None, &["GHCR.IO."], "owner/app", "ghcr-io owner/app"),
        (None, &["docker.io"], "nginx", "docker-hub library/nginx"),
        (
            None,
            &["registry-1.docker.io"],
            "nginx",
            "docker-hub library/nginx",
        ),
        (
            None,
            &["docker.io", "docker.io"],
            "nginx",
            "docker-hub library/nginx",
        ),
        (None, &["ghcr.io"], "ghcr-io/owner/app", "ghcr-io owner/app"),
        (None, &["ghcr.io"], "ghcr.io/owner/app", "ghcr-io owner/app"),
        (
            None,
            &["mirror.example"],
            "nginx",
            "docker-hub library/nginx",
        ),
        (None, &["lab.example:5000"], "x", "lab x"),
    ];
    for (prefix, namespaces, name, expected) in table {
        assert_eq!(
            told(prefix, namespaces, name).as_deref(),
            Ok(expected),
            "{prefix:?} {namespaces:?} {name}"
        );
    }
    let bound = key("ghcr-io");
    let ask = Ask {
        bound: Some(&bound),
        prefix: None,
        namespaces: &["docker.io".to_owned()],
        own_hosts: &[],
    };
    let definitions = definitions();
    let chosen = choose(&definitions, &ask).unwrap();
    assert_eq!(
        resolve(&definitions, &chosen, "docker-hub/x")
            .unwrap()
            .name
            .as_str(),
        "docker-hub/x",
        "a bound listener has one repository"
    );
}

#[test]
fn a_namespace_is_looked_up_and_never_dialled() {
    for unknown in [
        "evil.example",
        "127.0.0.1:22",
        "169.254.169.254",
        "",
        "docker.io/evil",
        "ghcr.io@evil",
        "ｇhcr.io",
    ] {
        assert_eq!(
            told(None, &[unknown], "a/b"),
            Err(Unresolved::UnknownNamespace),
            "{unknown}"
        );
    }
    assert_eq!(
        told(None, &["docker.io", "evil"], "a/b"),
        Err(Unresolved::UnknownNamespace)
    );
    assert_eq!(
        told(Some("evil.example"), &[], "a/b"),
        Err(Unresolved::UnknownRepository)
    );
    for bad in ["", "A", "a//b", "ghcr.io/", "../x"] {
        assert!(
            matches!(told(None, &[], bad), Err(Unresolved::Name(_))),
            "{bad}"
        );
    }
    // A key alone is an image of the default repository, and there is no such image.
    assert_eq!(
        told(None, &[], "ghcr-io").as_deref(),
        Ok("docker-hub library/ghcr-io")
    );
}

#[test]
fn keys() {
    for good in ["docker-hub", "a", "a.b-c9"] {
        assert!(Key::parse(good).is_ok(), "{good}");
    }
    for bad in ["", "A", "9a", "a_b", "-a", "a/b", "é"] {
        assert_eq!(Key::parse(bad), Err(KeyError::Malformed), "{bad}");
    }
    for reserved in ["v2", "api", "artifactory", "metrics", "x-cache"] {
        assert_eq!(Key::parse(reserved), Err(KeyError::Reserved), "{reserved}");
    }
    assert!(key("team").could_be_a_namespace() && !key("ghcr-io").could_be_a_namespace());
}

#[test]
fn prefixes_on_both_sides() {
    assert_eq!(split_prefix("/v2"), Some((None, "")));
    assert_eq!(split_prefix("/v2/"), Some((None, "/")));
    assert_eq!(
        split_prefix("/v2/a/manifests/x"),
        Some((None, "/a/manifests/x"))
    );
    assert_eq!(split_prefix("/k/v2/a"), Some((Some("k"), "/a")));
    assert_eq!(
        split_prefix("/artifactory/api/docker/k/v2/a"),
        Some((Some("k"), "/a"))
    );
    assert_eq!(split_prefix("/api/docker/k/v2/"), Some((Some("k"), "/")));
    for none in ["/", "", "/v2x", "/k/v3/", "//v2/", "/k/v2x", "/a/b/v2/"] {
        assert_eq!(split_prefix(none), None, "{none}");
    }
}
