//! `/sql/{database}`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::Deserialize;
use serde_json::{Value as Data, json};
use tollgate_store::{SqlError, Statement};
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Segments};
use super::limits::SQL_DEADLINE;
use crate::api::values::{parameters, rows};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AdminQuery)]
pub(super) struct Query {
    sql: String,
    #[serde(default)]
    params: Vec<Data>,
}

/// Runs one statement: `{sql, params?}` → `{columns, rows, rows_written, last_insert_rowid}`. A blob is
/// `{"hex": "…"}`, both ways.
#[utoipa::path(post, path = "/sql/{database}", request_body = Query, responses((status = 200, body = Value)))]
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
    let statement = Statement { sql, params: parameters(params)? };
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
