//! `/reload`.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;

/// Reads the configuration again; the error says what is wrong with it.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Reloaded, String>> + Send + Sync>;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// The keys and tables of the file that took over.
    pub changed: Vec<String>,
    /// Those that say something else than the server runs with, and need a restart.
    pub restart: Vec<String>,
}

/// Reads the configuration again, and lets what can change take over at once. A file with anything wrong in it changes
/// nothing.
#[utoipa::path(post, path = "/reload", responses((status = 200, body = Reloaded)))]
pub(super) async fn reload(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
) -> Result<Answer<Reloaded>, ApiError> {
    let reloaded = (admin.reload)().await;
    let refused = |problem| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", problem);
    Ok(Answer(audit(via, "reload", "", reloaded.map_err(refused))?))
}
