//! The connections that read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout_at};

use super::{
    Outcome, SqlError, Statement,
    access::Rules,
    connection::Connection,
    database::Place,
    guard::{Until, ends},
    limits::READERS,
    paging::Paging,
    vfs::Vfs,
};

/// A pool of reader connections, opened when they are first needed.
pub(super) struct Readers {
    /// Of the file that the database has now.
    vfs: Mutex<Arc<Vfs>>,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    pub(super) paging: Paging,
}

/// Ends a read whose caller has gone.
#[derive(Default)]
pub(super) struct Abandon(Arc<AtomicBool>);

impl Readers {
    pub(super) fn new(vfs: Arc<Vfs>) -> Self {
        Self {
            vfs: Mutex::new(vfs),
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(READERS)),
            paging: Paging::new(),
        }
    }

    /// Runs a statement on a fresh snapshot.
    pub(super) async fn run(
        self: &Arc<Self>,
        rules: Arc<Rules>,
        statement: Statement,
        deadline: Instant,
        turn: Duration,
        callers: Place,
    ) -> Result<Outcome, SqlError> {
        let place = timeout_at(deadline.into(), self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| SqlError::deadline())?.map_err(|_| SqlError::closing())?;
        let abandon = Abandon::default();
        let until = Until { deadline: ends(deadline, turn), abandoned: abandon.flag() };
        let readers = self.clone();
        let read = spawn_blocking(move || {
            let _places = (place, callers);
            let result = readers.with(|connection| connection.query(&rules, &statement, &until));
            result.map_err(|error| error.within(deadline, turn))
        });
        read.await.unwrap_or_else(|_| Err(SqlError::closing()))
    }

    /// Waits for the reads that run, ends those in pages, and closes the connections.
    pub(super) async fn close(&self) {
        self.paging.close().await;
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        // An error says that it is closed already.
        let places = self.places.acquire_many(all).await;
        self.places.close();
        drop(places);
        self.idle.lock().clear();
    }

    /// Of the file that the database has now.
    pub(super) fn vfs(&self) -> Arc<Vfs> {
        self.vfs.lock().clone()
    }

    /// From now on reads are of another file; those that run end on the old one.
    pub(super) fn go_over(&self, vfs: Arc<Vfs>) {
        let mut current = self.vfs.lock();
        *current = vfs;
        self.idle.lock().clear();
    }

    /// Works with a connection that nobody else uses meanwhile.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let idle = self.idle.lock().pop();
        let connection = idle.map_or_else(|| Connection::reader(self.vfs()), Ok)?;
        let result = work(&connection);
        // Held together, so that no connection to a file that was replaced comes back.
        let vfs = self.vfs.lock();
        let mut idle = self.idle.lock();
        if idle.len() < READERS && connection.is_on(&vfs) {
            idle.push(connection);
        }
        result
    }
}

impl Abandon {
    /// Set when the caller has gone.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
