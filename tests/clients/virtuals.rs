//! One name over the cache and what people push, by path, by port and by sub-domain, with real clients and a real registry upstream.

use std::fs;
use std::process::Command;

use crate::parts::{Hosts, Registry, run, tool};
use crate::pulls::{Docker, Podman};
use crate::support::image::{self, Flavour};
use crate::support::{Mirror, Remote, free_port};

fn digest(reference: &str) -> String {
    run(Command::new(tool("crane")).args(["validate", "--insecure", "--remote", reference]));
    let out = run(Command::new(tool("crane")).args(["digest", "--insecure", reference]));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overlay_on_the_mirror() {
    let registry = Registry::start().await;
    let theirs = image::small(Flavour::Docker, 1);
    registry.push("library/base", "1", &theirs).await;
    let port = free_port();
    let hub = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "hub.test",
        more: String::new(),
    };
    let tables = format!(
        "[local.dev-local]\n[local.prod-local]\n\
         [virtual.docker-virtual]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n\
         [[server.bind]]\nlisten = \"127.0.0.1:{port}\"\nrepository = \"prod-local\"\n"
    );
    let mirror = Mirror::with(&[hub], &tables).await;
    let at = mirror.address().to_string();
    let bound = format!("127.0.0.1:{port}");
    let docker = Docker::start(&at);
    // What comes from upstream is tagged and pushed back under the same host.
    run(docker.command().args(["pull", "base:1"]));
    for name in [format!("{at}/team/app:1"), format!("{at}/base:mine")] {
        run(docker.command().args(["tag", "base:1", &name]));
        run(docker.command().args(["push", &name]));
        run(docker.command().args(["rmi", &name]));
        run(docker.command().args(["pull", &name]));
    }
    let pushed = digest(&format!("{at}/team/app:1"));
    for (name, expected) in [
        (format!("{at}/dev-local/team/app:1"), &pushed),
        (format!("{at}/docker-virtual/team/app:1"), &pushed),
        (format!("{at}/dev-local/library/base:mine"), &pushed),
        (format!("{at}/base:1"), &theirs.digest().to_owned()),
    ] {
        assert_eq!(&digest(&name), expected, "{name}");
    }
    // By a port of its own.
    let name = format!("{bound}/team/app:2");
    run(Command::new(tool("crane")).args([
        "copy",
        "--insecure",
        &format!("{at}/team/app:1"),
        &name,
    ]));
    assert_eq!(digest(&format!("{at}/prod-local/team/app:2")), pushed);
    let (dir, policy) = accept_anything();
    run(Command::new("skopeo")
        .arg("--policy")
        .arg(&policy)
        .args(["copy", "--src-tls-verify=false"])
        .arg(format!("docker://{name}"))
        .arg(format!("dir:{}", dir.path().join("out").display())));
    // Promoted, and pulled where it went.
    let body = "{\"targetRepo\":\"prod-local\",\"dockerRepository\":\"team/app\",\"tag\":\"1\",\"targetTag\":\"stable\"}";
    let out = run(Command::new("curl")
        .args(["-sf", "-X", "POST", "-d", body])
        .arg(format!(
            "{}/artifactory/api/docker/dev-local/v2/promote",
            mirror.url()
        )));
    assert_eq!(out.stdout, b"Promotion ended successfully");
    run(docker
        .command()
        .args(["pull", &format!("{bound}/team/app:stable")]));
    assert_eq!(digest(&format!("{bound}/team/app:stable")), pushed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_by_sub_domain() {
    let registry = Registry::start().await;
    let theirs = image::small(Flavour::Docker, 1);
    registry.push("library/base", "1", &theirs).await;
    let hub = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "hub.test",
        more: String::new(),
    };
    // What has no host of its own here is another repository's, so that only the host can lead where it should.
    let tables = "[mirror]\ndefault = \"other-local\"\n[local.dev-local]\n[local.other-local]\n\
         [virtual.docker-virtual]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n\
         [[server.bind]]\nhost = \"docker-virtual.mirror.test\"\nrepository = \"docker-virtual\"\n\
         [[server.bind]]\nhost = \"dev-local.mirror.test\"\nrepository = \"dev-local\"\n";
    let mirror = Mirror::with(&[hub], tables).await;
    let (at, port) = (mirror.address().to_string(), mirror.address().port());
    let hosts = Hosts::new(&["docker-virtual.mirror.test", "dev-local.mirror.test"]);
    let over = format!("docker-virtual.mirror.test:{port}");
    let local = format!("dev-local.mirror.test:{port}");
    let crane = |arguments: &[&str]| {
        let out = run(hosts.command(tool("crane")).args(arguments));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };

    // docker: pulls what upstream has, and pushes it back under the same host.
    let docker = Docker::start_by(hosts.command("dockerd"), &at);
    let base = format!("{over}/base:1");
    run(docker.command().args(["pull", &base]));
    let name = format!("{over}/team/docker:1");
    run(docker.command().args(["tag", &base, &name]));
    run(docker.command().args(["push", &name]));
    run(docker.command().args(["rmi", &name]));
    for host in [&over, &local] {
        run(docker
            .command()
            .args(["pull", &format!("{host}/team/docker:1")]));
    }
    let pushed = digest(&format!("{at}/dev-local/team/docker:1"));

    // crane: within a host, and from one to the other.
    for (from, to) in [
        (&name, format!("{over}/team/crane:1")),
        (&name, format!("{local}/team/crane:2")),
    ] {
        crane(&["copy", "--insecure", from, &to]);
        crane(&["validate", "--insecure", "--remote", &to]);
        assert_eq!(crane(&["digest", "--insecure", &to]), pushed);
    }
    let tags = crane(&["ls", "--insecure", &format!("{over}/team/crane")]);
    assert_eq!(tags, "1\n2");
    let images = crane(&["catalog", "--insecure", &local]);
    assert_eq!(images, "team/crane\nteam/docker");

    // skopeo: there and back.
    let (dir, policy) = accept_anything();
    let copy = |from: String, to: String| {
        run(hosts
            .command("skopeo")
            .arg("--policy")
            .arg(&policy)
            .args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"])
            .args([from, to]));
    };
    let out = format!("dir:{}", dir.path().join("out").display());
    copy(format!("docker://{over}/base:1"), out.clone());
    copy(out, format!("docker://{over}/team/skopeo:1"));
    let back = dir.path().join("back").display().to_string();
    copy(
        format!("docker://{local}/team/skopeo:1"),
        format!("dir:{back}"),
    );
    assert_eq!(
        digest(&format!("{at}/dev-local/team/skopeo:1")),
        theirs.digest()
    );
    let elsewhere = mirror.client().get("/other-local/v2/_catalog").await.json();
    assert_eq!(elsewhere["repositories"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_while_upstream_is_down() {
    let mut registry = Registry::start().await;
    let hub = Remote {
        key: "docker-hub",
        url: registry.url(),
        serves: "hub.test",
        more: String::new(),
    };
    let tables = "[local.dev-local]\n[virtual.docker-virtual]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\nserves = [\"docker.io\"]\n";
    let mirror = Mirror::with(&[hub], tables).await;
    registry.stop();
    let at = mirror.address().to_string();
    let image = image::small(Flavour::Docker, 1);
    mirror.client().push("dev-local/source", "1", &image).await;
    let source = format!("{at}/dev-local/source:1");
    let docker = Docker::start(&at);
    let target = format!("{at}/team/docker:1");
    run(docker.command().args(["pull", &source]));
    run(docker.command().args(["tag", &source, &target]));
    run(docker.command().args(["push", &target]));
    digest(&target);
    let podman = Podman::start(&at);
    let target = format!("{at}/team/podman:1");
    run(podman
        .command()
        .args(["pull", "--tls-verify=false", &source]));
    run(podman
        .command()
        .args(["push", "--tls-verify=false", &source, &target]));
    digest(&target);
    let (_dir, policy) = accept_anything();
    let target = format!("{at}/team/skopeo:1");
    run(Command::new("skopeo")
        .arg("--policy")
        .arg(&policy)
        .args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args([format!("docker://{source}"), format!("docker://{target}")]));
    digest(&target);
}

fn accept_anything() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.json");
    let anything = "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}";
    fs::write(&policy, anything).unwrap();
    (dir, policy)
}
