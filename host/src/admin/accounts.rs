//! `/accounts`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Segments};
use crate::accounts::{AccountView, Draft};

/// All accounts.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountList {
    accounts: Vec<AccountView>,
}

/// An account that is gone.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    deleted: String,
}

/// Those of the configuration and those of the store, without their secrets.
#[utoipa::path(get, path = "/accounts", responses((status = 200, body = AccountList)))]
pub(super) async fn list(State(admin): State<Shared>) -> Result<Answer<AccountList>, ApiError> {
    Ok(Answer(AccountList { accounts: admin.accounts.list().await? }))
}

/// One account, without its secrets.
#[utoipa::path(get, path = "/accounts/{name}", responses((status = 200, body = AccountView)))]
pub(super) async fn get(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<AccountView>, ApiError> {
    Ok(Answer(admin.accounts.get(&name).await?))
}

/// Makes one in the store, which serves from then on.
#[utoipa::path(post, path = "/accounts", request_body = Draft, responses((status = 201, body = AccountView)))]
pub(super) async fn create(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(draft): Json<Draft>,
) -> Result<(StatusCode, Answer<AccountView>), ApiError> {
    let name = draft.name.clone();
    let created = admin.accounts.create(draft).await.map_err(ApiError::from);
    audit(via, "account create", &name, created)?;
    Ok((StatusCode::CREATED, Answer(admin.accounts.get(&name).await?)))
}

/// Changes one of the store by a merge patch (RFC 7396) of what makes one: what is not named stays, null takes back.
#[utoipa::path(patch, path = "/accounts/{name}", request_body = Value, responses((status = 200, body = AccountView)))]
pub(super) async fn change(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Answer<AccountView>, ApiError> {
    let changed = admin.accounts.change(&name, &patch).await.map_err(ApiError::from);
    audit(via, "account change", &name, changed)?;
    Ok(Answer(admin.accounts.get(&name).await?))
}

/// Removes one from the store. Requests that run on it finish.
#[utoipa::path(delete, path = "/accounts/{name}", responses((status = 200, body = Deleted)))]
pub(super) async fn delete(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<Deleted>, ApiError> {
    let deleted = admin.accounts.delete(&name).await.map_err(ApiError::from);
    audit(via, "account delete", &name, deleted)?;
    Ok(Answer(Deleted { deleted: name }))
}
