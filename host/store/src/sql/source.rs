//! An SQLite file of this machine, held still while it is copied.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    SqlError,
    header::{HEADER_BYTES, Header},
};

/// How long another program may go on writing before the file is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a write-ahead log is folded in before somebody is too busy writing to it.
const FOLDS: usize = 3;

/// A consistent SQLite file. Others can read it meanwhile, but not write.
pub struct Source {
    size: u64,
    // Before the file: to close that would give the locks of the whole process away.
    _lock: Connection,
    file: fs::File,
}

impl Source {
    /// Opens a file with SQLite itself, which finishes or undoes what a crash has left of a transaction. What stands in a
    /// write-ahead log beside it is folded into it, as by `PRAGMA wal_checkpoint`. Blocks.
    pub fn open(path: &Path) -> Result<Self, SqlError> {
        let unreadable =
            |error: io::Error| SqlError::Invalid(format!("cannot read {}: {error}", path.display()));
        check_header(path).map_err(unreadable)??;
        let lock = connect(path)?;
        let held = hold(&lock, path).map_err(|error| explain(&error, path))?;
        held?;
        let file = fs::File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        Ok(Self { size, _lock: lock, file })
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl io::Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Looks at the header before SQLite does: to SQLite an empty file is a database.
fn check_header(path: &Path) -> io::Result<Result<(), SqlError>> {
    let mut header = Vec::new();
    fs::File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(Header::parse(&header).map(drop))
}

fn connect(path: &Path) -> Result<Connection, SqlError> {
    let open = |access| Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let connection =
        open(OpenFlags::SQLITE_OPEN_READ_WRITE).or_else(|_| open(OpenFlags::SQLITE_OPEN_READ_ONLY));
    let connection = connection.map_err(|error| explain(&error, path))?;
    connection.busy_timeout(PATIENCE).map_err(|error| explain(&error, path))?;
    Ok(connection)
}

/// Takes a lock under which the file does not change.
fn hold(connection: &Connection, path: &Path) -> rusqlite::Result<Result<(), SqlError>> {
    let log = log_of(path);
    let logged = || fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    for _ in 0..FOLDS {
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        if connection.is_readonly("main")? {
            if mode == "wal" && logged() {
                break;
            }
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
            return Ok(Ok(()));
        }
        if mode == "wal" {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        connection.execute_batch("BEGIN IMMEDIATE; SELECT count(*) FROM sqlite_schema;")?;
        if mode != "wal" || !logged() {
            return Ok(Ok(()));
        }
        connection.execute_batch("ROLLBACK")?;
    }
    Ok(Err(SqlError::Invalid(format!(
        "{} holds changes that are not in the file yet and cannot be folded in: close the programs that have it open, and let this one write to it",
        log.display()
    ))))
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn explain(error: &rusqlite::Error, path: &Path) -> SqlError {
    let path = path.display();
    SqlError::Invalid(match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another program is writing to {path}")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => format!("{path} is damaged: {error}"),
        _ => format!("cannot read {path}: {error}"),
    })
}
