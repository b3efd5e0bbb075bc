//! Tollgate: an HTTP gateway whose rules are WebAssembly components.
//!
//! Data flows one way: request → [`gateway`] → [`plugin`] → [`capability`] → store. [`app`] is the only wiring.

pub mod accounting;
pub mod accounts;
pub mod admin;
mod api;
pub mod app;
pub mod build;
pub mod capability;
pub mod cases;
pub mod cli;
pub mod config;
pub mod data;
pub mod edge;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod keys;
pub mod limit_set;
mod merge_patch;
mod mint;
pub mod money;
pub mod pattern;
pub mod plugin;
pub mod project;
mod request_ids;
pub mod secret;
pub mod secrets;
pub mod telemetry;
mod tls;
pub mod tokens;

// The properties of the fuzz targets name this crate from outside; its tests take them in.
#[cfg(test)]
extern crate self as tollgate;
