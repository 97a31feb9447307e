//! Artifactory's API, as far as it is there (PROTOCOL E).

mod delete;
mod path;
mod promote;
mod search;
mod storage;
