use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use crate::bundle::archive::volumes::{Output, VOLUME_MIN, VOLUMES_MAX, VolumeError, Volumes};

/// A file's bytes; tests may block.
fn file(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn bytes(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn split(base: &Path, bytes: &[u8]) {
    let mut output = Output::create(base, Some(VOLUME_MIN), None).unwrap();
    output.write_all(bytes).unwrap();
    output.finish().unwrap();
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut volumes = Volumes::find(path)
        .map_err(|error| error.to_string())?
        .unwrap();
    let mut bytes = Vec::new();
    let read = volumes.read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| {
        assert!(
            volumes.read(&mut [0; 8]).is_err(),
            "no clean end after a failure"
        );
        error.to_string()
    })
}

#[test]
fn volumes_joined_are_the_bundle_and_sha256sum_checks_them() {
    for len in [
        0,
        1,
        VOLUME_MIN,
        VOLUME_MIN + 1,
        3 * VOLUME_MIN,
        3 * VOLUME_MIN + 5,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("b.tar");
        let whole = bytes(len);
        split(&base, &whole);
        let count = len.div_ceil(VOLUME_MIN).max(1);
        let mut expected: Vec<_> = (1..=count)
            .map(|number| format!("b.tar.{number:03}"))
            .collect();
        let mut joined = Vec::new();
        for name in &expected {
            joined.extend(file(&dir.path().join(name)));
        }
        assert_eq!(joined, whole);
        expected.push("b.tar.sha256".to_owned());
        assert_eq!(names(dir.path()), expected);
        for name in [&expected[0], "b.tar.sha256"] {
            assert_eq!(read(&dir.path().join(name)).unwrap(), whole);
        }
        assert_eq!(
            Volumes::find(&dir.path().join("b.tar.001"))
                .unwrap()
                .unwrap()
                .size(),
            len
        );
        let check = Command::new("sha256sum")
            .args(["--strict", "-c", "b.tar.sha256"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(check.status.success(), "{check:?}");
    }
}

#[test]
fn without_a_size_it_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("b.tar");
    let mut output = Output::create(&base, None, None).unwrap();
    output.write_all(b"all of it").unwrap();
    assert_eq!(names(dir.path()), ["b.tar.partial"]);
    assert_eq!(output.finish().unwrap(), std::slice::from_ref(&base));
    assert_eq!(file(&base), b"all of it");
    assert!(Volumes::find(&base).unwrap().is_none());
    assert!(
        matches!(Output::create(&base, None, None), Err(VolumeError::Exists(path)) if path == base)
    );
}

#[test]
fn what_does_not_come_to_its_end_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("b.tar");
    let mut output = Output::create(&base, Some(VOLUME_MIN), None).unwrap();
    output.write_all(&bytes(2 * VOLUME_MIN + 1)).unwrap();
    assert_eq!(
        names(dir.path()),
        [
            "b.tar.001.partial",
            "b.tar.002.partial",
            "b.tar.003.partial"
        ]
    );
    drop(output);
    assert!(names(dir.path()).is_empty());
    // A name that cannot be taken at the very end: the volumes that already have theirs lose them.
    let mut output = Output::create(&base, Some(VOLUME_MIN), None).unwrap();
    output.write_all(&bytes(VOLUME_MIN + 1)).unwrap();
    fs::create_dir_all(dir.path().join("b.tar.002/in the way")).unwrap();
    assert!(output.finish().is_err());
    assert_eq!(names(dir.path()), ["b.tar.002"]);
}

#[test]
fn what_is_there_and_what_cannot_be_is_said_before_work() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("b.tar");
    assert!(matches!(
        Output::create(&base, Some(VOLUME_MIN - 1), None),
        Err(VolumeError::TooSmall)
    ));
    let most = u64::from(VOLUMES_MAX) * VOLUME_MIN;
    assert!(matches!(
        Output::create(&base, Some(VOLUME_MIN), Some(most + 1)),
        Err(VolumeError::TooMany)
    ));
    drop(Output::create(&base, Some(VOLUME_MIN), Some(most)).unwrap());
    let mut output = Output::create(&base, Some(VOLUME_MIN), None).unwrap();
    let error = output.write_all(&bytes(most + 1)).unwrap_err();
    assert!(error.to_string().contains("999 volumes"), "{error}");
    drop(output);
    fs::write(dir.path().join("b.tar.007"), "of another").unwrap();
    assert!(matches!(
        Output::create(&base, Some(VOLUME_MIN), None),
        Err(VolumeError::Exists(_))
    ));
    assert_eq!(names(dir.path()), ["b.tar.007"]);
}

#[test]
fn missing_and_damaged_volumes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    split(&path("b.tar"), &bytes(4 * VOLUME_MIN));
    let good = file(&path("b.tar.002"));
    let mut bad = good.clone();
    bad[77] ^= 1;
    for wrong in [&bad[..], &good[1..], &[&good[..], b"x"].concat()] {
        fs::write(path("b.tar.002"), wrong).unwrap();
        let error = read(&path("b.tar.001")).unwrap_err();
        assert!(error.contains("b.tar.002 is damaged"), "{error}");
    }
    fs::remove_file(path("b.tar.002")).unwrap();
    fs::remove_file(path("b.tar.004")).unwrap();
    let error = read(&path("b.tar.001")).unwrap_err();
    assert!(
        error.contains("b.tar.002, ") && error.contains("b.tar.004;"),
        "{error}"
    );
    fs::remove_file(path("b.tar.sha256")).unwrap();
    let error = read(&path("b.tar.001")).unwrap_err();
    assert!(
        error.starts_with("missing: ") && error.contains("b.tar.sha256"),
        "{error}"
    );
}

#[test]
fn sums_name_their_volumes_in_order_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let sums = dir.path().join("b.sha256");
    let hex = "0".repeat(64);
    let line = |number: u32| format!("{hex}  b.{number:03}\n");
    for (text, why) in [
        (String::new(), "empty"),
        (format!("{hex}  b.001"), "cut off"),
        (format!("{hex}  b.002\n"), "not numbered"),
        (
            format!("{hex}  b.001\n{hex}  b.003\n"),
            "line 2: the volumes are not numbered",
        ),
        (format!("{hex}  ../b.001\n"), "not numbered"),
        (format!("{hex}  /etc/passwd\n"), "not numbered"),
        (format!("{hex} b.001\n"), "sha256sum"),
        (format!("{}  b.001\n", "X".repeat(64)), "sha256sum"),
        ("x\n".to_owned(), "sha256sum"),
        (format!("{hex}  b.001\n\n"), "sha256sum"),
        (
            (1..=1000).map(line).collect::<Vec<_>>().concat(),
            "too many",
        ),
        ("x".repeat(1024 * 1024 + 1), "at most"),
    ] {
        fs::write(&sums, text).unwrap();
        let error = read(&sums).unwrap_err();
        assert!(error.contains(why), "{error}: {why}");
    }
}
