//! `POST /api/sql/{database}`: one statement, or a batch as one transaction.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Data;
use tokio::sync::OwnedSemaphorePermit;
use tollgate_store::{Access as SqlAccess, Database, Outcome, SqlError, Statement, Value};
use utoipa::ToSchema;

use super::body::turn;
use super::guard::Token;
use super::limits::{JSON_BYTES, SQL_BATCH, SQL_DEADLINE, SQL_PARAMETERS, SQL_RESULT_BYTES, SQL_TURN};
use super::{Data as Shares, Shared, named};
use crate::api::error::ApiError;
use crate::api::extract::Segments;
use crate::api::list::bounded;
use crate::api::values::{Parameter, SqlResult, parameters, values};
use crate::plugin::Access;

/// Either `sql` with `params`, or a `batch`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SqlRequest)]
pub(super) struct Request {
    /// One statement, in SQLite's dialect.
    sql: Option<String>,
    /// The values of `?1`, `?2`, …: null, a number, a text, or `{"hex": "00ff"}` for a blob.
    #[serde(default, deserialize_with = "parameters")]
    #[schema(value_type = Vec<Data>)]
    params: Vec<Parameter>,
    /// Up to 1,000 statements that count together: all of them, or on an error none.
    #[schema(value_type = Option<Vec<One>>)]
    batch: Option<Batch>,
}

pub(super) struct Batch(Vec<One>);

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        bounded(from, SQL_BATCH, |number| format!("batch[{number}]")).map(Batch)
    }
}

/// A statement of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SqlStatement)]
pub(super) struct One {
    sql: String,
    #[serde(default, deserialize_with = "parameters")]
    #[schema(value_type = Vec<Data>)]
    params: Vec<Parameter>,
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
/// Statements count as one call, which has 2 s of the database, and at most 10 s with waiting for it. A read-only scope runs
/// single statements that only read.
#[utoipa::path(post, path = "/sql/{database}", request_body = Request, responses((status = 200, body = Results)))]
pub(super) async fn run(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let scope = token.scopes.sql(&name)?;
    let (access, writes) = (scope.granted(), scope.access == Access::ReadWrite);
    let database = named(&data.stores.sql, "database", &name)?;
    let body = data.memory.whole(body, JSON_BYTES).await?;
    // Before the body is read: so many calls have values, which take more than their text.
    let (turn, place) = places(&data, &name).await?;
    let (request, share) = data.memory.parse::<Request>(body).await?;
    let database = database.with_access(access.clone()).with_deadline(SQL_DEADLINE).with_turn(SQL_TURN);
    let database = database.with_place(turn);
    let narrow = |error: SqlError| match error {
        SqlError::AccessDenied(what) => denied(&name, &access, &what),
        error => error.into(),
    };
    let (results, wrote) = match (request.sql, request.batch) {
        (Some(sql), None) => {
            let statement = Statement { sql, params: values(request.params) };
            let (outcome, wrote) = one(&database, writes, statement).await.map_err(narrow)?;
            let result = returned(vec![outcome])?.pop();
            (Results::One(result.ok_or_else(|| ApiError::internal("no result"))?), wrote)
        }
        (None, Some(batch)) if request.params.is_empty() => {
            if !writes {
                return Err(denied(&name, &SqlAccess::ReadOnly, "a batch is a transaction of the writer"));
            }
            let outcomes = database.batch(statements(batch)?).await.map_err(narrow)?;
            let results = returned(outcomes)?;
            (Results::Batch { results }, true)
        }
        _ => return Err(ApiError::invalid("give either `sql`, with `params`, or a `batch`")),
    };
    data.answers.json(results, (place, share)).await.map_err(|error| unanswered(wrote, error))
}

/// Why there is no answer, from the lack of memory for it. Whoever is told to come again after a write would write twice.
fn unanswered(wrote: bool, error: ApiError) -> ApiError {
    match wrote {
        true => ApiError::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            "answer_lost",
            "the statements took effect, but there is no memory for their answer now",
        )
        .hint("do not send them again; read what they answered with a SELECT, in pieces"),
        false => error,
    }
}

/// A place of the database, which its work keeps, then one of all: who waits for the first keeps nobody from another database.
async fn places(data: &Shares, name: &str) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), ApiError> {
    let of_one = named(&data.sql_calls_of, "database", name)?;
    let of_one = turn(of_one.clone().acquire_owned()).await?;
    Ok((of_one, turn(data.sql_calls.clone().acquire_owned()).await?))
}

fn statements(Batch(batch): Batch) -> Result<Vec<Statement>, ApiError> {
    if !(1..=SQL_BATCH).contains(&batch.len()) {
        return Err(ApiError::too_large(format!("`batch` must have 1 to {SQL_BATCH} statements")));
    }
    if batch.iter().map(|one| one.params.len()).sum::<usize>() > SQL_PARAMETERS {
        return Err(ApiError::too_large(format!("a `batch` has at most {SQL_PARAMETERS} `params`")));
    }
    Ok(batch.into_iter().map(|One { sql, params }| Statement { sql, params: values(params) }).collect())
}

/// A reader refuses what would write, so what it refuses is shown to the writer, who knows better; for a scope that writes.
/// True: the writer ran it.
async fn one(database: &Database, writes: bool, statement: Statement) -> Result<(Outcome, bool), SqlError> {
    match database.query(statement.clone()).await {
        Err(SqlError::Invalid(_) | SqlError::AccessDenied(_)) if writes => {
            Ok((database.execute(statement).await?, true))
        }
        result => Ok((result?, false)),
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
        .hint(
            "what was to be written is written; ask for the rest in pieces, with LIMIT and a WHERE that goes on after the last row",
        ));
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
