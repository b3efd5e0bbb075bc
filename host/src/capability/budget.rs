//! What one call of a guest may have the host do.

use std::time::{Duration, Instant};

use crate::plugin::limits;

/// What is left for one call of a guest.
#[derive(Debug)]
pub(crate) struct Budget {
    deadline: Instant,
    calls: u32,
    bytes: usize,
}

impl Budget {
    /// A full budget until the deadline.
    pub(crate) fn until(deadline: Instant) -> Budget {
        Budget { deadline, calls: limits::HOST_CALLS, bytes: limits::HOST_BYTES }
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Time left; zero when there is none.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Takes one host call with so many bytes from the guest; the error says which limit is over.
    pub(crate) fn call(&mut self, bytes: usize) -> Result<(), String> {
        let Some(calls) = self.calls.checked_sub(1) else {
            return Err(format!("one call may make {} host calls", limits::HOST_CALLS));
        };
        self.calls = calls;
        self.answer(bytes)
    }

    /// Takes bytes that the host is about to answer.
    pub(crate) fn answer(&mut self, bytes: usize) -> Result<(), String> {
        let Some(left) = self.bytes.checked_sub(bytes) else {
            return Err(format!("one call may move {} bytes through host calls", limits::HOST_BYTES));
        };
        self.bytes = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_by_calls_and_by_bytes() {
        let mut budget = Budget::until(Instant::now());
        assert!(budget.call(limits::HOST_BYTES).is_ok());
        assert!(budget.answer(1).unwrap_err().contains("bytes"));
        budget.calls = 1;
        budget.bytes = 1;
        assert!(budget.call(0).is_ok());
        assert!(budget.call(0).unwrap_err().contains("host calls"));
        assert_eq!(budget.time_left(), Duration::ZERO);
    }
}
