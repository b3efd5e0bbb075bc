//! `tollgate:storage/sql`: SQL databases.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout_at;
use tollgate_store::{Access as SqlAccess, Database, Outcome, SqlError, Statement, TableGrant, Value};
use wasmtime::component::{Linker, Resource};

use super::view::{HasView, Openable, View};
use super::{Budget, Host};
use crate::plugin::bindings::imports::tollgate::storage::sql as wit;
use crate::plugin::bindings::imports::tollgate::storage::types::Error;
use crate::plugin::limits::{BATCH_STATEMENTS, SQL_CALLS_AT_ONCE};
use crate::plugin::{Access, Limit, SqlGrant};

/// Bytes that a value or a name takes beside its text or bytes.
const VALUE_ROOM: usize = 16;

/// A database that a guest has opened, narrowed to its grant.
#[derive(Clone)]
pub struct OpenDatabase {
    database: Database,
    /// Of the plugin, in all its instances.
    calls: Arc<Semaphore>,
}

/// The host's side of one call.
type SqlView<'a> = View<'a, OpenDatabase>;

/// Links the interface.
pub(crate) fn add_to_linker<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wit::add_to_linker::<T, HasView<OpenDatabase>>(linker, |state| {
        let (granted, table, budget) = state.parts();
        View { openable: &granted.sql, table, budget }
    })
}

fn convert_error(budget: &Budget, error: SqlError) -> Error {
    let overlong = error.is_overlong();
    match error {
        SqlError::AccessDenied(text) => {
            budget.hit(Limit::Grant);
            tracing::debug!(reason = text, "a plugin's statement was denied");
            Error::AccessDenied
        }
        SqlError::TooLarge(text) => {
            budget.hit(Limit::Size);
            Error::TooLarge(text)
        }
        SqlError::Conflict => Error::Conflict,
        SqlError::Invalid(text) => Error::Invalid(text),
        SqlError::Unavailable(text) => {
            if overlong {
                budget.hit(Limit::SqlTurn);
            }
            Error::Unavailable(text)
        }
        SqlError::Storage(error) => Error::Unavailable(error.to_string()),
    }
}

/// The databases that one plugin may open. The error is the name of a database that there is not.
pub(super) fn granted(
    databases: &BTreeMap<String, Database>,
    grants: &BTreeMap<String, SqlGrant>,
) -> Result<Openable<OpenDatabase>, String> {
    Openable::new(databases, grants, |_, database, grant| OpenDatabase {
        database: database.with_access(access(grant)),
        calls: Arc::new(Semaphore::new(SQL_CALLS_AT_ONCE)),
    })
}

fn access(grant: &SqlGrant) -> SqlAccess {
    match grant {
        SqlGrant::Whole(Access::ReadWrite) => SqlAccess::Full,
        SqlGrant::Whole(Access::Read) => SqlAccess::ReadOnly,
        SqlGrant::Tables(tables) => SqlAccess::Tables { rules: tables.iter().map(table_grant).collect() },
    }
}

fn table_grant((table, access): (&String, &Access)) -> TableGrant {
    match access {
        Access::Read => TableGrant::read(table),
        Access::ReadWrite => TableGrant::read_write(table),
    }
}

impl SqlView<'_> {
    /// The database behind a handle, for a call that brings so many bytes. Its work ends with the guest's deadline, or after
    /// its turn, and keeps one of the plugin's places so long.
    async fn database(&mut self, handle: &Resource<OpenDatabase>, bytes: usize) -> Result<Database, Error> {
        let (open, _) = self.opened(handle, bytes)?;
        let (database, calls) = (open.database.clone(), open.calls.clone());
        let call = timeout_at(self.budget.deadline().into(), calls.acquire_owned()).await;
        let call = call
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Error::Unavailable("other calls of the plugin took all the time".to_owned()))?;
        let database = database.with_deadline(self.budget.time_left()).with_turn(self.budget.sql_turn());
        Ok(database.with_place(call))
    }

    fn outcome(&mut self, outcome: Outcome) -> Result<wit::Outcome, Error> {
        let names: usize = outcome.columns.iter().map(|name| VALUE_ROOM + name.len()).sum();
        let rows: usize = outcome.rows.iter().flatten().map(bytes_of_value).sum();
        self.answer(names + rows)?;
        Ok(wit::Outcome {
            columns: outcome.columns.to_vec(),
            rows: outcome.rows.into_iter().map(|row| row.into_iter().map(to_guest).collect()).collect(),
            rows_written: outcome.rows_written,
            last_insert_rowid: outcome.last_insert_rowid,
        })
    }
}

impl wit::Host for SqlView<'_> {}

impl wit::HostDatabase for SqlView<'_> {
    async fn open(&mut self, name: String) -> Result<Resource<OpenDatabase>, Error> {
        self.open_named(&name)
    }

    async fn query(
        &mut self,
        handle: Resource<OpenDatabase>,
        statement: wit::Statement,
    ) -> Result<wit::Outcome, Error> {
        let database = self.database(&handle, bytes_of(&statement)).await?;
        let outcome =
            database.query(from_guest(statement)).await.map_err(|error| convert_error(self.budget, error))?;
        self.outcome(outcome)
    }

    async fn execute(
        &mut self,
        handle: Resource<OpenDatabase>,
        statement: wit::Statement,
    ) -> Result<wit::Outcome, Error> {
        let database = self.database(&handle, bytes_of(&statement)).await?;
        let outcome = database
            .execute(from_guest(statement))
            .await
            .map_err(|error| convert_error(self.budget, error))?;
        self.outcome(outcome)
    }

    async fn batch(
        &mut self,
        handle: Resource<OpenDatabase>,
        statements: Vec<wit::Statement>,
    ) -> Result<Vec<wit::Outcome>, Error> {
        let database = self.database(&handle, statements.iter().map(bytes_of).sum()).await?;
        if statements.len() > BATCH_STATEMENTS {
            self.budget.hit(Limit::Size);
            return Err(Error::TooLarge(format!("a batch may have {BATCH_STATEMENTS} statements")));
        }
        let statements = statements.into_iter().map(from_guest).collect();
        let outcomes = database.batch(statements).await.map_err(|error| convert_error(self.budget, error))?;
        outcomes.into_iter().map(|outcome| self.outcome(outcome)).collect()
    }

    async fn drop(&mut self, handle: Resource<OpenDatabase>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn from_guest(statement: wit::Statement) -> Statement {
    let params = statement.params.into_iter().map(|value| match value {
        wit::Value::Null => Value::Null,
        wit::Value::Integer(integer) => Value::Integer(integer),
        wit::Value::Real(real) => Value::Real(real),
        wit::Value::Text(text) => Value::Text(text),
        wit::Value::Blob(bytes) => Value::Blob(bytes),
    });
    Statement::new(statement.sql, params.collect())
}

fn to_guest(value: Value) -> wit::Value {
    match value {
        Value::Null => wit::Value::Null,
        Value::Integer(integer) => wit::Value::Integer(integer),
        Value::Real(real) => wit::Value::Real(real),
        Value::Text(text) => wit::Value::Text(text),
        Value::Blob(bytes) => wit::Value::Blob(bytes),
    }
}

fn bytes_of(statement: &wit::Statement) -> usize {
    let params = statement.params.iter().map(|value| match value {
        wit::Value::Text(text) => VALUE_ROOM + text.len(),
        wit::Value::Blob(bytes) => VALUE_ROOM + bytes.len(),
        _ => VALUE_ROOM,
    });
    statement.sql.len() + params.sum::<usize>()
}

fn bytes_of_value(value: &Value) -> usize {
    match value {
        Value::Text(text) => VALUE_ROOM + text.len(),
        Value::Blob(bytes) => VALUE_ROOM + bytes.len(),
        _ => VALUE_ROOM,
    }
}
