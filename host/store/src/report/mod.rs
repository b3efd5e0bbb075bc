//! What is in a store: each named store by itself, and the file. Everything is read from a snapshot on a thread that may
//! block, so that the store serves meanwhile.

mod file;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::spawn_blocking;

pub use self::file::{FileReport, TableReport};
use crate::{
    BlobReport, StorageError, Store, VectorReport, blob,
    commit::{CommitError, ended},
    core::unavailable,
    error::guarded,
    kv::{self, KvReport},
    limits::PROBLEMS,
    names::Kind,
    queue::{self, QueueReport},
    sql::{self, SqlReport},
    vector,
};

/// The kinds of named stores in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKind {
    /// Keys and values.
    Kv,
    /// SQLite databases.
    Sql,
    /// Blob containers.
    Blob,
    /// Vector indexes.
    Vector,
    /// Queues.
    Queue,
}

impl StoreKind {
    /// All of them, by their names.
    pub const NAMED: [(&'static str, Self); 5] = [
        ("kv", Self::Kv),
        ("sql", Self::Sql),
        ("blob", Self::Blob),
        ("vector", Self::Vector),
        ("queue", Self::Queue),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// What is in a named store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreReport {
    /// Of a kv store.
    Kv(KvReport),
    /// Of a database.
    Sql(SqlReport),
    /// Of a container.
    Blob(BlobReport),
    /// Of an index.
    Vector(VectorReport),
    /// Of a queue.
    Queue(QueueReport),
}

impl StoreReport {
    /// What does not fit together, for people, as far as it was looked for. Empty: all is well.
    pub fn problems(&self) -> &[String] {
        match self {
            Self::Kv(report) => &report.problems,
            Self::Sql(report) => &report.problems,
            Self::Blob(report) => &report.problems,
            Self::Vector(report) => &report.problems,
            Self::Queue(report) => &report.problems,
        }
    }

    /// Of a store that cannot be read.
    fn damaged(kind: StoreKind, text: String) -> Self {
        let problems = vec![text];
        match kind {
            StoreKind::Kv => Self::Kv(KvReport { problems, ..KvReport::default() }),
            StoreKind::Sql => Self::Sql(SqlReport { problems, ..SqlReport::default() }),
            StoreKind::Blob => Self::Blob(BlobReport { problems, ..BlobReport::default() }),
            StoreKind::Vector => Self::Vector(VectorReport { problems, ..VectorReport::default() }),
            StoreKind::Queue => Self::Queue(QueueReport { problems, ..QueueReport::default() }),
        }
    }
}

impl Store {
    /// The named stores of the file, those that nobody opens any more too; in the order of kinds and names.
    pub async fn names(&self) -> Result<Vec<(StoreKind, String)>, CommitError> {
        let core = Arc::clone(&self.open.core);
        let databases = blocking(move || sql::pages::names(&core.begin_read()?).map_err(unavailable)).await?;
        let mut names: Vec<_> = databases.into_keys().map(|name| (StoreKind::Sql, name)).collect();
        for (kind, of) in [
            (Kind::Kv, StoreKind::Kv),
            (Kind::Blob, StoreKind::Blob),
            (Kind::Vector, StoreKind::Vector),
            (Kind::Queue, StoreKind::Queue),
        ] {
            names.extend(self.open.core.names.of(kind).into_iter().map(|name| (of, name)));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is in a named store, at one instant; none: there is none of that name. It reads about as much as the store has;
    /// `thorough` reads all of it and compares whatever can be compared: checksums, counts, indexes with their rows, memory
    /// with the file. Whatever it sees keeps its pages until it has ended. When the future is dropped it ends soon, and
    /// `place` is dropped only then.
    pub async fn report(
        &self,
        kind: StoreKind,
        name: &str,
        thorough: bool,
        place: impl Send + 'static,
    ) -> Result<Option<StoreReport>, CommitError> {
        match self.read_report(kind, name, thorough, place).await {
            // What cannot be read is what was asked for.
            Err(CommitError::Storage(StorageError::Corrupt(text))) => {
                Ok(Some(StoreReport::damaged(kind, text)))
            }
            other => other,
        }
    }

    async fn read_report(
        &self,
        kind: StoreKind,
        name: &str,
        thorough: bool,
        place: impl Send + 'static,
    ) -> Result<Option<StoreReport>, CommitError> {
        let core = Arc::clone(&self.open.core);
        let number = |kind| core.names.find(kind, name);
        let report = match kind {
            StoreKind::Kv => {
                let Some(number) = number(Kind::Kv) else { return Ok(None) };
                let rows = core.inbox.snapshot().await?;
                StoreReport::Kv(reading(place, move |stop| kv::report(&core, &rows, number, stop)).await?)
            }
            StoreKind::Queue => {
                let Some(number) = number(Kind::Queue) else { return Ok(None) };
                let read = move |stop: &Arc<AtomicBool>| {
                    queue::report(&core.begin_read()?, number, stop).map_err(unavailable)
                };
                StoreReport::Queue(reading(place, read).await?)
            }
            StoreKind::Blob => {
                let Some(number) = number(Kind::Blob) else { return Ok(None) };
                let read = move |stop: &Arc<AtomicBool>| {
                    let folder = core.folder.as_deref();
                    blob::report(&|| core.begin_read(), folder, number, thorough, stop)
                };
                StoreReport::Blob(reading(place, read).await?)
            }
            StoreKind::Vector => {
                let Some(number) = number(Kind::Vector) else { return Ok(None) };
                let read = move |stop: &Arc<AtomicBool>| vector::report(&core, number, thorough, stop);
                StoreReport::Vector(reading(place, read).await?)
            }
            StoreKind::Sql => {
                let name = name.to_owned();
                let read = move |stop: &Arc<AtomicBool>| sql::report(&core, &name, thorough, stop);
                let Some(report) = reading(place, read).await? else { return Ok(None) };
                StoreReport::Sql(report)
            }
        };
        Ok(Some(report))
    }
}

/// Reads on a thread that may block. When nobody waits any more, `read` is told to stop, and `place` is dropped after it.
async fn reading<T: Send + 'static>(
    place: impl Send + 'static,
    read: impl FnOnce(&Arc<AtomicBool>) -> Result<T, CommitError> + Send + 'static,
) -> Result<T, CommitError> {
    let asked = Asked::default();
    let stop = Arc::clone(&asked.0);
    blocking(move || {
        let report = read(&stop);
        drop(place);
        // One that was told to stop has not seen everything.
        go_on(&stop).and(report)
    })
    .await
}

/// Ends the reading when nobody waits for it any more.
#[derive(Debug, Default)]
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An error once nobody waits any more.
pub(crate) fn go_on(stop: &AtomicBool) -> Result<(), CommitError> {
    if stop.load(Ordering::Relaxed) {
        return Err(CommitError::Unavailable("nobody waits for the answer any more".to_owned()));
    }
    Ok(())
}

/// The rows, until nobody waits any more: what is made of them then is seen by nobody.
pub(crate) fn wanted<I: Iterator>(rows: I, stop: &AtomicBool) -> impl Iterator<Item = I::Item> {
    rows.take_while(|_| !stop.load(Ordering::Relaxed))
}

/// Notes what is wrong, unless there is enough already.
pub(crate) fn note(problems: &mut Vec<String>, text: impl FnOnce() -> String) {
    if problems.len() < PROBLEMS {
        problems.push(text());
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CommitError> + Send + 'static,
) -> Result<T, CommitError> {
    spawn_blocking(move || guarded(work)).await.unwrap_or_else(|error| Err(ended(&error)))
}
