//! `/sql/{database}`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::Deserialize;
use serde_json::{Value as Data, json};
use tollgate_store::{SqlError, Statement, Value};

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Segments};
use super::limits::SQL_DEADLINE;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    sql: String,
    #[serde(default)]
    params: Vec<Data>,
}

/// Runs one statement: `{sql, params?}` → `{columns, rows, rows_written, last_insert_rowid}`. A blob is
/// `{"hex": "…"}`, both ways.
pub(super) async fn run(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(Query { sql, params }): Json<Query>,
) -> Result<Answer<Data>, ApiError> {
    let Some(database) = admin.sql.get(&name) else {
        let names: Vec<_> = admin.sql.keys().map(String::as_str).collect();
        return Err(ApiError::not_found(format!("there is no database `{name}`"))
            .hint(format!("there are: {}", names.join(", "))));
    };
    let params = params.into_iter().map(parameter).collect::<Result<Vec<_>, _>>()?;
    let statement = Statement { sql, params };
    let database = database.with_deadline(SQL_DEADLINE);
    let outcome = match database.query(statement.clone()).await {
        // A reader refuses what would write, so what it refuses is shown to the writer, who knows better.
        Err(SqlError::Invalid(_) | SqlError::AccessDenied(_)) => {
            let result = database.execute(statement).await.map_err(ApiError::from);
            audit(via, "sql", &name, result)?
        }
        result => result?,
    };
    Ok(Answer(json!({
        "columns": outcome.columns,
        "rows": rows(outcome.rows),
        "rows_written": outcome.rows_written,
        "last_insert_rowid": outcome.last_insert_rowid,
    })))
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

fn rows(rows: Vec<Vec<Value>>) -> Vec<Vec<Data>> {
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
