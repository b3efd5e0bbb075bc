//! What the fuzz targets reach of values in JSON.

use serde_json::Value as Data;
use tollgate_store::Value;

use super::values;

/// Parameters as a store takes them, unless they are refused.
pub fn parameters(data: Vec<Data>) -> Option<Vec<Value>> {
    values::parameters(data).ok()
}

/// A row as both APIs write it.
pub fn row(row: Vec<Value>) -> Vec<Data> {
    values::rows(vec![row]).pop().unwrap_or_default()
}
