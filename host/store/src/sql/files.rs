//! Database files by number: which are in use, and which nobody needs any more.
//!
//! A file that no database has stands in the table of leftovers from its first page on, and one that was replaced from the
//! moment it is. So whatever a crash interrupts, the committer finds what is to be removed.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use redb::WriteTransaction;

use super::{
    limits::{LEFTOVER_CHUNKS, LEFTOVERS_EVERY, LEFTOVERS_SOON},
    pages,
};
use crate::{
    commit::CommitError,
    core::{Core, unavailable},
};

/// The files of an open store.
#[derive(Debug)]
pub(crate) struct Files {
    state: Mutex<State>,
    /// Whether there may be leftovers that nobody holds.
    look: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// File to the number of its holders.
    held: HashMap<u32, usize>,
    /// No file has this number or a higher one.
    next: u32,
}

/// A file that is not removed as long as this lives.
#[derive(Debug)]
pub(crate) struct File {
    id: u32,
    files: Arc<Files>,
}

impl Default for Files {
    fn default() -> Self {
        // A crash may have left something.
        Self { state: Mutex::default(), look: AtomicBool::new(true) }
    }
}

impl Files {
    /// A file that is there.
    pub(super) fn hold(self: &Arc<Self>, id: u32) -> File {
        let mut state = self.state.lock();
        state.next = state.next.max(id.saturating_add(1));
        *state.held.entry(id).or_default() += 1;
        File { id, files: Arc::clone(self) }
    }

    /// A file with a new number; `stored` is the highest on disk. None: the numbers are used up.
    pub(super) fn create(self: &Arc<Self>, stored: Option<u32>) -> Option<File> {
        let mut state = self.state.lock();
        let id = stored.map_or(Some(0), |id| id.checked_add(1))?.max(state.next);
        state.next = id.checked_add(1)?;
        state.held.insert(id, 1);
        Some(File { id, files: Arc::clone(self) })
    }

    fn is_held(&self, id: u32) -> bool {
        self.state.lock().held.contains_key(&id)
    }
}

impl File {
    pub(super) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Entry::Occupied(mut holders) = self.files.state.lock().held.entry(self.id) {
            *holders.get_mut() -= 1;
            if *holders.get() == 0 {
                holders.remove();
                self.files.look.store(true, Ordering::Release);
            }
        }
    }
}

/// The committer's own: removes leftovers in small steps.
#[derive(Debug)]
pub(crate) struct Remover {
    due: Instant,
}

/// A leftover of which the next commit takes some chunks.
#[derive(Debug, Default)]
pub(crate) struct Leftover(Option<u32>);

impl Remover {
    pub(crate) fn new() -> Self {
        Self { due: Instant::now() }
    }

    /// When the next step is to be made.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// What to remove, when it is time.
    pub(crate) fn step(&mut self, core: &Core) -> Result<Leftover, CommitError> {
        if Instant::now() < self.due {
            return Ok(Leftover::default());
        }
        // Reset before it looks, so that what is let go meanwhile is found the next time.
        let found = if core.files.look.swap(false, Ordering::AcqRel) { free(core)? } else { None };
        if found.is_some() {
            core.files.look.store(true, Ordering::Release);
        }
        self.due = Instant::now() + if found.is_some() { LEFTOVERS_SOON } else { LEFTOVERS_EVERY };
        Ok(Leftover(found))
    }
}

/// A leftover that nobody holds. Nobody can hold it any more: files are held from their creation or from a database on.
fn free(core: &Core) -> Result<Option<u32>, CommitError> {
    use redb::ReadableDatabase;
    let transaction = {
        let database = core.database.read();
        database.as_ref().ok_or_else(|| core.health.reason())?.begin_read().map_err(unavailable)?
    };
    let leftovers = pages::leftovers(&transaction).map_err(|error| CommitError::Storage(error.into()))?;
    Ok(leftovers.into_iter().find(|id| !core.files.is_held(*id)))
}

impl Leftover {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Removes chunks, in the committer's transaction.
    pub(crate) fn remove(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        self.0.map_or(Ok(()), |id| pages::remove_some(transaction, id, LEFTOVER_CHUNKS))
    }
}
