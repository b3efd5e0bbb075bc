//! End-to-end tests: the real binary, real components, real clients.
//!
//! Each module shows one promise through the public doors: HTTP, the command line, a component that is pushed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should stop where it stands"
)]
#![allow(unreachable_pub, missing_docs, reason = "a test binary has no API")]

mod accounting;
mod accounts;
mod architecture;
mod author;
mod bad_input;
mod blob;
mod blobstore;
mod cache;
mod canary;
mod causes;
mod chaos;
mod cli;
mod configured;
mod crash;
mod data;
mod dialects;
mod drain;
mod engines;
mod hostile;
mod http;
mod keys;
mod languages;
mod logs;
mod metrics;
mod migration;
mod pool;
mod portability;
mod prebuilt;
mod proxy;
mod quota;
mod readme;
mod recording;
mod reload;
mod sdk;
mod signed;
mod sql;
mod stalled;
mod storage;
mod streams;
mod support;
mod swap;
mod sync;
mod telemetry;
mod vector;
