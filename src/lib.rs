//! Roadstead: a pull-through caching mirror proxy for container registries.
//!
//! The life of a request: [`server`] accepts it, [`api`] finds out what it means, [`repository`] which repository and image that is,
//! [`cache`] answers from the [`store`] or fetches by [`upstream`], [`overlay`] keeps what is pushed, and [`api`] writes the answer and one log line. [`oci`] is the
//! vocabulary of all of them; [`config`], [`app`] and [`cli`] put them together.

pub mod address;
pub mod api;
pub mod app;
pub mod audit;
pub mod auth;
pub mod bandwidth;
pub mod body;
pub mod bundle;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
pub mod diagnosis;
pub mod globs;
pub mod limits;
pub mod oci;
pub mod overlay;
pub mod recent;
pub mod repository;
pub mod secret;
pub mod server;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
