//! SQL databases.

use std::cell::OnceCell;

pub use crate::bindings::stores::tollgate::storage::sql::{Database, Outcome, Statement, Value};

/// A database that is opened at the first use and stays open as long as the instance lives. Meant for a
/// `thread_local!`.
pub struct Named {
    name: &'static str,
    database: OnceCell<Database>,
}

impl Named {
    /// A database by the name under which the manifest grants it.
    pub const fn new(name: &'static str) -> Self {
        Named { name, database: OnceCell::new() }
    }

    /// One statement that only reads.
    pub fn query(&self, sql: impl Into<String>, params: Vec<Value>) -> Result<Outcome, String> {
        let statement = Statement { sql: sql.into(), params };
        self.get()?.query(&statement).map_err(|error| self.explain(&error))
    }

    /// Statements in one transaction.
    pub fn batch(&self, statements: &[Statement]) -> Result<Vec<Outcome>, String> {
        self.get()?.batch(statements).map_err(|error| self.explain(&error))
    }

    fn get(&self) -> Result<&Database, String> {
        if let Some(database) = self.database.get() {
            return Ok(database);
        }
        let database = Database::open(self.name).map_err(|error| self.explain(&error))?;
        Ok(self.database.get_or_init(|| database))
    }

    fn explain(&self, error: &crate::kv::Error) -> String {
        format!("database {}: {}", self.name, crate::kv::explain(error))
    }
}
