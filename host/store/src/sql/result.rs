//! Where the rows of a statement go: into one outcome, or page by page.

use std::sync::Arc;

use rusqlite::{Row, Statement, types::ValueRef};

use super::{
    SqlError, Value,
    limits::{COLUMN_BYTES, PAGE_BYTES_MOST, PAGE_ROWS, RESULT_BYTES, RESULT_ROWS},
};

/// Why a statement did not run.
pub(super) enum Failure {
    Ours(SqlError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Takes rows as a statement makes them.
pub(super) trait Sink {
    /// The names of the columns, counted before they are copied.
    fn columns(&mut self, statement: &Statement<'_>) -> Result<Arc<[String]>, Failure>;

    fn take(&mut self, row: &Row<'_>) -> Result<(), Failure>;
}

/// What the results of one call may still take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    rows: usize,
    bytes: usize,
}

/// All rows of a statement.
pub(super) struct Whole<'a> {
    pub(super) rows: Vec<Vec<Value>>,
    room: &'a mut Room,
}

/// Some rows of a query, with the names of their columns.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) columns: Arc<[String]>,
    pub(super) rows: Vec<Vec<Value>>,
}

/// Rows that are handed over whenever there is a page of them.
pub(super) struct Paged<'a> {
    columns: Option<Arc<[String]>>,
    rows: Vec<Vec<Value>>,
    bytes: usize,
    /// Whether there was a page.
    handed: bool,
    hand_over: &'a mut dyn FnMut(Page) -> Result<(), SqlError>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { rows: RESULT_ROWS, bytes: RESULT_BYTES }
    }

    /// Bytes taken so far.
    pub(super) fn taken(&self) -> usize {
        RESULT_BYTES.saturating_sub(self.bytes)
    }

    fn take_row(&mut self) -> Result<(), Failure> {
        let left = self.rows.checked_sub(1);
        self.rows = left.ok_or_else(|| too_large(format!("a result has at most {RESULT_ROWS} rows")))?;
        Ok(())
    }

    fn take_bytes(&mut self, bytes: usize) -> Result<(), Failure> {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.ok_or_else(|| too_large(format!("a result has at most {RESULT_BYTES} bytes")))?;
        Ok(())
    }
}

impl<'a> Whole<'a> {
    pub(super) fn new(room: &'a mut Room) -> Self {
        Self { rows: Vec::new(), room }
    }
}

impl Sink for Whole<'_> {
    fn columns(&mut self, statement: &Statement<'_>) -> Result<Arc<[String]>, Failure> {
        columns(statement, |bytes| self.room.take_bytes(bytes))
    }

    fn take(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        self.room.take_row()?;
        self.rows.push(values(row, |bytes| self.room.take_bytes(bytes))?);
        Ok(())
    }
}

impl<'a> Paged<'a> {
    pub(super) fn new(hand_over: &'a mut dyn FnMut(Page) -> Result<(), SqlError>) -> Self {
        Self { columns: None, rows: Vec::new(), bytes: 0, handed: false, hand_over }
    }

    /// Hands over what is left; a result without rows is one page without rows.
    pub(super) fn finish(self, columns: Arc<[String]>) -> Result<(), SqlError> {
        if self.handed && self.rows.is_empty() {
            return Ok(());
        }
        (self.hand_over)(Page { columns, rows: self.rows })
    }
}

impl Sink for Paged<'_> {
    fn columns(&mut self, statement: &Statement<'_>) -> Result<Arc<[String]>, Failure> {
        if let Some(columns) = &self.columns {
            return Ok(columns.clone());
        }
        let columns = columns(statement, |bytes| {
            let message = || too_large(format!("the names of columns have at most {RESULT_BYTES} bytes"));
            if bytes > RESULT_BYTES { Err(message()) } else { Ok(()) }
        })?;
        Ok(self.columns.insert(columns).clone())
    }

    fn take(&mut self, row: &Row<'_>) -> Result<(), Failure> {
        let columns = self.columns(row.as_ref())?;
        let mut left = RESULT_BYTES;
        self.rows.push(values(row, |bytes| {
            self.bytes += bytes;
            let rest = left.checked_sub(bytes);
            left = rest.ok_or_else(|| too_large(format!("a row has at most {RESULT_BYTES} bytes")))?;
            Ok(())
        })?);
        if self.rows.len() < PAGE_ROWS && self.bytes < PAGE_BYTES_MOST {
            return Ok(());
        }
        (self.bytes, self.handed) = (0, true);
        let page = Page { columns, rows: std::mem::take(&mut self.rows) };
        (self.hand_over)(page).map_err(Failure::Ours)
    }
}

fn columns(
    statement: &Statement<'_>,
    count: impl FnOnce(usize) -> Result<(), Failure>,
) -> Result<Arc<[String]>, Failure> {
    count(statement.column_names().map(|name| COLUMN_BYTES + name.len()).sum())?;
    Ok(statement.column_names().map(str::to_owned).collect())
}

/// A row's values, each counted before it is copied.
fn values(row: &Row<'_>, mut count: impl FnMut(usize) -> Result<(), Failure>) -> Result<Vec<Value>, Failure> {
    let columns = row.as_ref().column_count();
    let mut values = Vec::with_capacity(columns);
    for column in 0..columns {
        let value = row.get_ref(column)?;
        count(match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => 16 + bytes.len(),
            _ => 16,
        })?;
        values.push(owned(value));
    }
    Ok(values)
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        // A blob cast to text need not be UTF-8.
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn too_large(text: String) -> Failure {
    Failure::Ours(SqlError::TooLarge(text))
}
