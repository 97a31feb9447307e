//! Repositories: their keys, what is configured, and which one a request means.
//!
//! Pure for now: remotes only, decided from definitions alone. Nothing here looks anything up.

mod definitions;
mod key;
mod resolve;

pub use definitions::{Definition, Definitions, canonical_host};
pub use key::{Key, KeyError};
pub use resolve::{Ask, Target, Unresolved, resolve, split_prefix};

#[cfg(test)]
mod tests;
