//! Counts everything again, on connections of its own: those that serve stay free.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use super::{
    Access, Outcome, SqlError, Statement, Value,
    access::Rules,
    connection::Connection,
    files::File,
    guard::Until,
    limits::{CHECK_TIME, COUNT_TIME},
    pages,
    vfs::{Shared, Vfs},
};
use crate::{
    StorageError,
    commit::CommitError,
    core::{Core, unavailable},
    limits::PROBLEMS,
    report::note,
};

/// What is in a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlReport {
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Pages of the database as SQLite sees it.
    pub pages: u64,
    /// Of these, pages that hold nothing; SQLite uses them again.
    pub free_pages: u64,
    /// Bytes that are stored of the pages: their ends without content are not.
    pub stored_bytes: u64,
    /// Tables in the order of their names, with their rows; none: counting them takes too long.
    pub tables: Vec<(String, Option<u64>)>,
    /// What does not fit together, for people; at most `PROBLEMS` of them. Empty: all is well.
    pub problems: Vec<String>,
}

/// Reads a database, which need not be open; none: there is none of that name.
pub(crate) fn report(
    core: &Arc<Core>,
    name: &str,
    thorough: bool,
    stop: &Arc<AtomicBool>,
) -> Result<Option<SqlReport>, CommitError> {
    let Some(file) = hold(core, name)? else { return Ok(None) };
    let stored_bytes = pages::stored_bytes(&core.begin_read()?, file.id(), stop).map_err(unavailable)?;
    let shared = Shared::new(Arc::new(file), name.into(), true, core.clone());
    let report = match read(shared, thorough, Arc::clone(stop)) {
        Err(SqlError::Invalid(text)) => SqlReport { problems: vec![text], ..SqlReport::default() },
        Err(SqlError::Storage(error)) => return Err(error.into()),
        Err(error) => return Err(CommitError::Unavailable(error.to_string())),
        Ok(report) => report,
    };
    Ok(Some(SqlReport { stored_bytes, ..report }))
}

fn read(shared: Shared, thorough: bool, stop: Arc<AtomicBool>) -> Result<SqlReport, SqlError> {
    let vfs = Vfs::register(Arc::new(shared)).map_err(|error| SqlError::Unavailable(error.to_string()))?;
    let connection = Connection::reader(Arc::new(vfs))?;
    let reading = Reading { connection, rules: Arc::new(Rules::new(Access::Full, u64::MAX)), stop };
    let mut report = reading.counts()?;
    if thorough {
        report.problems = reading.problems()?;
    }
    Ok(report)
}

/// The file of a database, which stays as long as it is held.
fn hold(core: &Arc<Core>, name: &str) -> Result<Option<File>, CommitError> {
    let find = || -> Result<Option<u32>, CommitError> {
        Ok(pages::names(&core.begin_read()?).map_err(unavailable)?.get(name).copied())
    };
    // Comes around again only when an import has just given the database another file.
    let mut found = find()?;
    while let Some(id) = found {
        let file = core.files.hold(id);
        found = find()?;
        if found == Some(id) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

struct Reading {
    connection: Connection,
    rules: Arc<Rules>,
    stop: Arc<AtomicBool>,
}

impl Reading {
    fn counts(&self) -> Result<SqlReport, SqlError> {
        let tables =
            self.ask("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name", COUNT_TIME)?;
        let mut counted = Vec::new();
        for name in tables.rows.into_iter().flatten() {
            let Value::Text(name) = name else { continue };
            let count = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
            // Also one that another program has made with an extension that is not here.
            let rows = match self.ask(&count, COUNT_TIME) {
                Ok(counted) => Some(number(&counted)),
                Err(SqlError::Storage(error)) if !matches!(error, StorageError::Corrupt(_)) => {
                    return Err(error.into());
                }
                Err(_) => None,
            };
            counted.push((name, rows));
        }
        let pragma = |name| self.ask(&format!("PRAGMA {name}"), COUNT_TIME).map(|outcome| number(&outcome));
        Ok(SqlReport {
            page_bytes: pragma("page_size")?,
            pages: pragma("page_count")?,
            free_pages: pragma("freelist_count")?,
            tables: counted,
            ..SqlReport::default()
        })
    }

    fn problems(&self) -> Result<Vec<String>, SqlError> {
        self.connection.control("PRAGMA cell_size_check = ON")?;
        let found = self.ask(&format!("PRAGMA integrity_check({PROBLEMS})"), CHECK_TIME)?;
        self.connection.vfs().shared().check_readable()?;
        let mut problems = Vec::new();
        for value in found.rows.iter().flatten() {
            match value {
                Value::Text(text) if text == "ok" => {}
                Value::Text(text) => note(&mut problems, || text.clone()),
                _ => {}
            }
        }
        Ok(problems)
    }

    fn ask(&self, sql: &str, time: Duration) -> Result<Outcome, SqlError> {
        let until = Until { deadline: Instant::now() + time, abandoned: self.stop.clone() };
        self.connection.query(&self.rules, &Statement::from(sql), &until)
    }
}

fn number(outcome: &Outcome) -> u64 {
    match outcome.rows.first().and_then(|row| row.first()) {
        Some(Value::Integer(number)) => u64::try_from(*number).unwrap_or_default(),
        _ => 0,
    }
}
