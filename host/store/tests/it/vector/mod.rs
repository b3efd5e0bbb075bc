//! Vector indexes from outside.

mod crash;
mod faults;
mod graph;
mod hostile;
mod joint;
mod model;
mod queries;
mod races;
pub(crate) mod support;
