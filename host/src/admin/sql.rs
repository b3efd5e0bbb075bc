//! `/sql/{database}`.

pub(super) mod file;
mod lines;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::HeaderMap;
use http::header::ACCEPT;
use serde::Deserialize;
use serde_json::Value as Data;
use tollgate_store::{Database, Outcome, SqlError, Statement};
use utoipa::ToSchema;

use super::audit::{Gone, Via, audit};
use super::error::ApiError;
use super::extract::{Json, Segments};
use super::limits::{SQL_DEADLINE, SQL_LINES_DEADLINE};
use super::{Admin, Shared};
use crate::api::values::{Parameter, SqlResult, parameters, values};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdminQuery)]
pub(super) struct Query {
    sql: String,
    #[serde(default, deserialize_with = "parameters")]
    #[schema(value_type = Vec<Data>)]
    params: Vec<Parameter>,
}

/// Runs one statement: `{sql, params?}` → `{columns, rows, rows_written, last_insert_rowid}`. A blob is
/// `{"hex": "…"}`, both ways.
///
/// With `accept: application/x-ndjson` the answer is lines of JSON, for a result of any size: `{"columns": […]}`, then an
/// array for each row, then `{"rows", "rows_written", "last_insert_rowid"}`, or `{"error": …}` if it broke off.
#[utoipa::path(post, path = "/sql/{database}", request_body = Query,
    responses((status = 200, content((SqlResult = "application/json"), (String = "application/x-ndjson")))))]
pub(super) async fn run(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Extension(gone): Extension<Gone>,
    Segments(name): Segments<String>,
    headers: HeaderMap,
    Json(Query { sql, params }): Json<Query>,
) -> Result<Response, ApiError> {
    let database = named(&admin, &name)?;
    let statement = Statement { sql, params: values(params) };
    if headers.get(ACCEPT).is_some_and(|accepted| accepted == lines::TYPE) {
        let reader = database.with_deadline(SQL_LINES_DEADLINE);
        return match gone.unless(reader.pages(statement.clone())).await? {
            Err(SqlError::Invalid(_) | SqlError::AccessDenied(_)) => {
                Ok(lines::of_outcome(write(database, statement, via, &name).await?))
            }
            result => Ok(lines::of_pages(result?)),
        };
    }
    let reader = database.with_deadline(SQL_DEADLINE);
    let outcome = match gone.unless(reader.query(statement.clone())).await? {
        Err(SqlError::Invalid(_) | SqlError::AccessDenied(_)) => {
            write(database, statement, via, &name).await?
        }
        result => result?,
    };
    Ok(Answer(SqlResult::from(outcome)).into_response())
}

/// A reader refuses what would write, so what it refuses is shown to the writer, who knows better.
async fn write(database: &Database, statement: Statement, via: Via, name: &str) -> Result<Outcome, ApiError> {
    let result = database.with_deadline(SQL_DEADLINE).execute(statement).await.map_err(ApiError::from);
    audit(via, "sql", name, result)
}

fn named<'a>(admin: &'a Admin, name: &str) -> Result<&'a Database, ApiError> {
    admin.sql.get(name).ok_or_else(|| {
        let names: Vec<_> = admin.sql.keys().map(String::as_str).collect();
        ApiError::not_found(format!("there is no database `{name}`"))
            .hint(format!("there are: {}", names.join(", ")))
    })
}
