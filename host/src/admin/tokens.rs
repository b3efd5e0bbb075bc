//! `/tokens`: data tokens.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Segments};
use crate::tokens::{NewToken, TokenInfo};

/// The data tokens there are.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenList)]
pub(super) struct List {
    /// In the order of their names.
    tokens: Vec<TokenInfo>,
}

/// A data token that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenMade)]
pub(super) struct Made {
    /// Its name.
    name: String,
    /// The token itself, shown this once.
    token: String,
}

/// A data token that is no more.
#[derive(Serialize, ToSchema)]
#[schema(as = TokenRevoked)]
pub(super) struct Revoked {
    /// Its name.
    revoked: String,
}

/// The data tokens, without the tokens themselves.
#[utoipa::path(get, path = "/tokens", responses((status = 200, body = List)))]
pub(super) async fn list(State(admin): State<Shared>) -> Result<Answer<List>, ApiError> {
    Ok(Answer(List { tokens: admin.tokens.list().await? }))
}

/// Makes a data token, shown this once.
#[utoipa::path(post, path = "/tokens", request_body = NewToken, responses((status = 201, body = Made)))]
pub(super) async fn create(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Answer<Made>), ApiError> {
    let name = new.name.clone();
    let made = admin.tokens.create(new).await.map_err(ApiError::from);
    let token = audit(via, "token create", &name, made)?;
    Ok((StatusCode::CREATED, Answer(Made { name, token })))
}

/// Revokes the data token of a name; requests with it are refused from now on.
#[utoipa::path(delete, path = "/tokens/{name}", responses((status = 200, body = Revoked)))]
pub(super) async fn revoke(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<Revoked>, ApiError> {
    let result = admin.tokens.revoke(&name).await.map_err(ApiError::from);
    audit(via, "token revoke", &name, result)?;
    Ok(Answer(Revoked { revoked: name }))
}
