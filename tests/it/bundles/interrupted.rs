//! Commands that are ended in the middle, by a signal or by force, and mirrors that die under them: nothing half is visible, and the same
//! command goes on.

use std::io::Write as _;
use std::process::Child;
use std::time::Duration;

use super::*;
use crate::eventually;
use crate::support::image::{Flavour, Packing};
use crate::support::{Act, Gate, wait_until};

const LOCALS: &str = "[local.prod]\n";

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// What an interrupted command says, with its code; it ends by itself.
fn ended(mut child: Child) -> (Option<i32>, String) {
    assert!(
        wait_until(|| child.try_wait().unwrap().is_some()),
        "it goes on"
    );
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), words)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_export_leaves_nothing_and_goes_on_the_next_time() {
    let upstream = Upstream::start().await;
    let big = image::image(
        Flavour::Oci,
        "amd64",
        &[image::noise_layer(Packing::Plain, 1, MIB)],
    );
    upstream.hold("team/big", "1", &big);
    let mut here = connected(&upstream).await;
    let layer = &big.layers()[0].digest;
    for is_running in [true, false] {
        let gate = Gate::closed();
        let held = Act {
            gate: Some((MIB / 2, gate.clone())),
            ..Act::default()
        };
        upstream.script("GET", layer, 1, held);
        if !is_running {
            here.terminate();
            let index = here.data().join("blobs");
            drop(std::fs::remove_dir_all(index));
        }
        let stick = Stick::new();
        for (name, more) in [
            ("bundle.tar", vec![]),
            ("volumes", vec!["--split", "64KiB"]),
            ("directory", vec!["--directory"]),
        ] {
            let path = stick.at(name);
            let mut arguments = vec!["export", "-o", &path, "team/big:1"];
            arguments.extend(more);
            // The first of them is held at the upstream; the others while they are written, if they are not done by then.
            let asked = upstream.count("GET", layer);
            let mut child = command(&here, &arguments);
            let child = child.stderr(Stdio::piped()).spawn().unwrap();
            if name == "bundle.tar" {
                eventually!(upstream.count("GET", layer) > asked);
                signal(&child, "-INT");
                let (code, words) = ended(child);
                assert_eq!(code, Some(1), "{words}");
                assert!(words.contains("interrupted"), "{words}");
                gate.open();
            } else {
                let is_begun = || {
                    let mut names = stick.names().into_iter();
                    names.any(|one| one.starts_with(name))
                };
                assert!(wait_until(is_begun));
                signal(&child, "-INT");
                let (code, words) = ended(child);
                if code == Some(0) {
                    continue;
                }
                assert!(words.contains("interrupted"), "{words}");
                if stick
                    .names()
                    .iter()
                    .any(|one| one == name || *one == format!("{name}.sha256"))
                {
                    // All of it had its name when the signal came.
                    let fresh = offline().await;
                    said(&fresh, &["import", &path]);
                    continue;
                }
            }
            let left = stick.names();
            assert!(
                left.iter().all(|one| !one.starts_with(name)),
                "{name}: {left:?}"
            );
            said(&here, &arguments);
        }
        let fresh = offline().await;
        said(&fresh, &["import", &stick.at("bundle.tar")]);
        assert_pulls(&fresh.client(), "team/big", "1", &big).await;
        if !is_running {
            here.start().await;
        }
    }
}

/// Gives a command the first bytes of what it reads, and holds the rest.
fn half(child: &mut Child, bytes: &[u8]) -> std::process::ChildStdin {
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&bytes[..bytes.len() / 2]).unwrap();
    stdin.flush().unwrap();
    stdin
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_is_invisible_and_goes_on_the_next_time() {
    let upstream = Upstream::start().await;
    let app = several(3);
    upstream.hold("team/app", "1", &app);
    let here = connected(&upstream).await;
    let bundle = run(&here, &["export", "-o", "-", "team/app:1"]).stdout;
    let stick = Stick::new();
    let path = stick.at("bundle.tar");
    std::fs::write(&path, &bundle).unwrap();
    for (is_running, to) in [
        (true, None),
        (true, Some("prod")),
        (false, None),
        (false, Some("prod")),
    ] {
        let mut there = offline_with(LOCALS).await;
        there.parts_may_stay = true;
        if !is_running {
            there.terminate();
        }
        let to: Vec<&str> = to.iter().flat_map(|to| ["--to", to]).collect();
        let prefix = if to.is_empty() { "" } else { "prod/" };
        let name = format!("{prefix}team/app");
        let ways = ["-INT", "-KILL", "-TERM"];
        for how in &ways[..if is_running { 2 } else { 3 }] {
            let mut arguments = vec!["import", "-"];
            arguments.extend(&to);
            let mut child = command(&there, &arguments);
            let mut child = child
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let held = half(&mut child, &bundle);
            eventually!(there.files("blobs").len() > 2, "{how}: nothing comes");
            signal(&child, how);
            let (code, words) = ended(child);
            if *how != "-KILL" {
                assert_eq!(code, Some(1), "{words}");
                assert!(words.contains("interrupted"), "{how}: {words}");
            }
            drop(held);
            if is_running {
                assert_eq!(status(&there.client(), &name, "1").await, 404);
                assert_eq!(status(&there.client(), &name, app.digest()).await, 404);
                assert_eq!(said(&there, &["pins"]), "");
            }
        }
        let mut arguments = vec!["import", &path];
        arguments.extend(&to);
        said(&there, &arguments);
        if !is_running {
            there.start().await;
        }
        assert_pulls(&there.client(), &name, "1", &app).await;
    }
}

/// How long the first of them lives; each one after it a quarter longer.
const FIRST: Duration = Duration::from_millis(25);
/// How many die at least: the last of them lives for about 300 milliseconds.
const ROUNDS: u32 = 10;

/// Three images, of which two share what they are made of.
fn three() -> Vec<(&'static str, Image)> {
    let layer = |seed| image::noise_layer(Packing::Plain, seed, 300 * KIB);
    vec![
        (
            "team/a",
            image::image(Flavour::Oci, "amd64", &[layer(1), layer(2)]),
        ),
        (
            "team/b",
            image::image(Flavour::Oci, "amd64", &[layer(2), layer(3)]),
        ),
        ("team/c", several(4)),
    ]
}

/// Whatever can be asked for by its tag is there whole, and what is pinned has all its pieces.
async fn assert_whole(mirror: &Mirror, prefix: &str, images: &[(&str, Image)]) -> usize {
    let (client, mut count) = (mirror.client(), 0);
    for (name, image) in images {
        let name = format!("{prefix}{name}");
        match status(&client, &name, "1").await {
            404 => {}
            200 => {
                assert_pulls(&client, &name, "1", image).await;
                count += 1;
            }
            other => panic!("{name}: {other}"),
        }
    }
    for pin in told(mirror, &["pins", "--json"])["pins"]
        .as_array()
        .unwrap()
    {
        assert_eq!(pin["missing"], 0, "{pin}");
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_the_command_and_of_the_mirror_show_nothing_half() {
    let upstream = Upstream::start().await;
    let images = three();
    for (name, image) in &images {
        upstream.hold(name, "1", image);
    }
    let here = connected(&upstream).await;
    let stick = Stick::new();
    let path = stick.at("bundle.tar");
    said(
        &here,
        &["export", "-o", &path, "team/a:1", "team/b:1", "team/c:1"],
    );
    for (dies, to) in [("mirror", "prod"), ("alone", "")] {
        let mut there = offline_with(LOCALS).await;
        there.parts_may_stay = true;
        let prefix = if to.is_empty() { "" } else { "prod/" };
        let mut arguments = vec!["import", &path];
        if !to.is_empty() {
            arguments.extend(["--to", to]);
        }
        let (mut delay, mut rounds) = (FIRST, 0);
        loop {
            if dies == "alone" {
                there.terminate();
            }
            let mut child = command(&there, &arguments)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // How long it lives is the attack.
            tokio::time::sleep(delay).await;
            if dies == "mirror" {
                there.kill();
            } else {
                drop(child.kill());
            }
            let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await;
            let is_done = ended.unwrap().success();
            there.start().await;
            let count = assert_whole(&there, prefix, &images).await;
            assert!(!is_done || count == images.len(), "{dies}: {count}");
            if is_done && rounds > ROUNDS {
                break;
            }
            if is_done {
                // The first ones may die before the command has come to the mirror, which it then does without.
                there = offline_with(LOCALS).await;
                there.parts_may_stay = true;
            }
            delay = delay * 5 / 4;
            rounds += 1;
        }
        said(&there, &arguments);
        assert_eq!(assert_whole(&there, prefix, &images).await, images.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_an_export_leave_no_bundle_by_its_name() {
    let upstream = Upstream::start().await;
    let images = three();
    for (name, image) in &images {
        upstream.hold(name, "1", image);
    }
    let mut here = connected(&upstream).await;
    here.parts_may_stay = true;
    let stick = Stick::new();
    let path = stick.at("bundle.tar");
    let arguments = ["export", "-o", &path, "team/a:1", "team/b:1", "team/c:1"];
    for dies in ["command", "mirror"] {
        let mut delay = FIRST;
        loop {
            let mut child = command(&here, &arguments)
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            tokio::time::sleep(delay).await;
            if dies == "mirror" {
                here.kill();
            } else {
                drop(child.kill());
            }
            let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await;
            if dies == "mirror" {
                here.start().await;
            }
            let is_done = ended.unwrap().success();
            // By its name it is whole, even if the command died before it could say so; otherwise there is at most what the next one writes
            // over.
            let has_name = stick.names().contains(&"bundle.tar".to_owned());
            if has_name {
                said(&here, &["import", "--dry-run", &path]);
            }
            assert!(has_name || !is_done, "{dies}: {:?}", stick.names());
            if has_name {
                break;
            }
            delay = delay * 5 / 4;
        }
        assert_eq!(stick.names(), ["bundle.tar"]);
        let fresh = offline().await;
        said(&fresh, &["import", &path]);
        assert_eq!(assert_whole(&fresh, "", &images).await, images.len());
        std::fs::remove_file(&path).unwrap();
    }
}
