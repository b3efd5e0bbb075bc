//! Blob containers from outside.

mod crash;
mod dedup;
mod faults;
mod files;
mod hostile;
mod joint;
mod list;
mod memory;
mod model;
mod objects;
mod races;
pub(crate) mod support;
