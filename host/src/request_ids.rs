//! Ids of requests, which their answers and log lines carry.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderName;

/// The header of an answer with the id of its request.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Ids that are unique over restarts, and cheap.
pub(crate) struct RequestIds {
    boot: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub(crate) fn new() -> io::Result<RequestIds> {
        Ok(RequestIds { boot: getrandom::u64().map_err(io::Error::other)?, next: AtomicU64::new(1) })
    }

    pub(crate) fn next(&self) -> String {
        format!("req_{:016x}{:08x}", self.boot, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
