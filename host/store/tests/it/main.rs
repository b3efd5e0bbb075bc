//! The store from outside.

mod crash;
mod expiry;
mod faults;
mod joint;
mod kv;
mod model;
mod queue;
mod races;
mod support;
