//! `tollgate sql`.

use http::Method;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::failure::Failure;
use super::output;

pub(super) async fn run(client: &Client, database: &str, sql: &str, json: bool) -> Result<(), Failure> {
    let path = format!("/sql/{}", segment(database));
    let answer = client.json(Method::POST, &path, &json!({ "sql": sql, "params": [] })).await?;
    if json {
        return Ok(output::print_json(&answer)?);
    }
    let list = |name: &str| answer.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let columns = list("columns");
    if columns.is_empty() {
        let written = answer.get("rows_written").and_then(Value::as_u64).unwrap_or_default();
        eprintln!("{written} rows written");
        return Ok(());
    }
    let columns: Vec<_> = columns.iter().filter_map(Value::as_str).collect();
    let rows: Vec<_> =
        list("rows").into_iter().map(|row| row.as_array().cloned().unwrap_or_default()).collect();
    Ok(output::print_table(&columns, &rows)?)
}
