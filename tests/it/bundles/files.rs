//! The forms that a bundle has: one file, volumes, a directory, compressed, a pipe; signed or not; the same bytes every time.

use super::*;
use crate::support::image::Flavour;

const SPLIT: usize = 64 * KIB;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_images_make_the_same_bytes_and_volumes_join_to_them() {
    let upstream = Upstream::start().await;
    let nginx = several(1);
    upstream.hold("library/nginx", "1", &nginx);
    upstream.hold("team/app", "1", &image::small(Flavour::Docker, 5));
    let (here, there) = (connected(&upstream).await, offline().await);
    let stick = Stick::new();
    let (private, public) = stick.keys("signer", "ed25519");
    let export = |name: &str, more: &[&str]| {
        let path = stick.at(name);
        let mut arguments = vec!["export", "-o", &path];
        arguments.extend(more);
        // In whatever order they are asked for.
        let mut images = ["nginx:1", "team/app:1"];
        if name.contains("2") {
            images.reverse();
        }
        arguments.extend(images);
        said(&here, &arguments);
        path
    };
    let (one, _two) = (export("a1", &[]), export("a2", &[]));
    assert!(stick.read("a1") == stick.read("a2"));
    let signed = ["--sign-key", private.as_str()];
    export("s1", &signed);
    export("s2", &signed);
    assert!(stick.read("s1") == stick.read("s2"));
    assert!(stick.read("s1") != stick.read("a1"));
    let zstd = export("z1.tar.zst", &["--zstd"]);
    let unpacked = zstd::decode_all(&*stick.read("z1.tar.zst")).unwrap();
    assert!(unpacked == stick.read("a1"));
    let directory = export("d1", &["--directory"]);
    for name in entries(one.as_ref()) {
        if !name.ends_with('/') {
            let file = std::fs::read(Path::new(&directory).join(&name)).unwrap();
            assert!(file == entry(one.as_ref(), &name), "{name}");
        }
    }
    // Standard output.
    let piped = run(&here, &["export", "-o", "-", "nginx:1", "team/app:1"]);
    assert!(piped.status.success() && piped.stdout == stick.read("a1"));

    let volumes = export("v1", &["--split", &SPLIT.to_string()]);
    let mut joined = Vec::new();
    let mut number = 1;
    while let Ok(bytes) = std::fs::read(format!("{volumes}.{number:03}")) {
        assert!(bytes.len() == SPLIT || joined.len() + bytes.len() == stick.read("a1").len());
        joined.extend(bytes);
        number += 1;
    }
    assert!(number > 4 && joined == stick.read("a1"));
    assert!(!Path::new(&volumes).exists());
    let checked = Command::new("sha256sum")
        .args(["-c", "--quiet", "v1.sha256"])
        .current_dir(stick.path())
        .status();
    assert!(checked.unwrap().success());

    // Each of them is taken, and is the same.
    for (path, more) in [
        (one.as_str(), vec![]),
        (&stick.at("s1"), vec!["--verify-key", public.as_str()]),
        (&zstd, vec![]),
        (&directory, vec![]),
        (&volumes, vec![]),
        (&stick.at("v1.003"), vec![]),
        (&stick.at("v1.sha256"), vec![]),
        (&format!("oci-archive:{one}"), vec![]),
    ] {
        let fresh = offline().await;
        let mut arguments = vec!["import", path];
        arguments.extend(more);
        said(&fresh, &arguments);
        assert_pulls(&fresh.client(), "library/nginx", "1", &nginx).await;
    }

    // A volume that is missing, damaged, or in the place of another.
    let refused = || complaint(&there, &["import", &volumes]);
    let (second, third) = (stick.at("v1.002"), stick.at("v1.003"));
    let aside = stick.at("aside");
    std::fs::rename(&second, &aside).unwrap();
    let words = refused();
    assert!(
        words.contains("v1.002") && words.contains("missing"),
        "{words}"
    );
    std::fs::copy(&third, &second).unwrap();
    let words = refused();
    assert!(words.contains("v1.002 is damaged"), "{words}");
    std::fs::rename(&third, stick.at("aside3")).unwrap();
    std::fs::rename(&aside, &third).unwrap();
    assert!(refused().contains("v1.002 is damaged"));
    assert!(
        there
            .files("blobs")
            .iter()
            .all(|file| file.metadata().unwrap().len() < SPLIT as u64 * 2)
    );
    assert_eq!(status(&there.client(), "library/nginx", "1").await, 404);
    std::fs::rename(&third, &second).unwrap();
    std::fs::rename(stick.at("aside3"), &third).unwrap();
    said(&there, &["import", &volumes]);
    assert_pulls(&there.client(), "library/nginx", "1", &nginx).await;
    // Volumes of an earlier bundle are not written over, nor is a directory.
    for more in [vec!["--split", "64KiB"], vec!["--directory"]] {
        let path = stick.at(if more.len() == 2 { "v1" } else { "d1" });
        let mut arguments = vec!["export", "-o", &path, "nginx:1"];
        arguments.extend(&more);
        let output = run(&here, &arguments);
        assert!(!output.status.success());
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("is there already"), "{words}");
    }
    assert!(stick.names().iter().all(|name| !name.contains(".partial")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_asked_for_and_must_be_right() {
    let upstream = Upstream::start().await;
    let app = image::small(Flavour::Oci, 1);
    upstream.hold("team/app", "1", &app);
    let here = connected(&upstream).await;
    let stick = Stick::new();
    for algorithm in ["ed25519", "EC"] {
        let there = offline().await;
        let (private, public) = stick.keys(&format!("{algorithm}-a"), algorithm);
        let (_, other) = stick.keys(&format!("{algorithm}-b"), algorithm);
        let (signed, unsigned) = (
            stick.at(&format!("{algorithm}-signed")),
            stick.at(&format!("{algorithm}-unsigned")),
        );
        said(
            &here,
            &[
                "export",
                "-o",
                &signed,
                "--sign-key",
                &private,
                "team/app:1",
            ],
        );
        said(&here, &["export", "-o", &unsigned, "team/app:1"]);
        let import =
            |path: &str, key: &str| complaint(&there, &["import", "--verify-key", key, path]);
        let words = import(&signed, &other);
        assert!(words.contains("signature"), "{words}");
        let words = import(&unsigned, &public);
        assert!(words.contains("sign"), "{words}");
        assert_eq!(status(&there.client(), "team/app", "1").await, 404);
        assert!(
            there.files("blobs").is_empty(),
            "nothing was even looked at"
        );
        said(&there, &["import", "--verify-key", &public, &signed]);
        assert_pulls(&there.client(), "team/app", "1", &app).await;
    }
    // A private key is none to verify with, and a public one none to sign with.
    let (private, public) = stick.keys("c", "ed25519");
    let out = stick.at("out");
    let output = run(
        &here,
        &["export", "-o", &out, "--sign-key", &public, "team/app:1"],
    );
    assert_eq!(output.status.code(), Some(2));
    let words = complaint(
        &here,
        &["import", "--verify-key", &private, &stick.at("EC-signed")],
    );
    assert!(words.contains("cannot verify"), "{words}");
    assert!(!Path::new(&out).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_carries_a_bundle_from_one_command_to_the_other() {
    let upstream = Upstream::start().await;
    let nginx = several(1);
    upstream.hold("library/nginx", "1", &nginx);
    let (here, there) = (connected(&upstream).await, offline().await);
    for more in [vec![], vec!["--zstd"]] {
        let mut arguments = vec!["export", "-o", "-", "nginx:1"];
        arguments.extend(more);
        let mut export = command(&here, &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let import = command(&there, &["import", "-"])
            .stdin(export.stdout.take().unwrap())
            .output()
            .unwrap();
        assert!(import.status.success(), "{import:?}");
        assert!(export.wait().unwrap().success());
        assert_pulls(&there.client(), "library/nginx", "1", &nginx).await;
    }
    // Cut off it is refused, and nothing of it is there.
    let fresh = offline().await;
    let whole = run(&here, &["export", "-o", "-", "nginx:1"]).stdout;
    for end in [
        0,
        512,
        whole.len() / 2,
        whole.len() - 1024,
        whole.len() - 512,
    ] {
        let mut import = command(&fresh, &["import", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = import.stdin.take().unwrap();
        drop(std::io::Write::write_all(&mut stdin, &whole[..end]));
        drop(stdin);
        let output = import.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{end}: {output:?}");
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("cut off"), "{end}: {words}");
        assert_eq!(status(&fresh.client(), "library/nginx", "1").await, 404);
    }
    said(&fresh, &["pins"]);
    // What cannot be read twice has to say in front what it holds.
    let images = ["-", "--directory"];
    let output = run(&here, &["export", "-o", images[0], images[1], "nginx:1"]);
    assert_eq!(output.status.code(), Some(2));
    let output = run(&here, &["export", "-o", "-", "--split", "1MiB", "nginx:1"]);
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_a_file_is_left_alone() {
    let upstream = Upstream::start().await;
    upstream.hold("team/app", "1", &image::small(Flavour::Oci, 1));
    let here = connected(&upstream).await;
    let stick = Stick::new();
    // Somebody else's, by the names that come to mind first.
    let victim = stick.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    std::os::unix::fs::symlink(&victim, stick.path().join("have.partial")).unwrap();
    let beside = stick.path().join("out.partial");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join("notes"), "mine").unwrap();
    said(&here, &["inventory", "-o", &stick.at("have")]);
    let out = stick.at("out");
    said(&here, &["export", "--directory", "team/app:1", "-o", &out]);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(
        std::fs::read_to_string(beside.join("notes")).unwrap(),
        "mine"
    );
    assert!(
        !stick
            .path()
            .join("have")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    // Where the bundle goes, nothing else does.
    let output = run(&here, &["export", "--json", "team/app:1", "-o", "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}
