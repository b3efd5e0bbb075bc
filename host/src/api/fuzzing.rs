//! What the fuzz targets reach of values in JSON.

use serde_json::Value as Data;
use tollgate_store::Value;

use super::values::{self, Row};

/// Parameters as a store takes them, unless they are refused.
pub fn parameters(data: Vec<Data>) -> Option<Vec<Value>> {
    values::parameters(Data::Array(data)).map(values::values).ok()
}

/// A row as both APIs write it.
pub fn row(row: Vec<Value>) -> Vec<Data> {
    match serde_json::to_value(Row(&row)) {
        Ok(Data::Array(row)) => row,
        _ => Vec::new(),
    }
}
