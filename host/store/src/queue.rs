//! Durable queues.

use thiserror::Error;

/// Why a call failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QueueError {
    /// The queue holds as many bytes as it may.
    #[error("the queue is full")]
    Full,
    /// One event is over its limit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The call itself is wrong.
    #[error("invalid: {0}")]
    Invalid(String),
    /// The store cannot answer now.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// A durable first-in first-out queue of events. A clone is the same queue.
#[derive(Clone, Debug)]
pub struct Queue {}

impl Queue {
    /// Appends an event and returns its sequence number; it is on disk within 50 ms. Never blocks.
    pub fn append(&self, _event: Vec<u8>) -> Result<u64, QueueError> {
        todo!()
    }

    /// Whether the queue is under its capacity.
    pub fn has_room(&self) -> bool {
        todo!()
    }

    /// Sequence of the last event that is on disk; 0: none ever was, as far as the queue still knows.
    pub fn watermark(&self) -> u64 {
        todo!()
    }

    /// Durable events after a sequence, in order; at least one if there is any, then as `max_bytes` allows.
    pub async fn read(
        &self,
        _after: u64,
        _max_items: usize,
        _max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, QueueError> {
        todo!()
    }

    /// Returns when there is a durable event after `after`, or when the store takes no more.
    pub async fn wait(&self, _after: u64) {
        todo!()
    }

    /// Forgets the durable events up to a sequence; a crash may bring back those of the last 50 ms.
    pub fn remove_through(&self, _sequence: u64) {
        todo!()
    }

    /// Bytes of the events not removed yet, with a little overhead for each.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
}
