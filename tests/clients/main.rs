//! Real clients pull real images through the real binary from a real registry; needs what `scripts/install-test-tools` installs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::pedantic,
    clippy::large_futures,
    clippy::map_err_ignore,
    clippy::format_push_string,
    clippy::significant_drop_in_scrutinee,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_docs,
    reason = "test code: a broken assumption should panic where it stands, and clocks and files are read directly"
)]

#[path = "../it/support/mod.rs"]
mod support;

mod admission;
mod airgap;
mod bundles;
mod conformance;
mod copies;
mod jfrog;
mod logins;
mod parts;
mod pulls;
mod pushes;
mod pushes_out;
mod pushes_over_tls;
mod run;
mod stalls;
mod virtuals;
