//! Durable queues.
//!
//! Events are kept in memory until they are durable, and a bounded tail of them afterwards, since the reader is
//! normally right behind. On disk a row holds many events, so that removing them costs little.

mod check;
mod log;
mod rows;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;

pub use self::check::QueueReport;
pub(crate) use self::check::report;
pub(crate) use self::rows::{CHUNKS, QueueBatch, REMOVED};
use self::{
    log::{Log, Place},
    rows::{Stored, Wanted},
};
use crate::{
    StorageError,
    commit::{CommitError, ended},
    core::{Core, EPOCH_SHIFT, Open, unavailable},
    error::guarded,
    limits::EVENT_BYTES,
    names::Kind,
};

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
    /// The disk failed or the store is closed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<CommitError> for QueueError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Unavailable(reason) => Self::Unavailable(reason),
            CommitError::Storage(error) => Self::Storage(error),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A durable first-in first-out queue of events. A clone is the same queue.
#[derive(Clone, Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    open: Arc<Open>,
}

#[derive(Debug)]
struct Shared {
    queue: u32,
    capacity: u64,
    log: Mutex<Log>,
    news: watch::Sender<News>,
}

/// What waiting readers want to know.
#[derive(Clone, Copy, Debug)]
struct News {
    /// The last event on disk.
    durable: u64,
    /// Whether no more will come.
    ended: bool,
}

impl Queue {
    /// Opens a queue by name. The capacity of its first opening in a process stands.
    pub(crate) fn open(open: Arc<Open>, name: &str, capacity: u64) -> Result<Self, QueueError> {
        let core = &open.core;
        let queue = core.names.number(Kind::Queue, name).map_err(QueueError::Invalid)?;
        let shared = guarded(|| core.queues.shared(core, queue, capacity))?;
        Ok(Self { shared, open })
    }

    /// Appends an event while there is room and returns its sequence number; it is on disk within 50 ms. Never blocks.
    /// The last one may go past the capacity.
    pub fn append(&self, event: Vec<u8>) -> Result<u64, QueueError> {
        self.append_up_to(self.shared.capacity, event)
    }

    /// Appends an event whatever the capacity: one of something that began while there was room.
    pub fn append_anyway(&self, event: Vec<u8>) -> Result<u64, QueueError> {
        self.append_up_to(u64::MAX, event)
    }

    fn append_up_to(&self, capacity: u64, event: Vec<u8>) -> Result<u64, QueueError> {
        if event.len() > EVENT_BYTES {
            return Err(QueueError::TooLarge(format!("an event has at most {EVENT_BYTES} bytes")));
        }
        let core = &self.open.core;
        let event: Arc<[u8]> = event.into();
        let sequence = {
            let mut log = self.shared.log.lock();
            core.health.check()?;
            if log.bytes() >= capacity {
                return Err(QueueError::Full);
            }
            log.append(event)
        };
        core.inbox.touch();
        Ok(sequence)
    }

    /// Whether an event would be appended: the queue is under its capacity, and the store takes writes.
    pub fn has_room(&self) -> bool {
        self.open.core.health.check().is_ok() && self.shared.log.lock().bytes() < self.shared.capacity
    }

    /// Sequence of the last event that is on disk; 0: none ever was, as far as the queue still knows.
    pub fn watermark(&self) -> u64 {
        self.shared.log.lock().durable()
    }

    /// Durable events after a sequence, in order; at least one if there is any, then as `max_bytes` allows.
    pub async fn read(
        &self,
        after: u64,
        max_items: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, QueueError> {
        let wanted = Wanted { after, items: max_items, bytes: max_bytes };
        let place = self.shared.log.lock().read(wanted);
        match place {
            Place::Memory(events) if events.is_empty() => {
                self.open.core.health.check()?;
                Ok(events)
            }
            Place::Memory(events) => Ok(events),
            Place::Disk { first, through, after } => {
                let core = Arc::clone(&self.open.core);
                let queue = self.shared.queue;
                let read = move || {
                    let transaction = core.begin_read()?;
                    rows::read(&transaction, queue, first, through, Wanted { after, ..wanted })
                        .map_err(unavailable)
                };
                Ok(tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(ended(&error)))?)
            }
        }
    }

    /// Returns when there is a durable event after `after`, or when the store takes no more.
    pub async fn wait(&self, after: u64) {
        let mut news = self.shared.news.subscribe();
        let after = after.max(self.shared.log.lock().removed());
        // An error says that the sender is gone, and it lives in `self`.
        let _ = news.wait_for(|news| news.durable > after || news.ended).await;
    }

    /// Forgets the durable events up to a sequence; a crash may bring back those of the last 50 ms.
    pub fn remove_through(&self, sequence: u64) {
        self.shared.log.lock().remove_through(sequence);
        self.open.core.inbox.touch();
    }

    /// Bytes of the events not removed yet, with a little overhead for each.
    pub fn bytes(&self) -> u64 {
        self.shared.log.lock().bytes()
    }
}

/// All open queues of a store.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    open: Mutex<HashMap<u32, Arc<Shared>>>,
}

impl Queues {
    fn shared(&self, core: &Core, queue: u32, capacity: u64) -> Result<Arc<Shared>, CommitError> {
        let mut open = self.open.lock();
        if let Some(shared) = open.get(&queue) {
            return Ok(Arc::clone(shared));
        }
        let stored = Stored::load(&core.begin_read()?, queue).map_err(unavailable)?;
        let log = Log::new(queue, (core.epoch << EPOCH_SHIFT) + 1, stored);
        let news = watch::Sender::new(News { durable: log.durable(), ended: false });
        let shared = Arc::new(Shared { queue, capacity, log: Mutex::new(log), news });
        open.insert(queue, Arc::clone(&shared));
        Ok(shared)
    }

    fn all(&self) -> Vec<Arc<Shared>> {
        self.open.lock().values().cloned().collect()
    }

    /// For the committer: what is not on disk yet.
    pub(crate) fn collect(&self) -> Vec<QueueBatch> {
        self.all().iter().filter_map(|shared| shared.log.lock().collect()).collect()
    }

    /// For the committer: the batches are on disk. True: there is more to remove.
    pub(crate) fn committed(&self, batches: Vec<QueueBatch>) -> bool {
        let mut more = false;
        for batch in batches {
            let shared = self.open.lock().get(&batch.queue).cloned();
            let Some(shared) = shared else { continue };
            let durable = {
                let mut log = shared.log.lock();
                more |= log.committed(&batch);
                log.durable()
            };
            shared.news.send_modify(|news| news.durable = durable);
        }
        more
    }

    /// For the committer: nothing comes any more.
    pub(crate) fn end(&self) {
        for shared in self.all() {
            shared.news.send_modify(|news| news.ended = true);
        }
    }
}
