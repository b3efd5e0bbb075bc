//! Whether a store still takes writes.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use crate::{StorageError, commit::CommitError};

/// Goes down once: closed, or by an error of the storage. Whoever takes a write checks it under the lock that the
/// committer takes when it collects, so that nothing is taken after the last collection.
#[derive(Debug, Default)]
pub(crate) struct Health {
    down: AtomicBool,
    poison: OnceLock<CommitError>,
}

impl Health {
    /// An error, once the store is down.
    pub(crate) fn check(&self) -> Result<(), CommitError> {
        if self.down.load(Ordering::SeqCst) { Err(self.reason()) } else { Ok(()) }
    }

    pub(crate) fn close(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn poison(&self, error: &CommitError) {
        if self.poison.set(error.clone()).is_ok() {
            tracing::error!(%error, "the store takes no more writes");
        }
        self.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn poisoned(&self) -> Option<&CommitError> {
        self.poison.get()
    }

    /// What to answer when the store is down.
    pub(crate) fn reason(&self) -> CommitError {
        self.poison.get().cloned().unwrap_or(CommitError::Storage(StorageError::Closed))
    }
}
