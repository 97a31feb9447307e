//! Tests of the vocabulary: tables of what the specifications and hostile peers send, and properties over arbitrary input.

mod accept;
mod ant;
mod descriptor;
mod digest;
mod error_code;
mod json;
mod link;
mod manifest;
mod manifest_hostile;
mod media_type;
mod name;
mod oracle;
mod page;
mod path;
mod platform;
mod range;
mod referrers;
mod tag;
