//! An open database: one writer thread, a few readers.

use std::time::Duration;

use super::{Access, Outcome, SqlError, Statement};

/// A handle of a database, with an access. A clone is the same database.
#[derive(Clone, Debug)]
pub struct Database {}

impl Database {
    /// A handle of the same database that can only do what `access` allows.
    #[must_use]
    pub fn with_access(&self, _access: Access) -> Self {
        todo!()
    }

    /// A handle of the same database whose calls may take this long, waiting for the writer included.
    #[must_use]
    pub fn with_deadline(&self, _deadline: Duration) -> Self {
        todo!()
    }

    /// Runs one statement that only reads, on a snapshot.
    pub async fn query(&self, _statement: Statement) -> Result<Outcome, SqlError> {
        todo!()
    }

    /// Runs one statement that may write, as a transaction of its own; on disk when it returns.
    pub async fn execute(&self, _statement: Statement) -> Result<Outcome, SqlError> {
        todo!()
    }

    /// Runs statements in one transaction: all of them, or on an error none. On disk when it returns.
    pub async fn batch(&self, _statements: Vec<Statement>) -> Result<Vec<Outcome>, SqlError> {
        todo!()
    }
}
