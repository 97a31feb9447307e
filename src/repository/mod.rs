//! Repositories: their keys, what is configured, which one a request means, and what both kinds have in common.
//!
//! What a request means is decided from definitions alone (`definitions`, `resolve`), without looking anything up.

mod definitions;
mod image;
mod key;
mod resolve;

pub use definitions::{Definition, Definitions, canonical_host};
pub use image::Repository;
pub use key::{Key, KeyError};
pub use resolve::{Ask, Chosen, Target, Unresolved, choose, resolve, split_prefix};

/// Why a repository did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A remote.
    #[error(transparent)]
    Remote(#[from] crate::cache::Error),
    /// A local repository.
    #[error(transparent)]
    Local(#[from] crate::overlay::Error),
}

#[cfg(test)]
mod tests;
