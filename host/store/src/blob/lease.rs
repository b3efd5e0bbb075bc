//! Who still needs a content that no object has.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::limits::UPLOADS_WAITING;

/// The leases of an open store. They live in memory: a crash ends all uploads and readers too.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Content to the number of its holders.
    held: Mutex<HashMap<u64, usize>>,
    /// One permit for each message of an upload that waits for the committer.
    pub(super) waiting: Arc<Semaphore>,
}

/// Keeps a content from being taken apart.
#[derive(Debug)]
pub(crate) struct Lease {
    content: u64,
    leases: Arc<Leases>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { held: Mutex::default(), waiting: Arc::new(Semaphore::new(UPLOADS_WAITING)) }
    }
}

impl Leases {
    pub(super) fn take(self: &Arc<Self>, content: u64) -> Lease {
        *self.held.lock().entry(content).or_default() += 1;
        Lease { content, leases: Arc::clone(self) }
    }

    pub(super) fn is_held(&self, content: u64) -> bool {
        self.held.lock().contains_key(&content)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Entry::Occupied(mut holders) = self.leases.held.lock().entry(self.content) {
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
            }
        }
    }
}
