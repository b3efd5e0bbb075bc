//! Plugins that answer HTTP requests under a route: components that export `wasi:http/incoming-handler@0.2`; and the requests
//! that plugins send.
//!
//! Each request has an instance of its own, as such components expect, which runs beside the connection in a task. Request and
//! answer stream through it. Whatever goes wrong ends that task: the guest sees nothing of it.

mod address;
mod answer;
mod incoming;
mod mounts;
mod outgoing;
mod sender;

pub use answer::Answer;
pub(crate) use incoming::{Answering, Asked};
pub use mounts::{Mount, Mounts, Unanswered};
pub(crate) use outgoing::Exchange;
pub(crate) use sender::Sender;

#[cfg(test)]
mod tests;
