//! Statements and what they return.

use std::sync::Arc;

/// A value of SQLite's five types.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL's NULL.
    Null,
    /// A 64-bit integer.
    Integer(i64),
    /// A 64-bit float; never a NaN, which SQLite turns into NULL.
    Real(f64),
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// One statement with its parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statement {
    /// Exactly one statement of SQLite's dialect.
    pub sql: String,
    /// Values of `?1`, `?2`, … ; as many as the statement has.
    pub params: Vec<Value>,
}

/// What a statement returned and changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Names of the columns; empty for a statement that returns no rows. Equal statements of a batch share them.
    pub columns: Arc<[String]>,
    /// The rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
    /// Rows inserted, updated or deleted, by the statement itself (not by triggers or cascades).
    pub rows_written: u64,
    /// The rowid of the last insert of this statement, or 0.
    pub last_insert_rowid: i64,
}

impl Statement {
    /// A statement with parameters.
    pub fn new(sql: impl Into<String>, params: Vec<Value>) -> Self {
        Self { sql: sql.into(), params }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.sql.len() + self.params.iter().map(Value::bytes).sum::<usize>()
    }
}

impl Value {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 16,
            Self::Text(text) => 16 + text.len(),
            Self::Blob(bytes) => 16 + bytes.len(),
        }
    }
}

impl From<&str> for Statement {
    fn from(sql: &str) -> Self {
        Self::new(sql, Vec::new())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
