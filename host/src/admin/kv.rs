//! `/kv/{store}`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use tollgate_store::{Kv, SetOptions};
use utoipa::{IntoParams, ToSchema};

use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Body, Parameters, Segments};
use super::limits::{PAGE_KEYS, PAGE_KEYS_DEFAULT};
use super::{Admin, Shared};
use crate::api::values::{KvEntry, KvPage};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParameters {
    pub(super) prefix: Option<String>,
    pub(super) cursor: Option<String>,
    limit: Option<u32>,
}

impl PageParameters {
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(PAGE_KEYS_DEFAULT) {
            limit @ 1..=PAGE_KEYS => Ok(limit),
            _ => Err(ApiError::invalid(format!("`limit` must be from 1 to {PAGE_KEYS}"))),
        }
    }
}

/// Keys in order; with a cursor there are more.
#[utoipa::path(get, path = "/kv/{store}", params(PageParameters), responses((status = 200, body = KvPage)))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<KvPage>, ApiError> {
    let kv = store(&admin, &name)?;
    let found = kv.list_keys(page.prefix.as_deref(), page.cursor.as_deref(), page.limit()?).await?;
    Ok(Answer(found.into()))
}

/// One entry.
#[utoipa::path(get, path = "/kv/{store}/{*key}", responses((status = 200, body = KvEntry)))]
pub(super) async fn get(
    State(admin): State<Shared>,
    Segments((name, key)): Segments<(String, String)>,
) -> Result<Answer<KvEntry>, ApiError> {
    let Some(entry) = store(&admin, &name)?.get(&key).await? else {
        return Err(ApiError::not_found(format!("there is no key `{key}` in kv store `{name}`")));
    };
    Ok(Answer(KvEntry::new(key, &entry)))
}

/// The key that was written or removed.
#[derive(Serialize, ToSchema)]
#[schema(as = KvChanged)]
pub(super) struct Changed {
    key: String,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SetParameters {
    ttl_ms: Option<u64>,
}

/// Writes the body as the value, which is gone after `ttl_ms`; without it the store's default applies.
#[utoipa::path(put, path = "/kv/{store}/{*key}", params(SetParameters), request_body(content = Option<Vec<u8>>, content_type = "application/octet-stream"), responses((status = 200, body = Changed)))]
pub(super) async fn set(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(SetParameters { ttl_ms }): Parameters<SetParameters>,
    Body(value): Body,
) -> Result<Answer<Changed>, ApiError> {
    let options = SetOptions { ttl_ms, if_absent: false };
    let written = store(&admin, &name)?.set(&key, value.to_vec(), options).await;
    audit(via, "kv set", &name, written.map_err(ApiError::from))?;
    Ok(Answer(Changed { key }))
}

/// Removes a key; one that is not there is no error.
#[utoipa::path(delete, path = "/kv/{store}/{*key}", responses((status = 200, body = Changed)))]
pub(super) async fn delete(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments((name, key)): Segments<(String, String)>,
) -> Result<Answer<Changed>, ApiError> {
    let removed = store(&admin, &name)?.delete(&key).await;
    audit(via, "kv delete", &name, removed.map_err(ApiError::from))?;
    Ok(Answer(Changed { key }))
}

fn store<'a>(admin: &'a Admin, name: &str) -> Result<&'a Kv, ApiError> {
    admin.kv.get(name).ok_or_else(|| {
        let names: Vec<_> = admin.kv.keys().map(String::as_str).collect();
        ApiError::not_found(format!("there is no kv store `{name}`"))
            .hint(format!("there are: {}", names.join(", ")))
    })
}
