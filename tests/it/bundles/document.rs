//! `docs/air-gap.md`, word for word: each side runs its blocks in a directory of its own, and the medium is all that they share.

use std::process::Stdio;

use super::*;
use crate::support::Walkthrough;
use crate::support::image::Flavour;

/// One side: its mirror runs, and its operator works beside it.
struct Side {
    mirror: Mirror,
    home: TempDir,
}

impl Side {
    fn new(mirror: Mirror, medium: &Stick) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(medium.path(), home.path().join("medium")).unwrap();
        Self { mirror, home }
    }

    /// Runs the blocks of this mark, and answers what they print.
    fn run(&self, mark: &str) -> String {
        let configuration = self.mirror.configuration();
        let environment = [
            ("ROADSTEAD_CONFIG", configuration.to_str().unwrap()),
            (
                "ROADSTEAD__STORAGE__PATH",
                self.mirror.data().to_str().unwrap(),
            ),
        ];
        let walkthrough = Walkthrough::of("docs/air-gap.md", mark);
        let output = walkthrough.run(self.home.path(), &environment);
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_carries_what_was_chosen_and_then_what_was_missing() {
    let upstream = Upstream::start().await;
    let (nginx, next) = (several(1), several(50));
    let tools = image::small(Flavour::Docker, 2);
    let late = image::small(Flavour::Oci, 3);
    upstream.hold("library/nginx", "1.27", &nginx);
    upstream.hold("team/tools", "1.4", &tools);
    upstream.hold("team/late", "2", &late);
    let tags = serde_json::json!({"name": "team/tools", "tags": ["1.4", "2.0"]});
    let list = image::Content::json("application/json", &tags);
    upstream.hold_path("/v2/team/tools/tags/list", &list);
    let medium = Stick::new();
    let here = Side::new(connected(&upstream).await, &medium);
    let there = Side::new(offline().await, &medium);

    here.run("connected-keys");
    there.run("isolated-keys");
    here.run("connected-first");
    assert!(medium.names().contains(&"week1.tar.sha256".to_owned()));
    let printed = there.run("isolated-first");
    assert!(
        printed.contains("docker.io/library/nginx:1.27"),
        "{printed}"
    );
    let client = there.mirror.client();
    // One platform was chosen.
    let amd64 = nginx.child(0);
    assert!(
        client
            .manifest("library/nginx", "1.27")
            .await
            .is(&nginx.root.bytes)
    );
    assert!(
        client
            .manifest("library/nginx", &amd64.digest)
            .await
            .is(&amd64.bytes)
    );
    assert_pulls(&client, "team/tools", "1.4", &tools).await;

    // Somebody asks for what is not there, and upstream moves on.
    assert_eq!(status(&client, "team/late", "2").await, 404);
    upstream.hold("library/nginx", "1.27", &next);
    there.run("isolated-missing");
    let missing = String::from_utf8(medium.read("missing.txt")).unwrap();
    assert!(missing.contains("docker.io/team/late:2"), "{missing}");
    here.run("connected-second");
    let carried = blobs(&medium.path().join("week2.tar"));
    assert!(carried.contains(&late.root.digest) && carried.contains(&next.root.digest));
    assert!(!carried.contains(&tools.root.digest) && !carried.contains(&nginx.root.digest));
    there.run("isolated-second");
    assert_pulls(&client, "team/late", "2", &late).await;
    assert!(
        client
            .manifest("library/nginx", "1.27")
            .await
            .is(&next.root.bytes)
    );
    let left = said(&there.mirror, &["missing"]);
    assert!(left.contains(" 0 in all"), "{left}");
}

/// What the page says of exit codes.
#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_those_of_the_page() {
    let upstream = Upstream::start().await;
    upstream.hold("team/app", "1", &image::small(Flavour::Oci, 1));
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let (path, other) = (stick.at("bundle.tar"), stick.at("other.tar"));
    let code = |mirror: &Mirror, arguments: &[&str]| {
        let mut command = command(mirror, arguments);
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        done.unwrap().code()
    };
    assert_eq!(code(&here, &["export", "-o", &path, "team/app:1"]), Some(0));
    assert_eq!(
        code(&here, &["export", "-o", &other, "team/none:1"]),
        Some(1)
    );
    assert_eq!(code(&here, &["export", "-o", &other]), Some(2));
    assert_eq!(code(&here, &["export", "-o", &path, "team/app:1"]), Some(2));
    let no_key = ["export", "-o", &other, "--sign-key", &path, "team/app:1"];
    assert_eq!(code(&here, &no_key), Some(2));
    assert_eq!(code(&there, &["import", &path]), Some(0));
    assert_eq!(code(&there, &["import", "--dry-run", &path]), Some(0));
    assert_eq!(code(&there, &["import", &other]), Some(1));
    assert_eq!(code(&there, &["import"]), Some(2));
    assert_eq!(code(&there, &["import", "--nonsense", &path]), Some(2));
    assert_eq!(code(&there, &["inventory", "-o", "/none/x"]), Some(1));
    assert_eq!(stick.names(), ["bundle.tar"]);
}
