//! The vocabulary of registries, parsed once.
//!
//! Pure: no I/O, no clock, no async runtime. Every type here keeps its fields private and can only be made by parsing, so code
//! that holds a [`Digest`] or a [`Name`] needs no second check before it builds a path, a URL or a cache key from it.
//! Sources: OCI distribution-spec 1.1, OCI image-spec 1.1, Docker Registry HTTP API V2.

pub mod accept;
pub mod ant;
pub mod descriptor;
pub mod digest;
pub mod error_code;
mod hash;
mod json;
pub mod labels;
pub mod link;
pub mod manifest;
pub mod media_type;
pub mod name;
pub mod page;
pub mod path;
pub mod platform;
pub mod range;
pub mod reference;
pub mod referrers;
pub mod tag;
#[cfg(test)]
mod tests;

pub use accept::Accept;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest};
pub use error_code::ErrorCode;
pub use hash::Hasher;
pub use json::Malformed;
pub use manifest::{EdgeKind, Manifest, ManifestError};
pub use media_type::{ManifestKind, MediaType};
pub use name::Name;
pub use platform::Platform;
pub use reference::Reference;
pub use tag::Tag;
