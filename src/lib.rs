//! Roadstead: a pull-through caching mirror proxy for container registries.

pub mod body;
pub mod clock;
pub mod config;
pub mod oci;
pub mod secret;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
