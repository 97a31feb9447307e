//! JFrog's own client: repositories, searches, properties, promotion, deletion (tests/clients/jfrog).

use std::process::Command;

use crate::parts::{Registry, run, tool};
use crate::support::Mirror;
use crate::support::image::{self, Flavour};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_artifactorys_users_do() {
    let registry = Registry::start().await;
    let theirs = image::small(Flavour::Oci, 1);
    registry.push("team/base", "1", &theirs).await;
    let mirror = Mirror::with(&[], "[local.file-local]\n").await;
    let jfrog = |arguments: &[&str]| {
        run(Command::new(tool("jfrog"))
            .arg(mirror.url())
            .args(arguments))
    };
    jfrog(&["create", &registry.url()]);
    let at = mirror.address().to_string();
    let crane = |arguments: &[&str]| {
        run(Command::new(tool("crane"))
            .args(arguments)
            .arg("--insecure"))
    };
    let (from, to) = (
        format!("{at}/up-remote/team/base:1"),
        format!("{at}/all-virtual/team/app:1"),
    );
    crane(&["copy", &from, &to]);
    jfrog(&["use"]);
    let released = format!("{at}/release-local/team/released:1.0");
    crane(&["validate", "--remote", &released]);
    let digest = crane(&["digest", &released]);
    assert_eq!(
        String::from_utf8_lossy(&digest.stdout).trim(),
        theirs.digest()
    );
    jfrog(&["delete"]);
}
