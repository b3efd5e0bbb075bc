//! One connection of SQLite, with its guard.

use std::sync::Arc;

use rusqlite::{
    CachedStatement, FileControl, ToSql,
    config::DbConfig,
    limits::Limit,
    types::{ToSqlOutput, ValueRef},
};

use super::{
    Outcome, SqlError, Statement, Value,
    access::{Refusal, Rules},
    error::explain,
    functions,
    guard::{Guard, Until},
    limits::{
        CACHED_STATEMENTS, FUNCTION_ARGUMENTS, LIKE_PATTERN_BYTES, PAGE_BYTES, PARAMETERS, READER_CACHE_KIB,
        RESERVED_BYTES, STATEMENT_BYTES, VALUE_BYTES, WRITER_CACHE_KIB,
    },
    result::{Failure, Page, Paged, Room, Sink, Whole},
    shape::{Shape, shape},
    vfs::{self, Vfs},
};

/// Names a statement may use without columns that are neither tables nor granted.
const ALIASES: usize = 32;

/// An open connection. Its fields are dropped in this order, as the VFS needs it.
pub(super) struct Connection {
    raw: rusqlite::Connection,
    guard: Arc<Guard>,
    vfs: Arc<Vfs>,
    writes: bool,
}

/// A caller's text, and what it became when it last ran without an error.
struct Text<'a> {
    /// With the mark of its rules in front.
    marked: String,
    prepared: Option<CachedStatement<'a>>,
    /// Of the last result, for all that have the same.
    columns: Arc<[String]>,
    may_write: bool,
}

impl Connection {
    /// Opens the connection that writes.
    pub(super) fn writer(vfs: Arc<Vfs>) -> Result<Self, SqlError> {
        Self::open(vfs, true).map_err(|error| explain(&error))
    }

    /// Opens a connection that reads.
    pub(super) fn reader(vfs: Arc<Vfs>) -> Result<Self, SqlError> {
        Self::open(vfs, false).map_err(|error| explain(&error))
    }

    pub(super) fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    /// Whether it is to the file of that VFS.
    pub(super) fn is_on(&self, vfs: &Arc<Vfs>) -> bool {
        Arc::ptr_eq(&self.vfs, vfs)
    }

    /// Whether no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.raw.is_autocommit()
    }

    /// Runs a statement of our own, which returns no rows: BEGIN, COMMIT, SAVEPOINT and the like.
    pub(super) fn control(&self, sql: &str) -> Result<(), SqlError> {
        let result = self.raw.prepare_cached(sql).and_then(|mut statement| statement.raw_execute());
        result.map(drop).map_err(|error| self.failure().unwrap_or_else(|| self.explain(&error)))
    }

    /// Runs a caller's statements, in order. What stands there many times in a row is prepared once.
    pub(super) fn run_all(
        &self,
        rules: &Arc<Rules>,
        statements: &[Statement],
        until: &Until,
        room: &mut Room,
    ) -> Result<Vec<Outcome>, SqlError> {
        let mut outcomes = Vec::with_capacity(statements.len());
        for alike in statements.chunk_by(|one, next| one.sql == next.sql) {
            self.run_alike(rules, alike, true, until, room, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// Runs a caller's statement that only reads.
    pub(super) fn query(
        &self,
        rules: &Arc<Rules>,
        statement: &Statement,
        until: &Until,
    ) -> Result<Outcome, SqlError> {
        let mut outcomes = Vec::with_capacity(1);
        let one = std::slice::from_ref(statement);
        self.run_alike(rules, one, false, until, &mut Room::new(), &mut outcomes)?;
        Ok(outcomes.pop().unwrap_or_default())
    }

    /// Runs a caller's statement that only reads, and hands its rows over in pages; the first names the columns.
    pub(super) fn pages(
        &self,
        rules: &Arc<Rules>,
        statement: &Statement,
        until: &Until,
        hand_over: &mut dyn FnMut(Page) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        self.guarded(rules, &statement.sql, false, until, |text| {
            let mut pages = Paged::new(hand_over);
            let outcome = self.run_guarded(text, &statement.params, &mut pages)?;
            pages.finish(outcome.columns).map_err(Failure::Ours)
        })
    }

    /// Runs statements of one text.
    fn run_alike(
        &self,
        rules: &Arc<Rules>,
        statements: &[Statement],
        may_write: bool,
        until: &Until,
        room: &mut Room,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), SqlError> {
        let Some(Statement { sql, .. }) = statements.first() else { return Ok(()) };
        self.guarded(rules, sql, may_write, until, |text| {
            statements.iter().try_for_each(|statement| {
                let mut whole = Whole::new(room);
                let outcome = self.run_guarded(text, &statement.params, &mut whole)?;
                outcomes.push(Outcome { rows: whole.rows, ..outcome });
                Ok(())
            })
        })
    }

    /// Lets work with a caller's text run under the caller's rules, and says of its failure what the caller is to know.
    fn guarded<'a>(
        &'a self,
        rules: &Arc<Rules>,
        sql: &str,
        may_write: bool,
        until: &Until,
        work: impl FnOnce(&mut Text<'a>) -> Result<(), Failure>,
    ) -> Result<(), SqlError> {
        if sql.len() > STATEMENT_BYTES {
            return Err(SqlError::TooLarge(format!("a statement has at most {STATEMENT_BYTES} bytes")));
        }
        let shape = shape(sql).ok_or_else(|| SqlError::Invalid("no statement".to_owned()))?;
        let marked = format!("{}{sql}", rules.mark);
        let mut text = Text { marked, prepared: None, columns: Arc::default(), may_write };
        self.guard.enter(rules, shape, until);
        let result = work(&mut text);
        let refusal = self.guard.leave();
        result.map_err(|error| match error {
            Failure::Ours(error) => error,
            Failure::Sqlite(error) => {
                self.failure().or_else(|| refusal.map(refused)).unwrap_or_else(|| self.explain(&error))
            }
        })
    }

    fn open(vfs: Arc<Vfs>, write: bool) -> Result<Self, rusqlite::Error> {
        let mut raw = vfs.open(write)?;
        configure(&raw, write)?;
        let guard = Arc::new(Guard::default());
        guard.attach(&mut raw)?;
        functions::register(&raw, &guard)?;
        Ok(Self { raw, guard, vfs, writes: write })
    }

    /// Why the committer refused pages, if that is what failed.
    fn failure(&self) -> Option<SqlError> {
        if !self.writes {
            return None;
        }
        self.vfs.shared().take_failure().map(SqlError::from)
    }

    /// What SQLite's error means; for an I/O error the store may know the reason.
    fn explain(&self, error: &rusqlite::Error) -> SqlError {
        let down = || self.vfs.shared().committer().down().map(SqlError::from);
        match explain(error) {
            SqlError::Storage(error) => down().unwrap_or(SqlError::Storage(error)),
            other => other,
        }
    }

    /// Runs the statement, again for each name that the authorizer could not place and that turns out to be no table.
    fn run_guarded<'a>(
        &'a self,
        text: &mut Text<'a>,
        params: &[Value],
        sink: &mut dyn Sink,
    ) -> Result<Outcome, Failure> {
        let mut aliases = 0;
        loop {
            let result = self.attempt(text, params, sink);
            let unnamed = if result.is_err() { self.guard.take_unnamed() } else { None };
            let Some(name) = unnamed else {
                return result;
            };
            aliases += 1;
            if aliases > ALIASES || self.guard.pause(|| self.is_table(&name))? {
                return Err(Failure::Ours(SqlError::AccessDenied(format!("table {name}"))));
            }
            self.guard.add_alias(&name);
        }
    }

    fn is_table(&self, name: &str) -> Result<bool, rusqlite::Error> {
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("sqlite_") || lower.starts_with("pragma_") {
            return Ok(true);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE lower(name) = ?1)
            OR EXISTS (SELECT 1 FROM pragma_module_list WHERE name = ?1)";
        self.raw.prepare_cached(sql)?.query_row([&lower], |row| row.get(0))
    }

    /// The outcome is without rows; they go into the sink.
    fn attempt<'a>(
        &'a self,
        text: &mut Text<'a>,
        params: &[Value],
        sink: &mut dyn Sink,
    ) -> Result<Outcome, Failure> {
        let mut prepared = match text.prepared.take() {
            Some(prepared) => prepared,
            None => self.raw.prepare_cached(&text.marked)?,
        };
        if !text.may_write && !prepared.readonly() {
            let message = "the statement writes; a query only reads".to_owned();
            return Err(Failure::Ours(SqlError::Invalid(message)));
        }
        bind(&mut prepared, params)?;
        let reads = prepared.readonly();
        let before = self.raw.total_changes();
        if !reads {
            vfs::forget_last_insert(&self.raw);
        }
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next()? {
            sink.take(row)?;
        }
        drop(rows);
        // Only now: a statement from before a change of the schema is prepared again as it runs.
        if !prepared.column_names().eq(text.columns.iter()) {
            text.columns = sink.columns(&prepared)?;
        }
        let columns = text.columns.clone();
        text.prepared = Some(prepared);
        if reads {
            return Ok(Outcome { columns, ..Outcome::default() });
        }
        // Statements that change no rows leave the count of the last one that did.
        let changed = self.raw.total_changes() != before;
        let rows_written = if changed { self.raw.changes() } else { 0 };
        let last_insert_rowid = self.raw.last_insert_rowid();
        Ok(Outcome { columns, rows: Vec::new(), rows_written, last_insert_rowid })
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(integer) => ValueRef::Integer(*integer),
            Self::Real(real) => ValueRef::Real(*real),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn configure(raw: &rusqlite::Connection, write: bool) -> Result<(), rusqlite::Error> {
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
    ] {
        raw.set_db_config(config, on)?;
    }
    let bound = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    // Room for the mark in front of a statement.
    raw.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, bound(STATEMENT_BYTES + 64))?;
    raw.set_limit(Limit::SQLITE_LIMIT_LENGTH, bound(VALUE_BYTES))?;
    raw.set_limit(Limit::SQLITE_LIMIT_VARIABLE_NUMBER, bound(PARAMETERS))?;
    raw.set_limit(Limit::SQLITE_LIMIT_FUNCTION_ARG, bound(FUNCTION_ARGUMENTS))?;
    raw.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, bound(LIKE_PATTERN_BYTES))?;
    raw.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    raw.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    raw.busy_timeout(std::time::Duration::ZERO)?;
    let cache = if write { WRITER_CACHE_KIB } else { READER_CACHE_KIB };
    // Temporary files stay files, because the VFS keeps those in memory and bounds them, which SQLite's own memory
    // store does not do.
    raw.execute_batch(&format!("PRAGMA journal_mode = MEMORY; PRAGMA cache_size = -{cache};"))?;
    if write {
        raw.file_control(Some("main"), FileControl::ReserveBytes(&mut RESERVED_BYTES.clone()))?;
        raw.execute_batch(&format!("PRAGMA page_size = {PAGE_BYTES};"))?;
    }
    Ok(())
}

fn bind(prepared: &mut CachedStatement<'_>, params: &[Value]) -> Result<(), Failure> {
    let count = prepared.parameter_count();
    if count != params.len() {
        let message = format!("the statement has {count} parameters, {} were given", params.len());
        return Err(Failure::Ours(SqlError::Invalid(message)));
    }
    for (index, value) in params.iter().enumerate() {
        prepared.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

/// What a refusal of the authorizer means. SQLite's code does not tell: it has one for statements, but not for functions
/// or for what a table-valued pragma runs.
fn refused(refusal: Refusal) -> SqlError {
    match refusal {
        Refusal::Denied(what) => SqlError::AccessDenied(what),
        Refusal::Unnamed(table) => SqlError::AccessDenied(format!("table {table}")),
        Refusal::Transaction => {
            SqlError::Invalid("each call is a transaction; give its statements to one batch".to_owned())
        }
    }
}

/// Whether a call of these statements cannot share a transaction with others.
pub(super) fn runs_alone(statements: &[Statement]) -> bool {
    statements.iter().any(|statement| shape(&statement.sql) == Some(Shape::Vacuum))
}
