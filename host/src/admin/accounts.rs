//! `/accounts`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::audit::{Via, audit};
use super::blacklist::holding;
use super::error::ApiError;
use super::extract::{Json, Segments};
use super::usage::recent_usage;
use super::{Admin, Shared};
use crate::accounting::{Limited, RecentUsage, Whose};
use crate::accounts::{AccountView, Draft, Status};
use crate::merge_patch::patch_of;

/// All accounts.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountList {
    accounts: Vec<AccountView>,
}

/// Changes of what makes an account.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct AccountPatch(Map<String, Value>);

impl PartialSchema for AccountPatch {
    fn schema() -> RefOr<Schema> {
        patch_of(Draft::schema())
    }
}

impl ToSchema for AccountPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Draft::schemas(schemas);
    }
}

/// An account that is gone.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    deleted: String,
}

/// Those of the configuration and those of the store, without their secrets.
#[utoipa::path(get, path = "/accounts", responses((status = 200, body = AccountList)))]
pub(super) async fn list(State(admin): State<Shared>) -> Result<Answer<AccountList>, ApiError> {
    Ok(Answer(AccountList { accounts: shown(&admin, admin.accounts.list().await?).await? }))
}

/// One account, without its secrets.
#[utoipa::path(get, path = "/accounts/{name}", responses((status = 200, body = AccountView)))]
pub(super) async fn get(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<AccountView>, ApiError> {
    Ok(Answer(one(&admin, &name).await?))
}

/// One account, with what stands about it on the blacklist.
async fn one(admin: &Admin, name: &str) -> Result<AccountView, ApiError> {
    let account = admin.accounts.get(name).await?;
    let shown = shown(admin, vec![account]).await?.pop();
    shown.ok_or_else(|| ApiError::not_found(format!("there is no account named {name}")))
}

/// Accounts with what stands about them on the blacklist.
async fn shown(admin: &Admin, mut accounts: Vec<AccountView>) -> Result<Vec<AccountView>, ApiError> {
    let holding = holding(admin).await?;
    for account in &mut accounts {
        // Several may have one key, whose entries hold all of them.
        account.held = holding.get(&account.key_hash).cloned().unwrap_or_default();
        if account.status == Status::Serving && account.held.iter().any(|held| held.model.is_none()) {
            account.status = Status::Blacklisted;
        }
    }
    Ok(accounts)
}

/// What an account has used in the last 60 s and 24 h, by model too, and of each of its limits, as the log and the statistics have it: some 200 ms late.
#[utoipa::path(get, path = "/accounts/{name}/usage", responses((status = 200, body = RecentUsage)))]
pub(super) async fn usage(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<RecentUsage>, ApiError> {
    let account = admin.accounts.get(&name).await?;
    let under_way = Some(admin.accounts.under_way(&name));
    let limited = Limited { limits: &account.limits, model_limits: &account.model_limits, under_way };
    recent_usage(&admin, Whose::Account(&name, &account.key_hash), limited).await
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
    Ok((StatusCode::CREATED, Answer(one(&admin, &name).await?)))
}

/// Changes one of the store by a merge patch (RFC 7396) of what makes one: what is not named stays, null takes back.
#[utoipa::path(patch, path = "/accounts/{name}", request_body = AccountPatch, responses((status = 200, body = AccountView)))]
pub(super) async fn change(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(AccountPatch(patch)): Json<AccountPatch>,
) -> Result<Answer<AccountView>, ApiError> {
    let changed = admin.accounts.change(&name, &patch).await.map_err(ApiError::from);
    audit(via, "account change", &name, changed)?;
    Ok(Answer(one(&admin, &name).await?))
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
