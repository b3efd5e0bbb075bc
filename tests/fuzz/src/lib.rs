//! What must hold for any input, one module for each fuzz target. `check` panics where it does not.
//!
//! The targets feed them what libFuzzer invents; the unit tests of the host replay what stands in `corpus/`.

pub mod component;
pub mod config;
pub mod events;
pub mod filters;
pub mod manifest;
pub mod parameters;
pub mod requests;
pub mod usage;

mod store;
