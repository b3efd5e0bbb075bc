//! `POST /api/sql/{database}`: one statement, or a batch as one transaction.

use axum::body::Body;
use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::Value as Data;
use tollgate_store::{Access as SqlAccess, Database, Outcome, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::body::turn;
use super::guard::Token;
use super::limits::{SQL_BATCH, SQL_DEADLINE, SQL_RESULT_BYTES, SQL_TURN};
use super::{Shared, named};
use crate::api::error::ApiError;
use crate::api::extract::Segments;
use crate::api::values::{SqlResult, parameters};

/// Either `sql` with `params`, or a `batch`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SqlRequest)]
pub(super) struct Request {
    /// One statement, in SQLite's dialect.
    sql: Option<String>,
    /// The values of `?1`, `?2`, …: null, a number, a text, or `{"hex": "00ff"}` for a blob.
    #[serde(default)]
    params: Vec<Data>,
    /// Up to 1,000 statements that count together: all of them, or on an error none.
    batch: Option<Vec<One>>,
}

/// A statement of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SqlStatement)]
pub(super) struct One {
    sql: String,
    #[serde(default)]
    params: Vec<Data>,
}

/// The result of a statement, or the results of a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SqlAnswer)]
pub(super) enum Results {
    One(SqlResult),
    Batch {
        /// In the order of the batch.
        results: Vec<SqlResult>,
    },
}

/// Runs a statement, or a batch as one transaction; what it wrote is on disk when it is answered.
///
/// Statements count as one call of at most 10 s. A read-only scope runs single statements that only read.
#[utoipa::path(post, path = "/sql/{database}", request_body = Request, responses((status = 200, body = Results)))]
pub(super) async fn run(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    body: Body,
) -> Result<Answer<Results>, ApiError> {
    let access = token.scopes.sql(&name)?;
    let database = named(&data.stores.sql, "database", &name)?;
    let (request, _share) = data.memory.json::<Request>(body).await?;
    let call = turn(data.sql_calls.clone().acquire_owned()).await?;
    let database = database.with_access(access.clone()).with_deadline(SQL_DEADLINE).with_turn(SQL_TURN);
    let database = database.with_place(call);
    let narrow = |error: SqlError| match error {
        SqlError::AccessDenied(what) => denied(&name, &access, &what),
        error => error.into(),
    };
    Ok(Answer(match (request.sql, request.batch) {
        (Some(sql), None) => {
            let statement = Statement { sql, params: parameters(request.params)? };
            let outcome = one(&database, &access, statement).await.map_err(narrow)?;
            Results::One(returned(vec![outcome])?.pop().ok_or_else(|| ApiError::internal("no result"))?)
        }
        (None, Some(batch)) if request.params.is_empty() => {
            let outcomes = database.batch(statements(batch)?).await.map_err(narrow)?;
            Results::Batch { results: returned(outcomes)? }
        }
        _ => return Err(ApiError::invalid("give either `sql`, with `params`, or a `batch`")),
    }))
}

fn statements(batch: Vec<One>) -> Result<Vec<Statement>, ApiError> {
    if !(1..=SQL_BATCH).contains(&batch.len()) {
        return Err(ApiError::too_large(format!("`batch` must have 1 to {SQL_BATCH} statements")));
    }
    let read = |(number, One { sql, params }): (usize, One)| {
        let params = parameters(params).map_err(|error| error.at(format!("batch[{number}]")))?;
        Ok(Statement { sql, params })
    };
    batch.into_iter().enumerate().map(read).collect()
}

/// A reader refuses what would write, so what it refuses is shown to the writer, who knows better.
async fn one(database: &Database, access: &SqlAccess, statement: Statement) -> Result<Outcome, SqlError> {
    match database.query(statement.clone()).await {
        Err(SqlError::Invalid(_) | SqlError::AccessDenied(_)) if *access != SqlAccess::ReadOnly => {
            database.execute(statement).await
        }
        result => result,
    }
}

fn returned(outcomes: Vec<Outcome>) -> Result<Vec<SqlResult>, ApiError> {
    let values = outcomes.iter().flat_map(|outcome| outcome.rows.iter().flatten()).map(size);
    let names = outcomes.iter().flat_map(|outcome| outcome.columns.iter()).map(|name| 16 + name.len());
    let bytes = values.chain(names).sum::<usize>();
    if bytes > SQL_RESULT_BYTES {
        return Err(ApiError::too_large(format!(
            "an answer has at most {SQL_RESULT_BYTES} bytes of values and names"
        ))
        .hint("ask for it in pieces, with LIMIT and a WHERE that goes on after the last row"));
    }
    Ok(outcomes.into_iter().map(SqlResult::from).collect())
}

/// What a value comes to in an answer, nearly.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Integer(_) | Value::Real(_) => 16,
        Value::Text(text) => 16 + text.len(),
        Value::Blob(bytes) => 16 + 2 * bytes.len(),
    }
}

/// Says which scope would be needed.
fn denied(database: &str, access: &SqlAccess, what: &str) -> ApiError {
    let lacks = match access {
        SqlAccess::ReadOnly => format!("the token lacks the scope `sql {database}:read-write`: {what}"),
        SqlAccess::Tables { .. } => format!("the token's scope `sql {database}` does not cover this: {what}"),
        SqlAccess::Full => format!("nobody may do this over the API: {what}"),
    };
    ApiError::new(http::StatusCode::FORBIDDEN, "scope_missing", lacks)
}
