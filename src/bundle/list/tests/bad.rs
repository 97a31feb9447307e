//! What cannot be used is reported as `fixtures/lists/*.bad.*.expected` has it.

use super::super::from_file;
use super::fixture;

#[test]
fn reports_are_what_they_were() {
    let directory = format!("{}/fixtures/lists", env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.contains(".bad.") || name.ends_with(".expected") {
            continue;
        }
        seen += 1;
        let report = from_file(&name, &fixture(&name)).unwrap_err().to_string();
        let expected = format!("{directory}/{name}.expected");
        if std::env::var_os("ROADSTEAD_BLESS").is_some() {
            std::fs::write(&expected, format!("{report}\n")).unwrap();
        }
        assert_eq!(
            format!("{report}\n"),
            std::fs::read_to_string(&expected).unwrap(),
            "{name}"
        );
    }
    assert!(seen >= 9);
}
