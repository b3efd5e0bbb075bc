//! What the tests share: the server under test, an upstream that does as it is told, an HTTP client.

pub mod client;
pub mod collector;
pub mod component;
pub mod guest;
pub mod proxy;
pub mod python;
pub mod server;
pub mod tls;
pub mod upstream;
pub mod wait;

pub use client::Client;
pub use collector::Collector;
pub use guest::Guest;
pub use server::{Server, Setup};
pub use upstream::{Behaviour, Upstream};
pub use wait::eventually;
