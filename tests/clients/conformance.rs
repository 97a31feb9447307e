//! The official conformance suite of the distribution specification (1.1), against a local repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::parts::tool;
use crate::support::Mirror;

/// What the suite leaves out by its own rules: what only makes sense for a registry that cannot be pushed to, and the other branch of an
/// alternative that was taken.
const LEFT_OUT: [&str; 4] = [
    "Get tag name from environment",
    "Populate registry with test tags (no push)",
    "Cross-mounting of nonexistent blob should yield session id",
    "automatic content discovery disabled should return a 202",
];

/// Runs the suite against `dev-local` of the registry at `root`; its report stays in `target/conformance/<report>`.
pub fn conforms(root: &str, report: &str, ca: Option<&Path>) {
    let report = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/conformance")
        .join(report);
    fs::create_dir_all(&report).unwrap();
    let output = Command::new(tool("conformance"))
        .current_dir(&report)
        .envs(ca.map(|ca| ("SSL_CERT_FILE", ca)))
        .envs([
            ("OCI_ROOT_URL", root),
            ("OCI_NAMESPACE", "dev-local/conformance/one"),
            ("OCI_CROSSMOUNT_NAMESPACE", "dev-local/conformance/two"),
            ("OCI_TEST_PULL", "1"),
            ("OCI_TEST_PUSH", "1"),
            ("OCI_TEST_CONTENT_DISCOVERY", "1"),
            ("OCI_TEST_CONTENT_MANAGEMENT", "1"),
            ("OCI_AUTOMATIC_CROSSMOUNT", "1"),
            ("OCI_DELETE_MANIFEST_BEFORE_BLOBS", "1"),
        ])
        .output()
        .expect("run scripts/install-test-tools");
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words}");
    let results = fs::read_to_string(report.join("junit.xml")).unwrap();
    let skipped: Vec<&str> = results
        .split("<testcase ")
        .filter(|case| case.contains("status=\"skipped\""))
        .map(|case| case.split('"').nth(1).unwrap())
        .collect();
    for case in &skipped {
        assert!(LEFT_OUT.iter().any(|known| case.contains(known)), "{case}");
    }
    let passed = results.matches("status=\"passed\"").count();
    assert!(passed >= 75, "only {passed} cases ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_suite_passes_whole() {
    let mirror = Mirror::with(&[], "[local.dev-local]\n").await;
    conforms(&mirror.url(), "http", None);
    assert!(mirror.files("uploads").len() < 20);
}
