//! The open databases of a store.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use redb::ReadTransaction;

use super::{
    Database, SqlError,
    database::Inner,
    limits::{DATABASES, NAME_BYTES},
    pages::{self, PageBatch},
    vfs::{Committer, Shared},
};
use crate::{
    CommitError,
    commit::Change,
    core::{Core, Open},
    error::guarded,
};

/// The open databases of a store, by name. They hold what `Open` holds, so that must not hold this.
#[derive(Default)]
pub(crate) struct Databases(Mutex<State>);

#[derive(Default)]
struct State {
    open: BTreeMap<Arc<str>, (u32, Arc<Inner>)>,
    closed: bool,
}

impl Databases {
    /// A handle with full access. Its database keeps the store open.
    pub(crate) fn open(&self, store: &Arc<Open>, name: &str) -> Result<Database, SqlError> {
        self.open_on(store.core.clone(), Some(store.clone()), name)
    }

    pub(super) fn open_on(
        &self,
        committer: Arc<dyn Committer>,
        store: Option<Arc<Open>>,
        name: &str,
    ) -> Result<Database, SqlError> {
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(SqlError::Invalid(format!("a database's name has 1 to {NAME_BYTES} bytes")));
        }
        let mut state = self.0.lock();
        if state.closed {
            return Err(SqlError::closing());
        }
        let stored = guarded(|| stored_names(&*committer))?;
        let free = stored.values().copied().chain(state.open.values().map(|(id, _)| *id)).max();
        let full = state.open.len() >= DATABASES;
        match state.open.entry(name.into()) {
            Entry::Occupied(open) => Ok(open.get().1.handle()),
            Entry::Vacant(_) if full => {
                Err(SqlError::TooLarge(format!("a store has at most {DATABASES} databases")))
            }
            Entry::Vacant(vacant) => {
                let id = stored.get(name).copied();
                let registered = id.is_some();
                let id = id.unwrap_or_else(|| free.map_or(0, |id| id + 1));
                let shared = Shared::new(id, name.into(), registered, committer);
                let inner = Arc::new(Inner::open(name.into(), shared, store)?);
                Ok(vacant.insert((id, inner)).1.handle())
            }
        }
    }

    /// Lets the writers finish what waits and ends them; afterwards every call is unavailable. Before the committer ends.
    pub(crate) async fn close(&self) {
        let open = {
            let mut state = self.0.lock();
            state.closed = true;
            std::mem::take(&mut state.open)
        };
        for (_, inner) in open.into_values() {
            inner.close().await;
        }
    }
}

impl Committer for Core {
    fn begin_read(&self) -> Result<ReadTransaction, CommitError> {
        Core::begin_read(self)
    }

    fn commit(&self, pages: Option<PageBatch>, companions: Vec<Change>) -> Result<(), CommitError> {
        self.submit(pages.map(Change::Pages).into_iter().chain(companions).collect()).wait()
    }

    fn down(&self) -> Option<CommitError> {
        self.health.check().err()
    }
}

fn stored_names(committer: &dyn Committer) -> Result<BTreeMap<String, u32>, SqlError> {
    let transaction = committer.begin_read()?;
    pages::names(&transaction).map_err(|error| SqlError::Storage(error.into()))
}
