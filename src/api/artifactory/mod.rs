//! Artifactory's API, as far as it is there (PROTOCOL E).

mod aql;
mod delete;
mod path;
mod promote;
mod repositories;
mod search;
mod storage;
pub(super) mod system;
