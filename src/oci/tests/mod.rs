//! Tests of the vocabulary: tables of what the specifications and hostile peers send, and properties over arbitrary input.

mod digest;
mod error_code;
mod media_type;
mod name;
mod oracle;
mod tag;
