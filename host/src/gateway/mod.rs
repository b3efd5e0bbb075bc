//! Proxies requests: authenticate, read, pick, admit, forward, settle, record.
//!
//! [`proxy`] is the way of a request; everything a request holds (leases, place on an account, the row to be logged)
//! hangs on its [`flight`], which ends exactly once, whatever happens. Nothing here waits for a disk.

mod account;
mod accounts;
mod begun;
mod cause;
mod coding;
mod connection;
pub mod demo;
mod dial;
pub mod dialect;
mod elements;
mod error;
mod flight;
mod forward;
mod forward_proxy;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod health;
mod host;
mod limited;
pub mod limits;
mod lines;
mod metrics;
mod models;
mod mounted;
mod permission;
mod place;
mod prices;
mod proxy;
mod queue;
mod refusal;
mod renamed;
mod request;
mod route;
mod routes;
mod scanner;
mod serve;
mod sessions;
mod stream;
#[cfg(test)]
mod tests;
mod trace;
mod unasked;
mod unread;
mod usage;

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use tollgate_store::Clock;

pub use account::{Account, AccountError, AccountSpec, check_base_url, check_credential};
pub use accounts::{Accounts, Prepared, Strategy};
pub use dialect::Dialect;
pub use forward_proxy::{ForwardProxy, check_proxy_credential, check_proxy_url};
pub use prices::{Price, Prices};
pub use serve::{Peer, serve};
pub(crate) use unread::discard_unread;

use crate::{
    keys::Keys,
    plugin::{Admissions, EventQueue, Mounts},
    telemetry::Tracer,
};

/// What a gateway is made of.
pub struct Parts {
    /// The clients' keys.
    pub keys: Keys,
    /// The upstream accounts.
    pub accounts: Accounts,
    /// The policies.
    pub admissions: Admissions,
    /// The plugins that answer requests themselves.
    pub mounts: Mounts,
    /// Where each request is recorded.
    pub events: EventQueue,
    /// What models cost.
    pub prices: Prices,
    /// Sizes and times.
    pub settings: Settings,
    /// The time of day.
    pub clock: Clock,
    /// What takes the traces of requests.
    pub tracer: Tracer,
}

/// Sizes and times that an operator can set; the defaults stand in [`limits`] with their reasons.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Time for a whole request body.
    pub body_timeout: Duration,
    /// Time to reach an upstream.
    pub connect_timeout: Duration,
    /// Time to the head of a streamed answer.
    pub first_byte_timeout: Duration,
    /// Time to the head of a plain answer.
    pub answer_timeout: Duration,
    /// Longest silence of an upstream in mid-answer.
    pub idle_timeout: Duration,
    /// Longest time that a client may leave an answer unread.
    pub stall_timeout: Duration,
    /// Longest time from arrival to the last byte.
    pub total_timeout: Duration,
    /// Requests that may wait for a place on an account, when all are full.
    pub queue_requests: usize,
    /// How long they wait.
    pub queue_timeout: Duration,
    /// How an account is chosen among those of one priority.
    pub strategy: Strategy,
    /// Whether a session stays on its account.
    pub sticky_sessions: bool,
    /// How often accounts are asked whether they answer; none: never.
    pub health_interval: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            body_bytes: limits::BODY_BYTES,
            body_timeout: limits::BODY_TIMEOUT,
            connect_timeout: limits::CONNECT_TIMEOUT,
            first_byte_timeout: limits::FIRST_BYTE_TIMEOUT,
            answer_timeout: limits::ANSWER_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            stall_timeout: limits::STALL_TIMEOUT,
            total_timeout: limits::TOTAL_TIMEOUT,
            queue_requests: limits::QUEUE_REQUESTS,
            queue_timeout: limits::QUEUE_TIMEOUT,
            strategy: Strategy::LeastLatency,
            sticky_sessions: true,
            health_interval: None,
        }
    }
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<proxy::Inner>);

impl Gateway {
    /// Puts a gateway together. Needs a tokio runtime, in which it looks after running requests, and the metrics
    /// recorder to be installed before.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn new(parts: Parts) -> io::Result<Gateway> {
        let inner = proxy::Inner::new(parts)?;
        tokio::spawn(health::look_after(Arc::downgrade(&inner)));
        Ok(Gateway(inner))
    }

    /// Its routes, with answers in a client's own shape for unknown paths and methods. Requests should carry their
    /// [`Peer`], as [`serve`] gives it to them.
    pub fn router(&self) -> Router {
        routes::router(self.0.clone())
    }

    /// Changes what models cost, for requests that come from now on.
    pub fn reprice(&self, prices: Prices) {
        self.0.prices.store(Arc::new(prices));
    }

    /// Changes sizes and times for requests that come from now on; limits of time on answers change for those under way too.
    pub fn reconfigure(&self, settings: Settings) {
        self.0.accounts.set_connect_timeout(settings.connect_timeout);
        self.0.settings.store(Arc::new(settings));
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.0.flights.len()
    }
}
