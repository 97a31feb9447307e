//! The official conformance suite of the distribution specification (1.1), against a local repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::parts::tool;
use crate::support::{Mirror, Remote, Upstream};

/// What the suite leaves out by its own rules: what only makes sense for a registry that cannot be pushed to, and the other branch of an
/// alternative that was taken.
const LEFT_OUT: [&str; 4] = [
    "Get tag name from environment",
    "Populate registry with test tags (no push)",
    "Cross-mounting of nonexistent blob should yield session id",
    "automatic content discovery disabled should return a 202",
];

/// Runs the suite against the repository `key` of the registry at `root`; its report stays in `target/conformance/<report>`.
pub fn conforms(root: &str, key: &str, report: &str, ca: Option<&Path>) {
    let [one, two] = ["one", "two"].map(|name| format!("{key}/conformance/{name}"));
    let report = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/conformance")
        .join(report);
    fs::create_dir_all(&report).unwrap();
    let output = Command::new(tool("conformance"))
        .current_dir(&report)
        .envs(ca.map(|ca| ("SSL_CERT_FILE", ca)))
        .envs([
            ("OCI_ROOT_URL", root),
            ("OCI_NAMESPACE", one.as_str()),
            ("OCI_CROSSMOUNT_NAMESPACE", two.as_str()),
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
    conforms(&mirror.url(), "dev-local", "http", None);
    assert!(mirror.files("uploads").len() < 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_repository_passes_it_too() {
    let upstream = Upstream::start().await;
    let tables = "[local.dev-local]\n[virtual.docker-virtual]\nmembers = [\"dev-local\", \"docker-hub\"]\ndeploy_to = \"dev-local\"\n";
    let mirror = Mirror::with(&[Remote::hub(&upstream.url())], tables).await;
    conforms(&mirror.url(), "docker-virtual", "virtual", None);
}
