//! What the parts of an open store share.

use crate::commit::{Ack, Change, CommitError};

/// The heart of an open store: the redb file, the committer's inbox, the overlay. Shared as `Arc<Core>`.
pub(crate) struct Core {}

impl Core {
    /// Hands changes to the committer, as one message that becomes durable whole or not at all. Never blocks.
    /// Await the answer, or `wait` for it on a blocking thread.
    pub(crate) fn submit(&self, _changes: Vec<Change>) -> Ack {
        todo!()
    }

    /// A snapshot of everything durable. Blocks shortly (while a joint commit is published).
    pub(crate) fn begin_read(&self) -> Result<redb::ReadTransaction, CommitError> {
        todo!()
    }

    /// Next version or sequence: unique over all restarts of this store.
    pub(crate) fn next_version(&self) -> u64 {
        todo!()
    }

    /// The time, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        todo!()
    }

    /// The reason why nothing is written any more, if so.
    pub(crate) fn down(&self) -> Option<CommitError> {
        todo!()
    }
}
