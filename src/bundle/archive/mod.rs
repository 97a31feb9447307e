//! The format of bundles: what is in one, written to any writer and read from any reader.
//!
//! Knows nothing about the store or the command line, and never makes a path from a name that an archive gives. All of it blocks: callers run it
//! where blocking is allowed.
//! Sources: OCI image-spec 1.1 `image-layout.md`, POSIX.1-2017 `pax` ("ustar Interchange Format"), Docker Image Specification 1.2.
//!
//! The order in a bundle is `oci-layout`, `roadstead.json`, `roadstead.json.sig` if it is signed, `index.json`, then the blobs. Digests and
//! sizes are known before the first blob is read, so what is known comes first: whoever reads the stream checks the signature, the room on the disk
//! and what is missing before it takes a single blob, and each blob against a list that it already has.

mod compression;
pub mod contents;
mod directory;
mod docker;
mod entries;
mod header;
mod image_ref;
mod index;
mod ledger;
mod names;
pub mod outlook;
pub mod reader;
mod refusal;
pub mod signature;
#[cfg(test)]
mod tests;
mod unpacked;
pub mod volumes;
pub mod writer;

pub use compression::Compression;
pub use contents::{Contents, ContentsError};
pub use image_ref::{ImageRef, ImageRefError};
pub use index::{Listed, Malformed};
pub use ledger::{Found, Summary};
pub use reader::{Event, Reader};
pub use refusal::{ReadError, Refusal};
pub use signature::{SigningKey, SigningKeyError};
pub use unpacked::write_directory;
