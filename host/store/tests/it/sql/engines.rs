//! The same calls on the store and on native SQLite of the same version.

use std::fmt;

use rusqlite::{config::DbConfig, types::ValueRef};
use tokio::runtime::Runtime;
use tollgate_store::{Database, Outcome, SqlError, Statement, Store, Value};

use crate::support::Memory;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) class: Class,
    pub(super) text: String,
}

/// What a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Denied,
    TooLarge,
    Conflict,
    Invalid,
    Failed,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

/// Runs calls: a statement, or several as one transaction.
pub(super) trait Engine: Send {
    fn run(&mut self, statements: &[Statement]) -> Result<Vec<Outcome>, Refused>;
}

/// A database of a store in memory.
pub(super) struct Ours {
    runtime: Runtime,
    _store: Store,
    database: Database,
}

impl Ours {
    pub(super) fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let store = Memory::default().open();
        let database = store.database("sql").unwrap();
        Self { runtime, _store: store, database }
    }
}

impl Engine for Ours {
    /// What only reads is answered by a reader, by the writer and in pages, which must agree.
    fn run(&mut self, statements: &[Statement]) -> Result<Vec<Outcome>, Refused> {
        let database = &self.database;
        let result = self.runtime.block_on(async {
            let [one] = statements else { return database.batch(statements.to_vec()).await };
            let read = database.query(one.clone()).await;
            let executed = database.execute(one.clone()).await;
            if let Ok(read) = &read {
                assert_eq!(executed.as_ref(), Ok(read), "reader and writer, {one:?}");
                assert_eq!(
                    in_pages(database, one).await,
                    (read.columns.to_vec(), read.rows.clone()),
                    "{one:?}"
                );
            }
            executed.map(|outcome| vec![outcome])
        });
        result.map_err(|error| match error {
            SqlError::AccessDenied(text) => Refused { class: Class::Denied, text },
            SqlError::TooLarge(text) => Refused { class: Class::TooLarge, text },
            SqlError::Conflict => Refused { class: Class::Conflict, text: "conflict".to_owned() },
            SqlError::Invalid(text) => Refused { class: Class::Invalid, text },
            other => Refused { class: Class::Failed, text: other.to_string() },
        })
    }
}

async fn in_pages(database: &Database, statement: &Statement) -> (Vec<String>, Vec<Vec<Value>>) {
    let mut pages = database.pages(statement.clone()).await.unwrap();
    let mut rows = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        rows.extend(page);
    }
    (pages.columns().to_vec(), rows)
}

/// SQLite on a file of its own kind, in memory, with the settings that the store promises.
pub(super) struct Native(rusqlite::Connection);

impl Native {
    pub(super) fn new() -> Self {
        let raw = rusqlite::Connection::open_in_memory().unwrap();
        for (config, on) in [
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
            (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        ] {
            raw.set_db_config(config, on).unwrap();
        }
        Self(raw)
    }

    fn statement(&self, statement: &Statement) -> rusqlite::Result<Outcome> {
        let mut prepared = self.0.prepare(&statement.sql)?;
        for (index, value) in statement.params.iter().enumerate() {
            prepared.raw_bind_parameter(index + 1, value)?;
        }
        let before = self.0.total_changes();
        let mut found = Vec::new();
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next()? {
            let columns = 0..row.as_ref().column_count();
            found.push(columns.map(|column| row.get_ref(column).map(value)).collect::<Result<_, _>>()?);
        }
        drop(rows);
        let changed = !prepared.readonly() && self.0.total_changes() != before;
        Ok(Outcome {
            columns: prepared.column_names().map(str::to_owned).collect(),
            rows: found,
            rows_written: if changed { self.0.changes() } else { 0 },
            last_insert_rowid: self.0.last_insert_rowid(),
        })
    }

    fn transaction(&self, statements: &[Statement]) -> rusqlite::Result<Vec<Outcome>> {
        self.0.execute_batch("BEGIN")?;
        let outcomes = statements.iter().map(|one| self.statement(one)).collect::<Result<_, _>>()?;
        self.0.execute_batch("COMMIT")?;
        Ok(outcomes)
    }
}

impl Engine for Native {
    fn run(&mut self, statements: &[Statement]) -> Result<Vec<Outcome>, Refused> {
        let result = match statements {
            [one] if one.sql.trim_start().starts_with("VACUUM") => {
                self.statement(one).map(|outcome| vec![outcome])
            }
            _ => self.transaction(statements),
        };
        if !self.0.is_autocommit() {
            self.0.execute_batch("ROLLBACK").unwrap();
        }
        result.map_err(|error| {
            let class = match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::TooBig) => Class::TooLarge,
                _ => Class::Invalid,
            };
            let text = match error {
                rusqlite::Error::SqliteFailure(_, Some(text)) => text,
                rusqlite::Error::SqlInputError { msg, .. } => msg,
                other => other.to_string(),
            };
            Refused { class, text }
        })
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}
