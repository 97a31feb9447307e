//! Configuration: the file, the environment over it, what they mean, and what is wrong with them.
//!
//! Strings become values here and nowhere else; each component gets plain data. Unknown keys are refused; every error names the file, the
//! line, the key and the remedy.

mod auth;
mod clients;
mod diagnose;
mod environment;
mod file;
mod limits;
mod oidc;
mod remotes;
mod resolve;
mod server;
mod syncs;
mod units;
mod virtuals;

pub use diagnose::ConfigError;
pub use resolve::{Bind, Resolved, load};
pub use units::{parse_size, parse_span};

/// The configuration that is used where no file names another: the shipped `mirror.toml`.
pub const BUILT_IN: &str = include_str!("../../mirror.toml");

#[cfg(test)]
mod tests;
