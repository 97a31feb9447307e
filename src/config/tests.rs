use std::path::Path;
use std::time::Duration;

use super::units::{parse_bandwidth, parse_size, parse_span};
use super::{BUILT_IN, load};
use crate::upstream::{CredentialConfig, SecretSource};

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn refused(text: &str) -> String {
    load(Some(text), Some(Path::new("mirror.toml")), &[])
        .unwrap_err()
        .to_string()
}

#[test]
fn no_file_at_all_works() {
    let resolved = load(None, None, &[]).unwrap();
    assert_eq!(resolved.listen, ["127.0.0.1:5000".parse().unwrap()]);
    assert_eq!(resolved.default.as_str(), "docker-virtual");
    assert_eq!(
        (resolved.storage.max_size, resolved.storage.min_free),
        (20 << 30, 1 << 30)
    );
    let keys: Vec<&str> = resolved
        .remotes()
        .map(|remote| remote.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "docker-hub",
            "gcr-io",
            "ghcr-io",
            "mcr-microsoft-com",
            "public-ecr-aws",
            "quay-io",
            "registry-k8s-io"
        ]
    );
    assert!(resolved.warnings.is_empty());
    for remote in resolved.remotes() {
        assert_eq!(
            remote.cache,
            crate::cache::Config::default(),
            "{}",
            remote.key
        );
    }
}

/// The manual says `# key = default`; uncommented, each must parse, and those that claim to be the default must be it.
#[test]
fn the_shipped_file_is_the_manual() {
    let mut text = String::new();
    let mut tried = 0;
    for line in BUILT_IN.lines() {
        match line.strip_prefix("#= ") {
            Some(key) => {
                tried += 1;
                text.push_str(key);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    assert!(
        tried >= 15,
        "only {tried} keys are shown with their defaults"
    );
    let spelled = load(Some(&text), None, &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        format!("{spelled:?}"),
        format!("{:?}", load(None, None, &[]).unwrap())
    );
    let together: Vec<&str> = BUILT_IN
        .lines()
        .filter_map(|line| line.strip_prefix("#- "))
        .collect();
    let guarded = load(
        Some(&format!("{BUILT_IN}\n{}\n", together.join("\n"))),
        None,
        &[],
    );
    let auth = guarded.unwrap().auth.unwrap();
    assert_eq!(
        (auth.policy.rules.len(), auth.realm.as_str()),
        (1, "roadstead")
    );
    assert_eq!(auth.token_ttl, crate::auth::TOKEN_TTL);
    // The examples, which are no defaults, must at least be keys that exist.
    let examples: Vec<&str> = BUILT_IN
        .lines()
        .filter_map(|line| line.strip_prefix("#: "))
        .collect();
    assert!(examples.len() >= 5);
    // Keys are read when the configuration is.
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("cosign.pub"), pair.public_key_pem()).unwrap();
    let file = dir.path().join("mirror.toml");
    for example in examples {
        let table = if example.starts_with("external_url")
            || example.starts_with("tls")
            || example.starts_with("admin_listen")
            || example.starts_with("trusted")
        {
            "[server]"
        } else {
            "[remote.a-b]\nurl = \"https://x\""
        };
        let environment = env(&[("HUB_PASSWORD", "x"), ("HOME", "/home/me")]);
        let text = format!("{table}\n{example}\n");
        load(Some(&text), Some(&file), &environment)
            .unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn a_file_that_names_a_repository_replaces_the_built_in_ones() {
    let text = "[remote.lab-registry]\nurl = \"http://127.0.0.1:5001/prefix\"\nserves = [\"docker.io\"]\ntag_ttl = \"0s\"\n";
    let resolved = load(
        Some(text),
        Some(Path::new("/etc/roadstead/mirror.toml")),
        &[],
    )
    .unwrap();
    assert_eq!(resolved.remotes().count(), 1);
    assert_eq!(resolved.default.as_str(), "lab-registry");
    assert_eq!(resolved.storage.path, Path::new("/etc/roadstead/data"));
    assert_eq!(
        resolved.remotes().next().unwrap().cache.tag_ttl,
        Duration::ZERO
    );
    assert_eq!(resolved.records.keep, Duration::from_secs(400 * 86_400));
    let kept = load(Some("[storage]\nrecords_keep = \"0s\"\n"), None, &[]).unwrap();
    assert!(kept.records.keep.is_zero());
    assert_eq!(
        kept.needs_restart(&load(None, None, &[]).unwrap()),
        ["storage"]
    );
    let other = load(Some("[storage]\nmax_size = \"1GiB\"\n"), None, &[]).unwrap();
    assert_eq!(
        (other.remotes().count(), other.storage.max_size),
        (7, 1 << 30)
    );
}

#[test]
fn the_environment_goes_over_the_file() {
    let environment = env(&[
        ("ROADSTEAD__STORAGE__MAX_SIZE", "3GiB"),
        ("ROADSTEAD__REMOTE__DOCKER_HUB__TAG_TTL", "7s"),
        ("ROADSTEAD__REMOTE__QUAY_IO__OFFLINE", "true"),
        (
            "ROADSTEAD__SERVER__LISTEN",
            "[\"127.0.0.1:0\", \"[::1]:0\"]",
        ),
        ("PATH", "/bin"),
    ]);
    let resolved = load(None, None, &environment).unwrap();
    assert_eq!(resolved.storage.max_size, 3 << 30);
    assert_eq!(resolved.listen.len(), 2);
    let remote = |key: &str| {
        resolved
            .remotes()
            .find(|remote| remote.key.as_str() == key)
            .unwrap()
    };
    assert_eq!(remote("docker-hub").cache.tag_ttl, Duration::from_secs(7));
    assert!(remote("quay-io").cache.offline && !remote("docker-hub").cache.offline);
    for (variable, value) in [
        ("ROADSTEAD__STORAGE__MAXSIZE", "1"),
        ("ROADSTEAD__", "1"),
        ("ROADSTEAD__STORAGE__PATH__X", "1"),
    ] {
        let error = load(
            None,
            None,
            &env(&[("ROADSTEAD__STORAGE__MIN_FREE", "1MB"), (variable, value)]),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.contains(variable), "{error}");
    }
    // What looks like a number may be a name.
    let credentials = env(&[
        (
            "ROADSTEAD__REMOTE__DOCKER_HUB__CREDENTIALS__USERNAME",
            "1234",
        ),
        (
            "ROADSTEAD__REMOTE__DOCKER_HUB__CREDENTIALS__PASSWORD_FILE",
            "5678",
        ),
    ]);
    let resolved = load(None, None, &credentials).unwrap();
    let hub = resolved
        .remotes()
        .find(|remote| remote.key.as_str() == "docker-hub");
    assert!(matches!(
        hub.unwrap().credentials.as_slice(),
        [CredentialConfig::Static { username, .. }] if username == "1234"
    ));
    let twins = "[remote.a-b]\nurl = \"https://x\"\n[remote.\"a.b\"]\nurl = \"https://y\"\n";
    let error = load(
        Some(twins),
        None,
        &env(&[("ROADSTEAD__REMOTE__A_B__OFFLINE", "true")]),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("ROADSTEAD__REMOTE__A_B__OFFLINE") && error.contains("a-b, a.b"),
        "{error}"
    );
}

#[test]
fn errors_point_at_file_line_key_and_remedy() {
    let table = [
        (
            "[storage]\nmax_sise = \"1GiB\"\n",
            "mirror.toml:2",
            "did you mean `max_size`?",
        ),
        ("[storage]\nmax_size = \"lots\"\n", "mirror.toml:2", "20GiB"),
        (
            "[remote.a-b]\nurl = \"registry.example.com\"\n",
            "mirror.toml:2",
            "https://registry.example.com",
        ),
        (
            "[remote.a-b]\nurl = \"https://u:p@x\"\n",
            "mirror.toml:2",
            "credentials",
        ),
        (
            "[remote.v2]\nurl = \"https://x\"\n",
            "mirror.toml:1",
            "reserved",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nserves = [\"x.io\"]\n[remote.c-d]\nurl = \"https://y\"\nserves = [\"X.io.\"]\n",
            "mirror.toml:6",
            "one repository",
        ),
        (
            "[server]\nlisten = \"everywhere\"\n",
            "mirror.toml:2",
            "127.0.0.1:5000",
        ),
        ("[auth]\nrealm = \"a b\"\n", "mirror.toml:2", "such as"),
        (
            "[server]\ntls = { certificate = \"a\", key = \"b\", client_auth = \"required\" }\n",
            "mirror.toml:2",
            "client_ca = ",
        ),
        (
            "[server]\ntls = { certificate = \"a\", key = \"b\", client_ca = \"c\", client_user = \"name\" }\n",
            "mirror.toml:2",
            "",
        ),
        (
            "[[server.tls]]\ncertificate = \"a\"\nkey = \"b\"\nclient_ca = \"c\"\n[[server.tls]]\ncertificate = \"d\"\nkey = \"e\"\nclient_ca = \"c\"\n",
            "mirror.toml:8",
            "beside one of the certificates",
        ),
        (
            "[server]\ntls = { certificate = \"a\", key = \"b\", client_ca = \"c\" }\n[[auth.allow]]\nwho = [\"spiffe://x/y\"]\non = [\"*\"]\nmay = [\"pull\"]\n",
            "mirror.toml:4",
            "user_prefix",
        ),
        (
            "[[auth.oidc]]\nissuer = \"http://ci.example\"\naudience = \"a\"\n",
            "mirror.toml:2",
            "http:// only on loopback",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://ci.example/?a=b\"\naudience = \"a\"\n",
            "mirror.toml:2",
            "as tokens have it",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://ci.example\"\naudience = \"\"\n",
            "mirror.toml:3",
            "the audience that jobs ask for",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://ci.example\"\n",
            "mirror.toml:1",
            "",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\n[[auth.oidc]]\nissuer = \"https://b.example\"\naudience = \"a\"\n",
            "mirror.toml:5",
            "user_prefix of its own",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\n[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"b\"\nuser_prefix = \"b:\"\n",
            "mirror.toml:5",
            "one [[auth.oidc]] for each issuer",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\nuser_prefix = \"\"\n",
            "mirror.toml:4",
            "one colon at the end",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\nuser_prefix = \"a:b:\"\n",
            "mirror.toml:4",
            "one colon at the end",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\nalgorithms = [\"RS256\", \"HS256\"]\n",
            "mirror.toml:4",
            "RS256 RS384",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\nalgorithms = []\n",
            "mirror.toml:4",
            "RS256 RS384",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\n[[auth.allow]]\nwho = [\n\"gitlab:x\"]\non = [\"*\"]\nmay = [\"pull\"]\n",
            "mirror.toml:6",
            "user_prefix of an [[auth.oidc]]",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\n[[auth.allow]]\nwho = [\"@oidc:x\"]\non = [\"*\"]\nmay = [\"pull\"]\n",
            "mirror.toml:5",
            "write its groups_claim",
        ),
        (
            "[[auth.oidc]]\nissuer = \"https://a.example\"\naudience = \"a\"\n[auth.groups]\n\"oidc:x\" = [\"ada\"]\n",
            "mirror.toml:5",
            "without it",
        ),
        (
            "[auth.groups]\nci = [\"oidc:x\"]\n",
            "mirror.toml:2",
            "user_prefix of an [[auth.oidc]]",
        ),
        (
            "[local.dev-local]\nimmutable_tags = [\"v[\"]\n",
            "mirror.toml:2",
            "v*",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\n[local.a-b]\n",
            "mirror.toml:3",
            "a key of its own",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nadmit = { min_age = \"72\" }\n",
            "mirror.toml:3",
            "72",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nadmit = { allow = [\n\"team/*\",\n\"nginx:1.*\"] }\n",
            "mirror.toml:5",
            "without tag or digest",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nadmit = { deny = [\"team/[\"] }\n",
            "mirror.toml:3",
            "library/*",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\n[remote.a-b.admit]\ncosign_key = \"no-such.pub\"\n",
            "mirror.toml:4",
            "cosign generate-key-pair",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\ncredentials = { username = \"me\" }\n",
            "mirror.toml:3",
            "password_file",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nforeign_layers = [\n\"**/a.example/**\",\n\"b.example/**\"]\n",
            "mirror.toml:5",
            "**/mcr.microsoft.com/**",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\n[remote.a-b.limits]\nrequests_per_second = 0\n",
            "mirror.toml:4",
            "from 1 to",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nlimits = { bandwidth = \"1Gbit\" }\n",
            "mirror.toml:3",
            "100Mbit/s",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nlimits = { bandwidth = \"64kbit/s\" }\n",
            "mirror.toml:3",
            "64KiB/s",
        ),
        (
            "[remote.a-b]\nurl = \"https://x\"\nlimits = { keep_quota = -1 }\n",
            "mirror.toml:3",
            "",
        ),
        (
            "[limits]\nblob = { requests_per_second = 0 }\n",
            "mirror.toml:2",
            "from 0.001 to",
        ),
        (
            "[limits]\nwrite = { burst = 10 }\n",
            "mirror.toml:2",
            "requests_per_second",
        ),
        (
            "[limits]\nlogin = { requests_per_second = 1, burst = 0 }\n",
            "mirror.toml:2",
            "at least 1",
        ),
        (
            "[limits.per_client]\nconcurrent = 0\n",
            "mirror.toml:2",
            "at least 1",
        ),
        (
            "[limits]\nglobal = { concurrent = 8 }\nper_client = { concurrent = 8 }\n",
            "mirror.toml:2",
            "smaller limits.per_client.concurrent",
        ),
        (
            "[limits]\n\nglobal = { bandwidth = \"1KiB/s\" }\n",
            "mirror.toml:3",
            "64KiB/s",
        ),
        ("not toml at all", "mirror.toml:1", ""),
    ];
    for (text, place, remedy) in table {
        let report = refused(text);
        assert!(
            report.contains(place) && report.contains(remedy),
            "{text}\n{report}"
        );
    }
    let both = refused("[remote.a-b]\nurl = \"x\"\n[remote.v2]\nurl = \"https://x\"\n");
    assert!(
        both.contains("url is no registry") && both.contains("reserved"),
        "all at once: {both}"
    );
    assert!(refused("[mirror]\ndefault = \"no-such\"\n").contains("no-such"));
}

#[test]
fn certificates_of_clients() {
    let load = |more: &str| {
        let text = format!(
            "[server]\ntls = {{ certificate = \"a\", key = \"b\"{more} }}\n[[auth.allow]]\nwho = [\"ada\"]\non = [\"*\"]\nmay = [\"pull\"]\n"
        );
        load(Some(&text), Some(Path::new("/etc/mirror.toml")), &[]).unwrap()
    };
    let without = load("");
    assert!(without.clients.is_none() && !without.auth.unwrap().certificates);
    let with = load(", client_ca = \"ca.pem\"");
    let usual = with.clients.clone().unwrap();
    assert_eq!(usual.ca, Path::new("/etc/ca.pem"));
    assert!(!usual.required && usual.user == crate::server::ClientUser::CommonName);
    assert!(with.auth.as_ref().unwrap().certificates);
    let other = load(", client_ca = \"ca.pem\", client_auth = \"required\", client_user = \"uri\"");
    let told = other.clients.clone().unwrap();
    assert!(told.required && told.user == crate::server::ClientUser::Uri);
    assert_eq!(with.needs_restart(&other), ["server.tls"]);
    // With URIs rules may name them.
    let text = "[server]\ntls = { certificate = \"a\", key = \"b\", client_ca = \"c\", client_user = \"uri\" }\n[[auth.allow]]\nwho = [\"spiffe://x/**\"]\non = [\"*\"]\nmay = [\"pull\"]\n";
    assert!(super::load(Some(text), None, &[]).is_ok());
}

#[test]
fn credentials_in_their_forms() {
    let text = "[remote.a-b]\nurl = \"https://x\"\ncredentials = [{ username = \"me\", password_file = \"pw\" }, { username = \"me\", password_env = \"PW\" }, { helper = \"ecr-login\" }, { docker_config = \"~/.docker/config.json\" }]\n";
    let resolved = load(
        Some(text),
        Some(Path::new("/etc/r/mirror.toml")),
        &env(&[("PW", "S3CRET"), ("HOME", "/home/me")]),
    )
    .unwrap();
    let credentials = &resolved.remotes().next().unwrap().credentials;
    assert!(
        matches!(&credentials[0], CredentialConfig::Static { password: SecretSource::File(path), .. } if path == Path::new("/etc/r/pw"))
    );
    assert!(
        matches!(&credentials[1], CredentialConfig::Static { password: SecretSource::Value(secret), .. } if secret.expose() == "S3CRET")
    );
    assert!(matches!(&credentials[2], CredentialConfig::Helper { name } if name == "ecr-login"));
    assert!(
        matches!(&credentials[3], CredentialConfig::DockerConfig { path } if path == Path::new("/home/me/.docker/config.json"))
    );
    assert!(!format!("{resolved:?}").contains("S3CRET"));
    assert!(
        load(Some(text), None, &[])
            .unwrap_err()
            .to_string()
            .contains("PW")
    );
}

#[test]
fn rules_of_admission() {
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("cosign.pub"), pair.public_key_pem()).unwrap();
    let text = "[remote.a-b]\nurl = \"https://x\"\nadmit = { min_age = \"72h\", allow = [\"library/*\"], deny = [\"evil/**\"], max_size = \"20GiB\", cosign_key = \"cosign.pub\" }\n";
    let file = dir.path().join("mirror.toml");
    let rules = || {
        let resolved = load(Some(text), Some(&file), &[]).map_err(|error| error.to_string())?;
        Ok::<_, String>(resolved.remotes().next().unwrap().cache.admit.clone())
    };
    let read = rules().unwrap();
    assert_eq!(
        (read.min_age, read.max_size),
        (Duration::from_secs(72 * 3600), Some(20 << 30))
    );
    assert!(read.allow.is_match("library/nginx") && read.deny.is_match("evil/a/b"));
    assert!(read.cosign_key.is_some() && !read.is_empty());
    assert_eq!(read, rules().unwrap());
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("cosign.pub"), other.public_key_pem()).unwrap();
    assert_ne!(read, rules().unwrap(), "another key is another rule");
    std::fs::write(dir.path().join("cosign.pub"), pair.serialize_pem()).unwrap();
    let report = rules().unwrap_err();
    assert!(
        report.contains("mirror.toml:3") && report.contains("BEGIN PUBLIC KEY"),
        "{report}"
    );
}

#[test]
fn limits_of_a_remote() {
    let text = "[remote.a-b]\nurl = \"https://x\"\nlimits = { concurrent = 4, requests_per_second = 50, bandwidth = \"1Gbit/s\", keep_quota = 10 }\n";
    let resolved = load(Some(text), None, &[]).unwrap();
    let remote = resolved.remotes().next().unwrap();
    let allowance = remote.allowance;
    assert_eq!(remote.concurrent, 4);
    assert_eq!(allowance.requests_per_second.unwrap().get(), 50);
    assert_eq!(allowance.bandwidth.unwrap().get(), 125_000_000);
    assert_eq!(allowance.keep_quota, 10);
}

#[test]
fn limits_of_clients() {
    let text = "[limits]\nper_client = { requests_per_second = 200, burst = 400, concurrent = 64, bandwidth = \"1Gbit/s\" }\nlogin = { requests_per_second = 0.5 }\nglobal = { concurrent = 512 }\n";
    let clients = load(Some(text), None, &[]).unwrap().client_limits;
    let rate = clients.per_client.rate.unwrap();
    assert_eq!(
        (rate.every, rate.burst.get()),
        (Duration::from_millis(5), 400)
    );
    assert_eq!(clients.per_client.concurrent.unwrap().get(), 64);
    assert_eq!(clients.per_client.bandwidth.unwrap().get(), 125_000_000);
    let login = clients.login.unwrap();
    assert_eq!(
        (login.every, login.burst.get()),
        (Duration::from_secs(2), 1)
    );
    assert_eq!(clients.global.concurrent.unwrap().get(), 512);
    assert_eq!(clients.manifest, None);
    let built_in = load(None, None, &[]).unwrap().client_limits;
    assert_eq!(built_in, crate::limits::Config::default());
}

#[test]
fn units() {
    for (text, bytes) in [
        ("1Gbit/s", Some(125_000_000)),
        ("100 Mbit/s", Some(12_500_000)),
        ("20MiB/s", Some(20 << 20)),
        ("5MB/s", Some(5_000_000)),
        ("8bit/s", Some(1)),
        ("20MiB", None),
        ("20/s", None),
        ("20Mb/s", None),
        ("fast", None),
        ("999999999999Tbit/s", None),
    ] {
        assert_eq!(parse_bandwidth(text), bytes, "{text}");
    }
    assert_eq!(
        (parse_size("20GiB"), parse_size("1 kB"), parse_size("7")),
        (Some(20 << 30), Some(1000), Some(7))
    );
    assert_eq!(
        (
            parse_size("99999999999TiB"),
            parse_size("1XB"),
            parse_size(""),
            parse_size("-1")
        ),
        (None, None, None, None)
    );
    assert_eq!(
        (parse_span("30d"), parse_span("1500ms")),
        (
            Some(Duration::from_secs(30 * 86_400)),
            Some(Duration::from_millis(1500))
        )
    );
    assert_eq!(
        (
            parse_span("5"),
            parse_span("5y"),
            parse_span("99999999999999d")
        ),
        (None, None, None)
    );
}

#[test]
fn lists_in_the_background_are_checked() {
    let text = "[[sync]]\nname = \"base\"\nlists = [\"images.yaml\"]\nevery = \"1h\"\nplatforms = [\"linux/arm64\"]\n";
    let read = |text: &str| {
        load(
            Some(text),
            Some(Path::new("/etc/roadstead/mirror.toml")),
            &[],
        )
    };
    let resolved = read(text).unwrap();
    let [one] = resolved.syncs.as_slice() else {
        panic!("{:?}", resolved.syncs);
    };
    assert_eq!(one.lists, [Path::new("/etc/roadstead/images.yaml")]);
    assert_eq!(one.every, Duration::from_secs(3600));
    assert!(load(None, None, &[]).unwrap().syncs.is_empty());
    for (text, expected, line) in [
        (
            "[[sync]]\nname = \"Base\"\nimages = [\"a:1\"]\n",
            "`Base` is no name",
            2,
        ),
        ("[[sync]]\nname = \"base\"\n", "`base` names no images", 2),
        (
            "[[sync]]\nname = \"a\"\nimages = [\"a:1\"]\n[[sync]]\nname = \"a\"\nimages = [\"a:1\"]\n",
            "`a` is there twice",
            5,
        ),
        (
            "[[sync]]\nname = \"a\"\nimages = [\"A:/\"]\n",
            "`A:/` is no image",
            3,
        ),
        (
            "[[sync]]\nname = \"a\"\nimages = [\"a:1\"]\nplatforms = [\"linux\"]\n",
            "this is no platform",
            4,
        ),
        (
            "[[sync]]\nname = \"a\"\nimages = [\"a:1\"]\nevery = \"59s\"\n",
            "that is too often",
            4,
        ),
        (
            "[[sync]]\nname = \"a\"\nimage = [\"a:1\"]\n",
            "unknown field `image`",
            3,
        ),
    ] {
        let said = read(text).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains(&format!("mirror.toml:{line}:")), "{said}");
    }
}
