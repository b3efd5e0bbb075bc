//! Tests of the SQL side, most of them on a committer of their own that can be made to fail.

mod access;
mod crash;
mod dialect;
mod files;
mod joint;
mod writer;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use redb::{ReadTransaction, ReadableDatabase, backends::InMemoryBackend};

use super::{
    Database, Outcome, SqlError, Statement, Value, databases::Databases, files::Files, pages,
    pages::PageBatch, vfs::Committer,
};
use crate::{CommitError, commit::Change};

/// A committer that commits at once, or refuses.
pub(super) struct TestCommitter {
    pub(super) redb: redb::Database,
    pub(super) fails: AtomicBool,
    pub(super) commits: AtomicU64,
    files: Arc<Files>,
}

impl TestCommitter {
    fn in_memory() -> Arc<Self> {
        let redb = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        Arc::new(Self {
            redb,
            fails: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            files: Arc::default(),
        })
    }
}

impl Committer for TestCommitter {
    fn begin_read(&self) -> Result<ReadTransaction, CommitError> {
        Ok(self.redb.begin_read().unwrap())
    }

    fn commit(&self, batch: Option<PageBatch>, companions: Vec<Change>) -> Result<(), CommitError> {
        assert!(companions.is_empty());
        let mut transaction = self.redb.begin_write().unwrap();
        transaction.set_durability(redb::Durability::None).unwrap();
        if let Some(batch) = batch {
            pages::apply(&transaction, &batch).unwrap();
        }
        if self.fails.load(Ordering::SeqCst) {
            return Err(CommitError::Unavailable("injected".to_owned()));
        }
        transaction.commit().unwrap();
        self.commits.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn down(&self) -> Option<CommitError> {
        None
    }

    fn files(&self) -> &Arc<Files> {
        &self.files
    }
}

/// A fresh database in memory.
pub(super) fn database() -> (Database, Arc<TestCommitter>) {
    let committer = TestCommitter::in_memory();
    (Databases::default().open_on(committer.clone(), None, "test").unwrap(), committer)
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

pub(super) async fn execute(database: &Database, sql: &str) -> Outcome {
    database.execute(sql.into()).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The rows of a query as text, columns separated by `|`, rows by a blank.
pub(super) async fn rows(database: &Database, sql: &str) -> String {
    let outcome = database.query(sql.into()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    text(&outcome)
}

pub(super) fn text(outcome: &Outcome) -> String {
    let cell = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => real.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("x{}", bytes.len()),
    };
    let row = |row: &Vec<Value>| row.iter().map(cell).collect::<Vec<_>>().join("|");
    outcome.rows.iter().map(row).collect::<Vec<_>>().join(" ")
}

pub(super) async fn check_integrity(database: &Database) {
    assert_eq!(rows(database, "PRAGMA integrity_check").await, "ok");
    assert_eq!(rows(database, "PRAGMA foreign_key_check").await, "");
}
