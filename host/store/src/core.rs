//! What the parts of an open store share.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadTransaction, ReadableDatabase};

use crate::{
    Acknowledge, Clock, Stats,
    blob::{folder::Folder, lease::Leases},
    commit::{Ack, Change, CommitError},
    health::Health,
    inbox::Inbox,
    kv::{key::Keys, presence::Presences, size::Sizes},
    names::Names,
    overlay::Overlay,
    queue::Queues,
    sql::files::Files,
    vector::open::Indexes,
};

/// The heart of an open store, shared as `Arc<Core>`. It does not keep the committer running; `Open` does.
pub(crate) struct Core {
    /// The file; none for a storage in its place.
    pub(crate) path: Option<PathBuf>,
    /// None once the committer has ended.
    pub(crate) database: RwLock<Option<Database>>,
    /// Held alone from a joint commit until its kv writes are visible, so that no snapshot shows half of it.
    pub(crate) visible: RwLock<()>,
    pub(crate) health: Arc<Health>,
    pub(crate) inbox: Inbox,
    pub(crate) overlay: Overlay,
    pub(crate) keys: Keys,
    pub(crate) presences: Presences,
    pub(crate) sizes: Sizes,
    pub(crate) names: Names,
    pub(crate) queues: Queues,
    pub(crate) leases: Arc<Leases>,
    /// Of contents that are files.
    pub(crate) folder: Option<Arc<Folder>>,
    pub(crate) files: Arc<Files>,
    pub(crate) indexes: Indexes,
    pub(crate) figures: Mutex<Stats>,
    pub(crate) two_phase: bool,
    pub(crate) clock: Clock,
    pub(crate) epoch: u64,
    pub(crate) versions: AtomicU64,
}

/// Bits of a version or sequence below the epoch: a trillion for each opening of the store.
pub(crate) const EPOCH_SHIFT: u32 = 40;

impl Core {
    /// Hands changes to the committer, as one message that becomes durable whole or not at all, with everything that
    /// was written to the overlay before. Never blocks. Await the answer, or `wait` for it on a blocking thread.
    pub(crate) fn submit(&self, changes: Vec<Change>) -> Ack {
        self.inbox.submit(changes)
    }

    /// Waits until the overlay takes more.
    pub(crate) async fn room(&self) -> Result<(), CommitError> {
        while self.overlay.is_full() {
            self.submit(Vec::new()).await?;
        }
        Ok(())
    }

    /// Waits for the disk with what was written to the overlay, if so asked.
    pub(crate) async fn acknowledge(&self, when: Acknowledge) -> Result<(), CommitError> {
        match when {
            Acknowledge::Durable => self.submit(Vec::new()).await,
            Acknowledge::Relaxed => {
                self.inbox.touch();
                Ok(())
            }
        }
    }

    /// A snapshot of everything durable. For blocking threads: it waits while a joint commit is being published.
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, CommitError> {
        let _visible = self.visible.read();
        match &*self.database.read() {
            Some(database) => database.begin_read().map_err(unavailable),
            None => Err(self.health.reason()),
        }
    }

    /// Refuses once the committer has ended: what a snapshot would still read is no longer kept.
    pub(crate) fn check_readable(&self) -> Result<(), CommitError> {
        if self.database.read().is_some() { Ok(()) } else { Err(self.health.reason()) }
    }

    /// The next version: unique over all restarts of this store.
    pub(crate) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed)
    }

    /// The time, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            overlay_bytes: self.overlay.bytes() as u64,
            cache_bytes: self.overlay.clean_bytes(),
            waiting_bytes: self.inbox.bytes() as u64,
            poisoned: self.health.poisoned().is_some(),
            ..*self.figures.lock()
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Core").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// An error of the storage, as whoever waits for it sees it.
pub(crate) fn unavailable(error: impl Into<redb::Error>) -> CommitError {
    CommitError::Storage(error.into().into())
}

/// Keeps the committer running; its last handle stops it, after it wrote what waits.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) core: Arc<Core>,
    pub(crate) committer: Option<JoinHandle<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.core.health.close();
        drop(self.core.inbox.stop());
        if self.committer.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer panicked");
        }
    }
}
