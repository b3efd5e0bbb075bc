//! `/keys`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Segments};
use crate::config::limits::RATE_MOST;
use crate::keys::NewKey;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    #[serde(default)]
    description: String,
    rpm: Option<u64>,
    tpm: Option<u64>,
    rpd: Option<u64>,
    #[serde(default)]
    models: Vec<String>,
    expires_ms: Option<u64>,
}

/// The client keys, revoked ones too, without the keys themselves.
#[utoipa::path(get, path = "/keys", responses((status = 200, body = Value)))]
pub(super) async fn list(State(admin): State<Shared>) -> Result<Answer<Value>, ApiError> {
    Ok(Answer(json!({ "keys": admin.keys.list().await? })))
}

/// Makes a client key, shown this once.
#[utoipa::path(post, path = "/keys", request_body = Create, responses((status = 201, body = Value)))]
pub(super) async fn create(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(create): Json<Create>,
) -> Result<(StatusCode, Answer<Value>), ApiError> {
    let name = create.name.clone();
    let key = audit(via, "key create", &name, make(&admin, create).await)?;
    Ok((StatusCode::CREATED, Answer(json!({ "name": name, "key": key }))))
}

async fn make(admin: &Shared, create: Create) -> Result<String, ApiError> {
    let Create { name, description, rpm, tpm, rpd, models, expires_ms } = create;
    for (limit, value) in [("rpm", rpm), ("tpm", tpm), ("rpd", rpd)] {
        if value.is_some_and(|value| !(1..=RATE_MOST).contains(&value)) {
            return Err(ApiError::invalid(format!("`{limit}` must be from 1 to {RATE_MOST}"))
                .hint("leave it out for no limit"));
        }
    }
    Ok(admin.keys.create(NewKey { name, description, rpm, tpm, rpd, models, expires_ms }).await?)
}

/// Revokes the key of a name.
#[utoipa::path(delete, path = "/keys/{name}", responses((status = 200, body = Value)))]
pub(super) async fn revoke(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    let result = admin.keys.revoke(&name).await.map_err(ApiError::from);
    audit(via, "key revoke", &name, result)?;
    Ok(Answer(json!({ "revoked": name })))
}
