//! What references call the images of a repository. Pure.

use super::definitions::canonical_host;
use super::key::Key;
use super::settings::{AllSettings, Settings};

/// The host under which people pull what a repository has: one that it serves, else one that a virtual repository serves which asks it,
/// else the registry that it mirrors.
pub fn host_of(all: &AllSettings, key: &Key) -> Option<String> {
    let own = all.get(key)?;
    let serves = match own {
        Settings::Remote(remote) => remote.serves.first(),
        Settings::Virtual(several) => several.serves.first(),
        Settings::Local(_) => None,
    };
    let by_another = || {
        all.values().find_map(|one| match one {
            Settings::Virtual(several) => {
                let host = several.serves.first()?;
                let members = several.expand(all).ok()?;
                members
                    .iter()
                    .any(|member| member.key == *key)
                    .then_some(host)
            }
            Settings::Remote(_) | Settings::Local(_) => None,
        })
    };
    if let Some(host) = serves.or_else(by_another) {
        return Some(canonical_host(host));
    }
    let Settings::Remote(remote) = own else {
        return None;
    };
    let port = remote.url.port().map(|port| format!(":{port}"));
    let registry = || {
        Some(format!(
            "{}{}",
            remote.url.host_str()?,
            port.unwrap_or_default()
        ))
    };
    remote
        .ns
        .clone()
        .or_else(registry)
        .map(|host| canonical_host(&host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{Filter, LocalSettings, RemoteSettings, VirtualSettings};

    #[test]
    fn a_repository_is_called_by_what_leads_to_it() {
        let key = |text: &str| Key::parse(text).unwrap();
        let remote = |text: &str, url: &str, serves: &[&str], ns: Option<&str>| {
            let mut remote = RemoteSettings::new(key(text), url.parse().unwrap());
            remote.serves = serves.iter().map(|host| (*host).to_owned()).collect();
            remote.ns = ns.map(str::to_owned);
            (key(text), Settings::Remote(Box::new(remote)))
        };
        let several = VirtualSettings {
            key: key("docker-virtual"),
            serves: vec!["index.docker.io".to_owned()],
            members: ["dev-local", "copy-of-hub"]
                .map(|member| (key(member), Filter::default()))
                .into(),
            deploy_to: None,
            by_timestamp: false,
            exclusive_names: true,
        };
        let local = LocalSettings {
            key: key("dev-local"),
            config: crate::overlay::Config::default(),
        };
        let all = AllSettings::from([
            remote("copy-of-hub", "http://127.0.0.1:9", &[], None),
            remote("ghcr-io", "https://elsewhere.example", &["GHCR.io"], None),
            remote("parent", "https://parent.example", &[], Some("quay.io")),
            remote("lab", "http://lab.example:5000/up", &[], None),
            remote("hub", "https://registry-1.docker.io", &[], None),
            (key("dev-local"), Settings::Local(local.clone())),
            (key("lonely"), Settings::Local(local)),
            (key("docker-virtual"), Settings::Virtual(several)),
        ]);
        for (text, expected) in [
            ("copy-of-hub", Some("docker.io")),
            ("dev-local", Some("docker.io")),
            ("docker-virtual", Some("docker.io")),
            ("ghcr-io", Some("ghcr.io")),
            ("parent", Some("quay.io")),
            ("lab", Some("lab.example:5000")),
            ("hub", Some("docker.io")),
            ("lonely", None),
            ("gone", None),
        ] {
            assert_eq!(host_of(&all, &key(text)).as_deref(), expected, "{text}");
        }
    }
}
