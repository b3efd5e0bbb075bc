//! What one call of a guest may have the host do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::plugin::limits;
use crate::plugin::{Limit, Tally};

/// What is left for one call of a guest.
pub(crate) struct Budget {
    left: Arc<Left>,
    deadline: Instant,
    most: Allowance,
}

/// The host calls and bytes that are left. Streams that a guest has open share it: they are read and written past the functions
/// that have the budget. An instance serves one call at a time, so that nobody takes from it at the same time.
pub(crate) struct Left {
    tally: Arc<Tally>,
    calls: AtomicU32,
    bytes: AtomicUsize,
}

/// What the host does for one call of a hook at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Host calls.
    pub(crate) calls: u32,
    /// Bytes that they move in all.
    pub(crate) bytes: usize,
    /// How long one SQL call may hold the writer of its database, or a reader.
    pub(crate) sql: Duration,
}

impl Allowance {
    /// For a call on the way of a request.
    pub(crate) const POLICY: Allowance = Allowance {
        calls: limits::POLICY_HOST_CALLS,
        bytes: limits::POLICY_HOST_BYTES,
        sql: limits::SQL_TURN,
    };
    /// For a call off it.
    pub(crate) const WORK: Allowance =
        Allowance { calls: limits::HOST_CALLS, bytes: limits::HOST_BYTES, sql: limits::SQL_TURN };
    /// For `init`, which an operator waits for.
    pub(crate) const INIT: Allowance = Allowance { sql: limits::INIT_SQL_TURN, ..Allowance::WORK };
}

impl Budget {
    /// A full budget until the deadline.
    pub(crate) fn new(tally: Arc<Tally>, most: Allowance, deadline: Instant) -> Budget {
        let (calls, bytes) = (AtomicU32::new(most.calls), AtomicUsize::new(most.bytes));
        Budget { left: Arc::new(Left { tally, calls, bytes }), deadline, most }
    }

    /// Counts what was used, and fills it up for the next call.
    pub(crate) fn refill(&mut self, most: Allowance, deadline: Instant) {
        self.count();
        (self.most, self.deadline) = (most, deadline);
        self.left.calls.store(most.calls, Relaxed);
        self.left.bytes.store(most.bytes, Relaxed);
    }

    /// Brings what was used to the metrics.
    pub(crate) fn count(&mut self) {
        let (calls, bytes) = (self.left.calls.load(Relaxed), self.left.bytes.load(Relaxed));
        if calls < self.most.calls {
            self.left.tally.used(self.most.calls - calls, self.most.bytes - bytes);
        }
        self.most = Allowance { calls, bytes, ..self.most };
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Time left; zero when there is none.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Bytes moved since the last count.
    pub(crate) fn bytes_moved(&self) -> usize {
        self.most.bytes - self.left.bytes.load(Relaxed)
    }

    /// How long one SQL call may run, waiting for its turn apart.
    pub(crate) fn sql_turn(&self) -> Duration {
        self.most.sql
    }

    /// For a stream that takes from this budget, and from that of each later call that it is open in.
    pub(crate) fn share(&self) -> Arc<Left> {
        self.left.clone()
    }

    /// Takes note of a limit that the guest has run into.
    pub(crate) fn hit(&self, limit: Limit) {
        self.left.hit(limit);
    }

    /// Takes one host call with so many bytes from the guest; the error says which limit is over.
    pub(crate) fn call(&mut self, bytes: usize) -> Result<(), String> {
        self.left.call(bytes)
    }

    /// Takes bytes that the host is about to answer.
    pub(crate) fn answer(&mut self, bytes: usize) -> Result<(), String> {
        self.left.answer(bytes)
    }
}

impl Left {
    /// As [`Budget::hit`].
    pub(crate) fn hit(&self, limit: Limit) {
        self.tally.hit(limit);
    }

    /// As [`Budget::call`].
    pub(crate) fn call(&self, bytes: usize) -> Result<(), String> {
        let Some(calls) = self.calls.load(Relaxed).checked_sub(1) else {
            self.tally.hit(Limit::HostCalls);
            return Err("the call has made all the host calls that it may make".to_owned());
        };
        self.calls.store(calls, Relaxed);
        self.answer(bytes)
    }

    /// As [`Budget::answer`].
    pub(crate) fn answer(&self, bytes: usize) -> Result<(), String> {
        let Some(left) = self.bytes.load(Relaxed).checked_sub(bytes) else {
            self.tally.hit(Limit::HostBytes);
            return Err("the call has moved all the bytes through host calls that it may move".to_owned());
        };
        self.bytes.store(left, Relaxed);
        Ok(())
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_by_calls_and_by_bytes() {
        let two = Allowance { calls: 2, bytes: 10, sql: Duration::ZERO };
        let mut budget = Budget::new(Arc::new(Tally::new("budget")), two, Instant::now());
        assert!(budget.call(10).is_ok());
        assert!(budget.answer(1).unwrap_err().contains("bytes"));
        assert!(budget.call(0).is_ok());
        assert!(budget.call(0).unwrap_err().contains("host calls"));
        assert_eq!(budget.time_left(), Duration::ZERO);
        budget.refill(two, Instant::now());
        let stream = budget.share();
        assert!(stream.call(10).is_ok());
        assert!(budget.answer(1).unwrap_err().contains("bytes"));
        budget.refill(two, Instant::now());
        assert!(stream.answer(10).is_ok());
        assert_eq!(budget.bytes_moved(), 10);
    }
}
