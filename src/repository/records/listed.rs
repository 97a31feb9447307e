//! What is missing as a list of images that another mirror, or this one when it may ask again, can bring. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::super::definitions::canonical_host;
use super::super::key::Key;
use super::super::settings::{AllSettings, Settings};
use crate::oci::{Name, Reference};
use crate::store::index::MissingRow;

/// Something missing, with the line of the list that brings it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is known of it.
    pub row: MissingRow,
    /// `docker.io/library/nginx:1.27`; `None` where no image is known that it is a part of, or its repository is not there any more.
    pub line: Option<String>,
}

/// The line for something missing, `part_of` the image of that tag or digest.
pub(super) fn line(
    settings: &AllSettings,
    row: &MissingRow,
    part_of: Option<&str>,
) -> Option<String> {
    let name = Name::parse(&row.key.name).ok()?;
    let host = host(settings, &Key::parse(&row.key.repo).ok()?, &name)?;
    let own = (!row.key.is_blob).then_some(row.key.reference.as_str());
    let reference = row.under.as_deref().or(part_of).or(own)?;
    match Reference::parse(reference).ok()? {
        Reference::Tag(tag) => Some(format!("{host}/{name}:{tag}")),
        Reference::Digest(digest) => Some(format!("{host}/{name}@{digest}")),
    }
}

/// The registry whose images a repository has under a name, as people write it.
fn host(settings: &AllSettings, key: &Key, name: &Name) -> Option<String> {
    match settings.get(key)? {
        Settings::Remote(remote) => {
            let upstream = || {
                let host = remote.url.host_str()?;
                let port = remote.url.port();
                Some(port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
            };
            let served = remote.serves.first().or(remote.ns.as_ref()).cloned();
            served.or_else(upstream).map(|host| canonical_host(&host))
        }
        Settings::Virtual(several) => {
            if let Some(host) = several.serves.first() {
                return Some(canonical_host(host));
            }
            let members = several.expand(settings).ok()?;
            let takes = members
                .iter()
                .filter(|member| member.filters.iter().all(|filter| filter.takes(name)));
            let mut hosts = takes.filter_map(|member| host(settings, &member.key, name));
            hosts.next()
        }
        Settings::Local(_) => None,
    }
}

/// The list as `bundle::list` reads it: one image a line, each once.
pub(super) fn text(lines: &BTreeSet<String>, left_out: usize) -> String {
    let mut text = String::from(
        "# What clients of this mirror asked for and did not get, because it is not here and its upstream could not be asked.\n",
    );
    let more = if left_out == 0 {
        String::new()
    } else {
        format!(
            " {left_out} parts of images that nobody here knows are left out; GET /admin/missing has them."
        )
    };
    // A String takes whatever is written.
    let _ = writeln!(text, "# One image a line, {} in all.{more}", lines.len());
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::oci::Digest;
    use crate::repository::{RemoteSettings, VirtualSettings};
    use crate::store::index::MissingKey;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    fn settings() -> AllSettings {
        let remote = |text: &str, url: &str, serves: &[&str], ns: Option<&str>| {
            let mut remote = RemoteSettings::new(key(text), url.parse().unwrap());
            remote.serves = serves.iter().map(|host| (*host).to_owned()).collect();
            remote.ns = ns.map(str::to_owned);
            (key(text), Settings::Remote(Box::new(remote)))
        };
        let several = |text: &str, members: &[&str], serves: &[&str]| {
            let several = VirtualSettings {
                key: key(text),
                serves: serves.iter().map(|host| (*host).to_owned()).collect(),
                members: members
                    .iter()
                    .map(|member| (key(member), super::super::super::Filter::default()))
                    .collect(),
                deploy_to: None,
                by_timestamp: false,
                exclusive_names: true,
            };
            (key(text), Settings::Virtual(several))
        };
        let local = super::super::super::LocalSettings {
            key: key("dev"),
            config: crate::overlay::Config::default(),
        };
        AllSettings::from([
            remote("hub", "https://registry-1.docker.io", &[], None),
            remote("ghcr-io", "https://ghcr.io", &["ghcr.io"], None),
            remote("lab", "http://lab.example:5000/up", &[], None),
            remote("parent", "https://parent.example", &[], Some("quay.io")),
            several("all", &["dev", "lab", "hub"], &[]),
            several("docker-virtual", &["dev", "hub"], &["docker.io"]),
            (key("dev"), Settings::Local(local)),
        ])
    }

    fn row(repo: &str, reference: &str, is_blob: bool, under: Option<&str>) -> MissingRow {
        MissingRow {
            key: MissingKey {
                repo: repo.to_owned(),
                name: "library/nginx".to_owned(),
                reference: reference.to_owned(),
                is_blob,
            },
            under: under.map(str::to_owned),
            why: "offline".to_owned(),
            who: "anonymous".to_owned(),
            first: Wall::from_ms(1),
            last: Wall::from_ms(1),
            count: 1,
        }
    }

    #[test]
    fn a_line_names_the_registry_that_has_it() {
        let all = settings();
        for (repo, expected) in [
            ("hub", Some("docker.io/library/nginx:1")),
            ("ghcr-io", Some("ghcr.io/library/nginx:1")),
            ("lab", Some("lab.example:5000/library/nginx:1")),
            ("parent", Some("quay.io/library/nginx:1")),
            ("all", Some("lab.example:5000/library/nginx:1")),
            ("docker-virtual", Some("docker.io/library/nginx:1")),
            ("dev", None),
            ("gone", None),
        ] {
            let line = line(&all, &row(repo, "1", false, None), None);
            assert_eq!(line.as_deref(), expected, "{repo}");
        }
    }

    #[test]
    fn a_part_stands_under_its_image() {
        let all = settings();
        let digest = Digest::of(b"x").to_string();
        let own = format!("docker.io/library/nginx@{digest}");
        for (is_blob, under, part_of, expected) in [
            (false, None, None, Some(own.as_str())),
            (
                false,
                Some("2"),
                Some("1"),
                Some("docker.io/library/nginx:2"),
            ),
            (false, None, Some("1"), Some("docker.io/library/nginx:1")),
            (true, None, Some("1"), Some("docker.io/library/nginx:1")),
            (true, None, Some(digest.as_str()), Some(own.as_str())),
            (true, None, None, None),
        ] {
            let row = row("hub", &digest, is_blob, under);
            assert_eq!(line(&all, &row, part_of).as_deref(), expected);
        }
    }

    #[test]
    fn the_list_says_what_it_is() {
        let lines = BTreeSet::from(["b".to_owned(), "a".to_owned()]);
        let list = text(&lines, 0);
        assert!(list.starts_with("# What clients") && list.ends_with("2 in all.\na\nb\n"));
        assert!(text(&lines, 3).contains("3 parts"));
    }
}
