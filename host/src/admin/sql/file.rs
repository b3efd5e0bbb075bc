//! `/sql/{database}/file`: a database as an SQLite file.

use std::io;

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tollgate_store::sql::{Export, Imported};
use tollgate_store::{Database, SqlError};
use utoipa::ToSchema;

use super::named;
use crate::admin::Shared;
use crate::admin::audit::{Via, audit};
use crate::admin::error::ApiError;
use crate::admin::extract::{Parameters, Segments};
use crate::admin::limits::{SQL_FILE_DEADLINE, SQL_FILE_STALL};
use crate::api::sent::sent;
use crate::config::GATEWAY_DATABASE;

const TYPE: &str = "application/vnd.sqlite3";

/// The database as it is now, as a file that any SQLite opens.
#[utoipa::path(get, path = "/sql/{database}/file", responses((status = 200, body = Vec<u8>, content_type = TYPE)))]
pub(crate) async fn export(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Response, ApiError> {
    let export = named(&admin, &name)?.with_deadline(SQL_FILE_DEADLINE).export().await?;
    // No change, but all that is in the database leaves it: nothing does that is not written down.
    let written = admin.trail.write(via.name(), "sql export", &name, None).await;
    let unwritten =
        |error| ApiError::unavailable(format!("the export cannot be written into the audit log: {error}"));
    audit(via, "sql export", &name, written.map_err(unwritten))?;
    let headers = [(CONTENT_TYPE, TYPE.to_owned()), (CONTENT_LENGTH, export.size().to_string())];
    let pieces = stream::unfold(Some(export), async |export: Option<Export>| {
        let mut export = export?;
        match export.next().await {
            Ok(Some(piece)) => Some((Ok(Bytes::from(piece)), Some(export))),
            Ok(None) => None,
            // Cuts the body off, whose length is known to the client.
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    });
    // An export pins a snapshot, which a client that stops reading must not do for ever.
    Ok((headers, sent(pieces, SQL_FILE_STALL, SQL_FILE_DEADLINE)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportParameters {
    #[serde(default)]
    replace: bool,
}

/// A database that has come.
#[derive(Serialize, ToSchema)]
#[schema(as = DatabaseImported)]
pub(crate) struct Came {
    /// Bytes of the file.
    bytes: u64,
    /// Tables in it.
    tables: u64,
}

/// Replaces all that is in the database by the SQLite file in the body. Without `?replace=true` the
/// database must be empty. The old content serves until the file has come whole and was checked.
#[utoipa::path(put, path = "/sql/{database}/file", params(("replace" = Option<bool>, Query)),
    request_body(content = Vec<u8>, content_type = TYPE), responses((status = 200, body = Came)))]
pub(crate) async fn import(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Parameters(ImportParameters { replace }): Parameters<ImportParameters>,
    body: Body,
) -> Result<Answer<Came>, ApiError> {
    let mut pieces = body.into_data_stream();
    let result = match named(&admin, &name) {
        Ok(_) if name == GATEWAY_DATABASE => Err(ApiError::invalid(format!(
            "`{name}` is the server's own database and cannot be replaced while it runs"
        ))
        .hint("import into a database that [sql.NAME] in tollgate.toml names")),
        Ok(database) => take(database, replace, &mut pieces).await,
        Err(error) => Err(error),
    };
    let imported = audit(via, "sql import", &name, result)?;
    Ok(Answer(Came { bytes: imported.bytes, tables: imported.tables }))
}

async fn take(database: &Database, replace: bool, pieces: &mut BodyDataStream) -> Result<Imported, ApiError> {
    let mut import = database.with_deadline(SQL_FILE_DEADLINE).import(replace).await.map_err(explain)?;
    loop {
        let late =
            |_| ApiError::invalid(format!("no byte of the body came for {} s", SQL_FILE_STALL.as_secs()));
        match timeout(SQL_FILE_STALL, pieces.next()).await.map_err(late)? {
            Some(Ok(piece)) => import.write(&piece).await.map_err(explain)?,
            Some(Err(error)) => return Err(ApiError::invalid(format!("the body broke off: {error}"))),
            None => return import.finish().await.map_err(explain),
        }
    }
}

fn explain(error: SqlError) -> ApiError {
    if error.is_not_empty() {
        return ApiError::conflict(error.to_string())
            .hint("--replace, or ?replace=true, gives up what is in the database");
    }
    error.into()
}
