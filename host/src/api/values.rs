//! What stores hold, in JSON. SQL values are numbers, text and null as they are, a blob as `{"hex": "…"}`, both ways.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Data, json};
use tollgate_store::{Entry, Outcome, Page, Value};
use utoipa::ToSchema;

use super::error::ApiError;

/// Bytes in JSON: as text where they are UTF-8, else as hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    /// UTF-8.
    Text(String),
    /// Any bytes: `{"hex": "00ff"}`.
    Hex(Hex),
}

/// Bytes as hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hex {
    #[schema(pattern = "^([0-9a-fA-F]{2})*$")]
    hex: String,
}

impl Content {
    /// The bytes themselves.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, ApiError> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Hex(Hex { hex }) => hex::decode(hex)
                .map_err(|error| ApiError::invalid(format!("`hex` has no hexadecimal digits: {error}"))),
        }
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(Hex { hex: hex::encode(bytes) }),
        }
    }
}

/// A page of keys of a kv store.
#[derive(Serialize, ToSchema)]
pub(crate) struct KvPage {
    /// In the order of their UTF-8 bytes.
    keys: Vec<String>,
    /// Where the next page starts; null: this was the last. A page may be short and not be the last.
    cursor: Option<String>,
}

impl From<Page> for KvPage {
    fn from(Page { keys, cursor }: Page) -> Self {
        Self { keys, cursor }
    }
}

/// An entry of a kv store.
#[derive(Serialize, ToSchema)]
pub(crate) struct KvEntry {
    key: String,
    value: Content,
    /// Grows with each write.
    version: u64,
    /// Milliseconds since 1970; null: it stays.
    expires_ms: Option<u64>,
}

impl KvEntry {
    pub(crate) fn new(key: String, entry: &Entry) -> Self {
        let value = Content::from(&*entry.value);
        Self { key, value, version: entry.version, expires_ms: entry.expires_ms }
    }
}

/// What a statement returned and changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct SqlResult {
    /// Names of the columns; empty for a statement that returns no rows.
    #[schema(value_type = Vec<String>)]
    columns: Arc<[String]>,
    /// The rows, each as long as `columns`.
    rows: Vec<Vec<Data>>,
    /// Rows inserted, updated or deleted.
    rows_written: u64,
    /// The rowid of the statement's last insert, or 0.
    last_insert_rowid: i64,
}

impl From<Outcome> for SqlResult {
    fn from(outcome: Outcome) -> Self {
        Self {
            columns: outcome.columns,
            rows: rows(outcome.rows),
            rows_written: outcome.rows_written,
            last_insert_rowid: outcome.last_insert_rowid,
        }
    }
}

/// The parameters of a statement.
pub(crate) fn parameters(data: Vec<Data>) -> Result<Vec<Value>, ApiError> {
    let numbered = data.into_iter().zip(1_u32..);
    numbered.map(|(data, number)| parameter(data).map_err(|e| e.at(format!("params, ?{number}")))).collect()
}

fn parameter(data: Data) -> Result<Value, ApiError> {
    Ok(match data {
        Data::Null => Value::Null,
        Data::Bool(flag) => Value::Integer(flag.into()),
        Data::String(text) => Value::Text(text),
        Data::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(real)) if !number.is_u64() => Value::Real(real),
            _ => return Err(ApiError::invalid(format!("{number} does not fit into 64 bits"))),
        },
        Data::Object(object) => {
            let bytes = object.get("hex").and_then(Data::as_str).and_then(|digits| hex::decode(digits).ok());
            let blob = bytes.filter(|_| object.len() == 1);
            Value::Blob(blob.ok_or_else(|| ApiError::invalid("a blob is written {\"hex\": \"00ff\"}"))?)
        }
        Data::Array(_) => return Err(ApiError::invalid("a parameter cannot be a list")),
    })
}

/// The rows of a result.
pub(crate) fn rows(rows: Vec<Vec<Value>>) -> Vec<Vec<Data>> {
    rows.into_iter().map(|row| row.into_iter().map(data).collect()).collect()
}

fn data(value: Value) -> Data {
    match value {
        Value::Null => Data::Null,
        Value::Integer(integer) => integer.into(),
        // JSON has no infinities.
        Value::Real(real) => {
            serde_json::Number::from_f64(real).map_or_else(|| real.to_string().into(), Data::Number)
        }
        Value::Text(text) => text.into(),
        Value::Blob(bytes) => json!({ "hex": hex::encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_to_the_database_and_back() {
        for value in
            [json!(null), json!(-1), json!(i64::MAX), json!(1.5), json!("text"), json!({"hex": "00ff"})]
        {
            assert_eq!(data(parameter(value.clone()).unwrap()), value);
        }
        assert_eq!(data(parameter(json!(true)).unwrap()), json!(1));
        assert_eq!(data(Value::Real(f64::INFINITY)), json!("inf"));
    }

    #[test]
    fn what_the_database_cannot_hold_is_refused() {
        for value in
            [json!(u64::MAX), json!([1]), json!({}), json!({"hex": "0"}), json!({"hex": "00", "x": 1})]
        {
            assert!(parameter(value.clone()).is_err(), "{value}");
        }
    }
}
