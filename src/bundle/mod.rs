//! Bundles: images on their way across an air gap, as files that somebody carries.

pub mod archive;
