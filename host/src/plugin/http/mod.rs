//! Plugins that answer HTTP requests under a route: components that export `wasi:http/incoming-handler@0.2`; and the requests
//! that plugins send.
//!
//! Each request has an instance of its own, as such components expect, which runs beside the connection in a task. Request and
//! answer stream through it. Whatever goes wrong ends that task: the guest sees nothing of it.

mod address;
mod answer;
mod held;
mod incoming;
mod mounts;
mod outgoing;
mod sender;
mod unanswered;

pub use answer::Answer;
pub(crate) use held::add_to_linker;
pub(crate) use incoming::{Answering, Asked};
pub use mounts::{Mount, Mounts};
pub(crate) use outgoing::Exchange;
pub(crate) use sender::Sender;
pub use unanswered::Unanswered;

#[cfg(test)]
mod tests;
