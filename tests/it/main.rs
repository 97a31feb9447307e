//! What Roadstead promises, tested from outside: the real binary, real sockets, a scripted upstream that counts.
//!
//! One binary with a file for each capability; `support` starts the parts.
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
    clippy::wildcard_enum_match_arm,
    clippy::significant_drop_in_scrutinee,
    unreachable_pub,
    missing_docs,
    reason = "test code: a broken assumption should panic where it stands, and clocks and files are read directly"
)]

mod support;

mod access;
mod administration;
mod admission;
mod aql;
mod artifactory;
mod audit;
mod bundles;
mod chain;
mod coalesce;
mod configuration;
mod credentials;
mod disk;
mod explain;
mod fairness;
mod foreign;
mod forged;
mod guessing;
mod history;
mod hostile;
mod limits;
mod login;
mod manners;
mod members;
mod names;
mod namespaces;
mod oidc;
mod outage;
mod owner;
mod pins;
mod promotion;
mod pulls;
mod push;
mod quota;
mod ranges;
mod records;
mod repositories;
mod run;
mod secrets;
mod security;
mod sync;
mod tls;
mod tokens;
mod virtuals;
mod walkthroughs;
