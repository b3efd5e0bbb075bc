//! Loads, limits, pools and swaps components.

pub mod ingest;
pub mod jobs;
pub mod registry;

pub use ingest::{EventQueue, EventRecord};
pub use registry::{Pushed, Refusal, Registry};
