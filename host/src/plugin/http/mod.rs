//! Plugins that answer HTTP requests under a route: components that export `wasi:http/incoming-handler@0.2`.
//!
//! Each request has an instance of its own, as such components expect, which runs beside the connection in a task. Request and
//! answer stream through it. Whatever goes wrong ends that task: the guest sees nothing of it.

mod answer;
mod incoming;
mod mounts;
mod outgoing;

pub use answer::Answer;
pub(crate) use incoming::{Answering, Asked};
pub use mounts::{Mount, Mounts, Unanswered};
pub(crate) use outgoing::Exchange;

#[cfg(test)]
mod tests;
