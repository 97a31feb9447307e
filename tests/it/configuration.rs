//! What `roadstead check` says to configurations that are wrong: `fixtures/config/<what>.toml` and, beside it, the words.
//!
//! After a change of words, look at what `ROADSTEAD_BLESS=1 cargo test --test it configuration` writes before it is committed.

use std::path::Path;
use std::process::Command;

fn check(file: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .args(["check", "--config"])
        .arg(file.file_name().unwrap())
        .current_dir(file.parent().unwrap())
        .env_clear()
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_wrong_configuration_is_told_what_where_and_what_to_do() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config");
    let bless = std::env::var_os("ROADSTEAD_BLESS").is_some();
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        seen += 1;
        let (code, words) = check(&path);
        let expected = path.with_extension("txt");
        if bless {
            std::fs::write(&expected, &words).unwrap();
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        // What need not be there yet is a warning; everything else ends the program.
        let ends = words.starts_with("error: ");
        assert_eq!(code, Some(if ends { 2 } else { 0 }), "{name}: {words}");
        assert!(ends || words.starts_with("warning: "), "{name}: {words}");
        assert_eq!(
            words,
            std::fs::read_to_string(&expected).unwrap_or_default(),
            "{name}"
        );
    }
    assert!(seen > 10);
}
