//! The gateway as a client and an upstream see it.

mod aborted;
mod aliased;
mod anthropic;
mod asked;
mod bad_input;
mod demo;
mod forwarded;
mod gemini;
mod kept;
mod permitted;
mod probed;
mod queued;
mod retried;
mod sticky;
mod streams;
mod support;
mod truth;
