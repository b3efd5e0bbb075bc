//! The store from outside.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails fast, its helpers too"
)]

mod blob;
mod cache;
mod campaign;
mod compact;
mod crash;
mod disk;
mod engines;
mod expiry;
mod faults;
mod joint;
mod kv;
mod model;
mod power;
mod queue;
mod races;
mod report;
mod size;
mod sql;
mod support;
mod transaction_model;
mod transactions;
mod vector;
