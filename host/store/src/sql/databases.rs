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
    files::Files,
    limits::{DATABASES, NAME_BYTES},
    pages::{self, PageBatch},
    vfs::{Committer, Shared},
};
use crate::{
    CommitError,
    commit::Change,
    core::{Core, Open, unavailable},
    error::guarded,
};

/// The open databases of a store, by name. They hold what `Open` holds, so that must not hold this.
#[derive(Default)]
pub(crate) struct Databases(Mutex<State>);

#[derive(Default)]
struct State {
    open: BTreeMap<Arc<str>, Arc<Inner>>,
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
        let (stored, highest) = guarded(|| stored_files(&*committer))?;
        let full = state.open.len() >= DATABASES;
        match state.open.entry(name.into()) {
            Entry::Occupied(open) => Ok(open.get().handle()),
            Entry::Vacant(_) if full => {
                Err(SqlError::TooLarge(format!("a store has at most {DATABASES} databases")))
            }
            Entry::Vacant(vacant) => {
                let id = stored.get(name).copied();
                let files = committer.files();
                let file = id.map_or_else(|| files.create(highest), |id| Some(files.hold(id)));
                let file = Arc::new(file.ok_or_else(SqlError::no_more_files)?);
                let shared = Shared::new(file, name.into(), id.is_some(), committer);
                let inner = Arc::new(Inner::open(name.into(), shared, store)?);
                Ok(vacant.insert(inner).handle())
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
        for inner in open.into_values() {
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

    fn files(&self) -> &Arc<Files> {
        &self.files
    }
}

/// The files of the databases by name, and the highest of all files.
fn stored_files(committer: &dyn Committer) -> Result<(BTreeMap<String, u32>, Option<u32>), SqlError> {
    let transaction = committer.begin_read()?;
    let names = pages::names(&transaction).map_err(unavailable)?;
    Ok((names, pages::highest(&transaction).map_err(unavailable)?))
}
