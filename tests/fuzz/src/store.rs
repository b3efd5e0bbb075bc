//! A store for the targets that ask one.

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tollgate_store::{Options, Store};

/// A store in a directory that goes with it, and the runtime that it is asked on.
pub(crate) struct Stored {
    pub(crate) runtime: Runtime,
    pub(crate) store: Store,
    _directory: TempDir,
}

impl Stored {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let directory = TempDir::new().unwrap();
        let store = Store::open(&directory.path().join("store"), Options::default()).unwrap();
        Self { runtime, store, _directory: directory }
    }
}
