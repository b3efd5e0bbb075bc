//! `/api/kv/{store}`: a value is the body as it is, its version the entity tag.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::header::{CONTENT_TYPE, ETAG, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tollgate_store::limits::VALUE_BYTES;
use tollgate_store::{Entry, Kv, KvError, Precondition, Swapped, Unmet};
use utoipa::{IntoParams, ToSchema};

use super::conditions::{etag, precondition};
use super::guard::Token;
use super::limits::{ATTEMPTS, TTL_MOST_MS};
use super::{Data, Page, Shared, limit, named};
use crate::api::error::ApiError;
use crate::api::extract::{Parameters, Segments};
use crate::api::values::KvPage;
use crate::plugin::Access;
use crate::tokens::Keyed;

/// When an entry expires, in milliseconds since 1970.
const EXPIRES_MS: HeaderName = HeaderName::from_static("tollgate-expires-ms");

/// The store, for a token with a scope that goes so far, and covers these keys.
pub(super) fn store<'a>(
    data: &'a Data,
    token: &Token,
    name: &str,
    access: Access,
    keys: &[&str],
) -> Result<&'a Kv, ApiError> {
    let scope = token.scopes.keyed(Keyed::Kv, name, access)?;
    keys.iter().try_for_each(|key| scope.key(key))?;
    named(&data.stores.kv, "kv store", name)
}

/// Keys of a kv store, a page at a time.
#[utoipa::path(get, path = "/kv/{store}", params(Page), responses((status = 200, body = KvPage)))]
pub(super) async fn list(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    Parameters(page): Parameters<Page>,
) -> Result<Response, ApiError> {
    let prefix = token.scopes.keyed(Keyed::Kv, &name, Access::Read)?.list(page.prefix.as_deref())?;
    let kv = named(&data.stores.kv, "kv store", &name)?;
    let found = kv.list_keys(Some(prefix), page.cursor.as_deref(), limit(page.limit)?).await?;
    data.answers.json(KvPage::from(found), ()).await
}

/// The value of a key, byte for byte.
///
/// `if-none-match` with the version that the caller has is answered 304. When it expires stands in
/// `tollgate-expires-ms`.
#[utoipa::path(method(get, head), path = "/kv/{store}/{*key}",
    params(("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream", headers(("etag" = String))),
        (status = 304, description = "It still has this version"),
    ))]
pub(super) async fn get(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kv = store(&data, &token, &name, Access::Read, &[&key])?;
    let precondition = precondition(&headers)?;
    let entry = kv.get(&key).await?;
    let unmet = unmet(&precondition, entry.as_ref());
    if unmet == Some(Unmet::Match) {
        return Err(ApiError::precondition_failed());
    }
    let Some(entry) = entry else {
        return Err(ApiError::not_found(format!("there is no key `{key}` in kv store `{name}`")));
    };
    let tag = [(ETAG, etag(entry.version))];
    if unmet.is_some() {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    let plain = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    let expires = entry.expires_ms.map(|expires_ms| [(EXPIRES_MS, HeaderValue::from(expires_ms))]);
    let expires = expires.map(HeaderMap::from_iter).unwrap_or_default();
    Ok((tag, plain, expires, data.answers.bytes(&entry.value)?).into_response())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PutParameters {
    /// Milliseconds until the key is gone; left out: the store's default.
    #[param(minimum = 1, maximum = 3_153_600_000_000_i64)]
    ttl_ms: Option<u64>,
}

/// What was written.
#[derive(Serialize, ToSchema)]
#[schema(as = KvWritten)]
pub(super) struct Written {
    /// The key.
    key: String,
    /// Its version, which is the entity tag too.
    version: u64,
}

/// Writes the body as the value of a key, at most 1 MiB.
///
/// `if-none-match: *` writes only an absent key, `if-match` only one of that version. Its content type is not kept.
#[utoipa::path(put, path = "/kv/{store}/{*key}",
    params(PutParameters, ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header)),
    request_body(content = Option<Vec<u8>>, content_type = "application/octet-stream"),
    responses((status = 200, body = Written, headers(("etag" = String)))))]
pub(super) async fn put(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(PutParameters { ttl_ms }): Parameters<PutParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let kv = store(&data, &token, &name, Access::ReadWrite, &[&key])?;
    let precondition = precondition(&headers)?;
    check_ttl(ttl_ms)?;
    let body = data.memory.whole(body, VALUE_BYTES).await?;
    let value = body.bytes.to_vec();
    let version = if precondition == Precondition::default() {
        kv.put(&key, value, ttl_ms).await?
    } else {
        swap(kv, &key, &precondition, value, ttl_ms).await?
    };
    Ok(([(ETAG, etag(version))], Answer(Written { key, version })).into_response())
}

/// Writes a value if the precondition holds at that instant.
async fn swap(
    kv: &Kv,
    key: &str,
    precondition: &Precondition,
    value: Vec<u8>,
    ttl_ms: Option<u64>,
) -> Result<u64, ApiError> {
    let mut present = kv.get(key).await?;
    for _ in 0..ATTEMPTS {
        if unmet(precondition, present.as_ref()).is_some() {
            return Err(ApiError::precondition_failed());
        }
        let expected = present.as_ref().map(|entry| entry.version);
        match kv.swap(key, expected, value.clone(), ttl_ms).await? {
            Swapped::Swapped(version) => return Ok(version),
            Swapped::Stale(entry) => present = entry,
        }
    }
    Err(contended())
}

/// Removes a key; one that is not there is no error.
#[utoipa::path(delete, path = "/kv/{store}/{*key}",
    params(("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header)),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let kv = store(&data, &token, &name, Access::ReadWrite, &[&key])?;
    let precondition = precondition(&headers)?;
    if precondition == Precondition::default() {
        kv.delete(&key).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    for _ in 0..ATTEMPTS {
        let mut change = kv.transaction();
        // What the transaction read stands until its commit, so that the version read after it is of the same value.
        change.get(kv, &key).await?;
        if unmet(&precondition, kv.get(&key).await?.as_ref()).is_some() {
            return Err(ApiError::precondition_failed());
        }
        change.delete(kv, &key)?;
        match change.commit().await {
            Err(KvError::Conflict) => {}
            result => return Ok(result.map(|()| StatusCode::NO_CONTENT)?),
        }
    }
    Err(contended())
}

/// What to add to a number.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Increment {
    /// What is added.
    increment: i64,
    /// Milliseconds until the key is gone, if this makes it; otherwise its expiry stays.
    #[schema(minimum = 1, maximum = 3_153_600_000_000_i64)]
    ttl_ms: Option<u64>,
}

/// A number after an increment.
#[derive(Serialize, ToSchema)]
pub(super) struct Sum {
    /// The key.
    key: String,
    /// The sum.
    value: i64,
}

/// Adds to a decimal number in one step; an absent key counts as 0.
#[utoipa::path(post, path = "/kv/{store}/{*key}", request_body = Increment, responses((status = 200, body = Sum)))]
pub(super) async fn increment(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    body: Body,
) -> Result<Answer<Sum>, ApiError> {
    let kv = store(&data, &token, &name, Access::ReadWrite, &[&key])?;
    let (Increment { increment, ttl_ms }, _share) = data.memory.json(body).await?;
    check_ttl(ttl_ms)?;
    let value = kv.increment(&key, increment, ttl_ms).await?;
    Ok(Answer(Sum { key, value }))
}

/// A value that is gone at once is a mistake, and so is one that outlives us all.
pub(super) fn check_ttl(ttl_ms: Option<u64>) -> Result<(), ApiError> {
    if ttl_ms.is_some_and(|ttl_ms| !(1..=TTL_MOST_MS).contains(&ttl_ms)) {
        return Err(ApiError::invalid(format!("`ttl_ms` must be from 1 to {TTL_MOST_MS}")));
    }
    Ok(())
}

fn unmet(precondition: &Precondition, present: Option<&Entry>) -> Option<Unmet> {
    precondition.unmet(present.map(|entry| entry.version.to_string()).as_deref())
}

fn contended() -> ApiError {
    ApiError::conflict("others write this key all the time").hint("come again in a second")
}
