//! Files that point clients at the mirror, in a directory of their own, and the environment that names them. Nothing global is touched.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use crate::config::Resolved;
use crate::repository::canonical_host;

/// Docker Hub has another host for its registry than in names.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// Only we, and what we start, may read what is there or put anything beside it.
const MODE: u32 = 0o700;

/// The directory, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Clients {
    dir: TempDir,
    address: SocketAddr,
}

impl Clients {
    /// Writes the files for every host that the configuration serves.
    pub(super) fn point(
        config: &Resolved,
        listens: SocketAddr,
        path: Option<&OsStr>,
    ) -> io::Result<Self> {
        let mut making = tempfile::Builder::new();
        making.prefix("roadstead-run-");
        let dir = making
            .permissions(fs::Permissions::from_mode(MODE))
            .tempdir()?;
        let clients = Self {
            dir,
            address: reached_at(listens),
        };
        let (hosts, own) = (hosts(config), clients.registry());
        fs::write(clients.at("registries.conf"), registries_conf(&hosts, &own))?;
        fs::write(clients.at("buildkitd.toml"), buildkitd_toml(&hosts, &own))?;
        for host in &hosts {
            let directory = clients.at("containerd").join(host);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("hosts.toml"), hosts_toml(host, &own))?;
        }
        fs::create_dir(clients.at("bin"))?;
        if let Some(skopeo) = path.and_then(|path| find("skopeo", path)) {
            let shim = clients.at("bin").join("skopeo");
            fs::write(&shim, shim_of(&skopeo, &clients.at("registries.conf")))?;
            fs::set_permissions(shim, fs::Permissions::from_mode(MODE))?;
        }
        Ok(clients)
    }

    /// `host:port` of the mirror, for clients on this machine.
    pub(super) fn registry(&self) -> String {
        self.address.to_string()
    }

    /// Its URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it is reached.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the command's environment gets.
    pub(super) fn environment(
        &self,
        data: &Path,
        path: Option<&OsStr>,
    ) -> Vec<(&'static str, OsString)> {
        let mut search = self.at("bin").into_os_string();
        if let Some(path) = path {
            search.push(":");
            search.push(path);
        }
        vec![
            ("ROADSTEAD_URL", self.url().into()),
            ("ROADSTEAD_REGISTRY", self.registry().into()),
            // `roadstead explain` and its like inside of the command mean this mirror.
            ("ROADSTEAD__STORAGE__PATH", data.into()),
            (
                "CONTAINERS_REGISTRIES_CONF",
                self.at("registries.conf").into(),
            ),
            ("ROADSTEAD_BUILDKITD_TOML", self.at("buildkitd.toml").into()),
            ("ROADSTEAD_CONTAINERD_HOSTS", self.at("containerd").into()),
            ("PATH", search),
        ]
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Where a client on this machine reaches what listens there.
fn reached_at(listens: SocketAddr) -> SocketAddr {
    let ip = if listens.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        listens.ip()
    };
    SocketAddr::new(ip, listens.port())
}

/// Every host whose images the mirror has.
fn hosts(config: &Resolved) -> BTreeSet<String> {
    let remotes = config.remotes().flat_map(|remote| &remote.serves);
    let virtuals = config.virtuals().flat_map(|several| &several.serves);
    remotes
        .chain(virtuals)
        .map(|host| canonical_host(host))
        .collect()
}

/// For podman, buildah and skopeo. They send no `?ns=`, so the host stands in the path.
fn registries_conf(hosts: &BTreeSet<String>, own: &str) -> String {
    let mut text = String::new();
    // A String takes whatever is written, here and below.
    if hosts.contains(DOCKER_HUB.0) {
        let _ = writeln!(
            text,
            "unqualified-search-registries = [\"{}\"]",
            DOCKER_HUB.0
        );
    }
    for host in hosts {
        let _ = write!(
            text,
            "\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n[[registry.mirror]]\nlocation = \"{own}/{host}\"\ninsecure = true\n"
        );
    }
    // What is named by the mirror's own address.
    let _ = write!(
        text,
        "\n[[registry]]\nlocation = \"{own}\"\ninsecure = true\n"
    );
    text
}

/// For `buildkitd --config`, and `docker buildx create --config`.
fn buildkitd_toml(hosts: &BTreeSet<String>, own: &str) -> String {
    let mut text = String::new();
    for host in hosts {
        let _ = writeln!(text, "[registry.\"{host}\"]\n  mirrors = [\"{own}\"]");
    }
    let _ = writeln!(text, "[registry.\"{own}\"]\n  http = true");
    text
}

/// For containerd, `ctr --hosts-dir` and `nerdctl --hosts-dir`.
fn hosts_toml(host: &str, own: &str) -> String {
    let server = if host == DOCKER_HUB.0 {
        DOCKER_HUB.1
    } else {
        host
    };
    format!(
        "server = \"https://{server}\"\n[host.\"http://{own}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    )
}

/// skopeo takes its registries from an option alone; the last one given counts.
fn shim_of(program: &Path, registries: &Path) -> Vec<u8> {
    let quoted = |path: &Path| {
        let text = path.as_os_str().to_string_lossy();
        format!("'{}'", text.replace('\'', "'\\''"))
    };
    format!(
        "#!/bin/sh\nexec {} --registries-conf {} \"$@\"\n",
        quoted(program),
        quoted(registries)
    )
    .into_bytes()
}

/// A program, by the directories of `PATH`.
fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|file| {
            fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn every_host_that_is_served_is_pointed_at_the_mirror() {
        let config = config::load(None, None, &[]).unwrap();
        let listens = "0.0.0.0:1234".parse().unwrap();
        let tools = tempfile::tempdir().unwrap();
        let skopeo = tools.path().join("skopeo");
        fs::write(&skopeo, "").unwrap();
        fs::set_permissions(&skopeo, fs::Permissions::from_mode(0o755)).unwrap();
        let path = OsString::from(tools.path());
        let clients = Clients::point(&config, listens, Some(&path)).unwrap();
        assert_eq!(clients.url(), "http://127.0.0.1:1234");
        let root = clients.dir.path().to_owned();
        let mode = fs::metadata(&root).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        let (registries, buildkit) = (read("registries.conf"), read("buildkitd.toml"));
        for host in ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"] {
            assert!(registries.contains(&format!("location = \"127.0.0.1:1234/{host}\"")));
            assert!(buildkit.contains(&format!("[registry.\"{host}\"]\n  mirrors")));
            assert!(read(&format!("containerd/{host}/hosts.toml")).contains("127.0.0.1:1234"));
        }
        assert!(read("containerd/docker.io/hosts.toml").contains("https://registry-1.docker.io"));
        for text in [registries, buildkit] {
            text.parse::<toml::Table>().unwrap();
        }
        assert!(read("bin/skopeo").contains("--registries-conf"));
        let environment = clients.environment(Path::new("/data"), Some(&path));
        let search = &environment
            .iter()
            .find(|(name, _)| *name == "PATH")
            .unwrap()
            .1;
        assert!(search.to_str().unwrap().ends_with(path.to_str().unwrap()));
        drop(clients);
        assert!(!root.exists());
    }

    #[test]
    fn a_quote_in_a_path_stays_in_it() {
        let shim = shim_of(Path::new("/it's/skopeo"), Path::new("/tmp/r"));
        assert!(
            String::from_utf8(shim)
                .unwrap()
                .contains(r"'/it'\''s/skopeo'")
        );
    }
}
