//! Artifactory's API, as far as it is there (PROTOCOL E).

mod promote;
