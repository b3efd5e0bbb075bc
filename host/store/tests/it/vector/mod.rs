//! Vector indexes from outside.

mod crash;
mod faults;
mod hostile;
mod joint;
mod model;
mod queries;
mod races;
pub(crate) mod support;
