//! `/keys`.

mod answers;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Parameters, Segments};
use super::usage::recent_usage;
use crate::accounting::{self, Limited, RecentUsage, Whose};
use crate::keys::{KeyInfo, NewKey, OVERLAP_MS, Settings, now_ms};
use crate::merge_patch::patch_of;
use answers::{DeletionList, KeyDisabled, KeyEnabled, KeyGone, KeyList, KeyMade, KeyView};

/// A name and any of the settings.
#[derive(Deserialize)]
pub(super) struct Create {
    name: String,
    #[serde(flatten)]
    settings: Value,
}

/// One object: as a part of another the settings, which allow no further property, would refuse the name.
impl PartialSchema for Create {
    fn schema() -> RefOr<Schema> {
        let mut schema = Settings::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.description = Some("A name and any of the settings.".to_owned());
            object.properties.insert("name".to_owned(), String::schema());
            object.required.push("name".to_owned());
        }
        schema
    }
}

impl ToSchema for Create {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Settings::schemas(schemas);
    }
}

/// Changes of the settings.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct KeyPatch(Value);

impl PartialSchema for KeyPatch {
    fn schema() -> RefOr<Schema> {
        patch_of(Settings::schema())
    }
}

impl ToSchema for KeyPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Settings::schemas(schemas);
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRotate)]
pub(super) struct Rotate {
    /// How long the secret before stays valid; left out: a day.
    #[serde(default = "overlap_ms")]
    overlap_ms: u64,
}

fn overlap_ms() -> u64 {
    OVERLAP_MS
}

/// How much of the keys.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Whether each comes with what it has used: all rows of days are read for that.
    #[serde(default)]
    totals: bool,
}

/// The client keys, revoked ones too, without their secrets.
#[utoipa::path(get, path = "/keys", params(Which), responses((status = 200, body = KeyList)))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Parameters(Which { totals }): Parameters<Which>,
) -> Result<Answer<KeyList>, ApiError> {
    let keys = admin.keys.list().await?;
    if !totals {
        let keys = keys.into_iter().map(|key| KeyView::new(key, None)).collect();
        return Ok(Answer(KeyList { keys }));
    }
    let used = match admin.sql.get("gateway") {
        Some(database) => accounting::totals_by_key(database).await?,
        None => None,
    };
    let with_totals = |key: KeyInfo| {
        let totals = used.as_ref().map(|used| used.get(&key.id).cloned().unwrap_or_default());
        KeyView::new(key, Some(totals))
    };
    Ok(Answer(KeyList { keys: keys.into_iter().map(with_totals).collect() }))
}

/// Makes a client key, whose secret is shown this once.
#[utoipa::path(post, path = "/keys", request_body = Create, responses((status = 201, body = KeyMade)))]
pub(super) async fn create(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(create): Json<Create>,
) -> Result<(StatusCode, Answer<KeyMade>), ApiError> {
    let Create { name, settings } = create;
    let made = async {
        let settings = Settings::default().patched(&settings)?;
        admin.keys.create(NewKey { name: name.clone(), settings }).await
    };
    let key = audit(via, "key create", &name, made.await.map_err(ApiError::from))?;
    Ok((StatusCode::CREATED, Answer(KeyMade { key, name })))
}

/// A client key, with what it has used.
#[utoipa::path(get, path = "/keys/{name}", responses((status = 200, body = KeyView)))]
pub(super) async fn get(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<KeyView>, ApiError> {
    let key = admin.keys.get(&name).await?;
    let totals = match admin.sql.get("gateway") {
        Some(database) => accounting::totals(database, &key.id).await?,
        None => None,
    };
    Ok(Answer(KeyView::new(key, Some(totals))))
}

/// What a client key has used in the last 60 s and 24 h, by model too, and of each of its limits, as the log and the statistics have it: some 200 ms late.
#[utoipa::path(get, path = "/keys/{name}/usage", responses((status = 200, body = RecentUsage)))]
pub(super) async fn usage(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<RecentUsage>, ApiError> {
    let key = admin.keys.get(&name).await?;
    let Settings { limits, model_limits, .. } = &key.settings;
    let limited = Limited { limits, model_limits, under_way: None };
    recent_usage(&admin, Whose::Client(&key.id), limited).await
}

/// Edits a client key: a JSON merge patch (RFC 7396) of its settings, in which null removes. What it has used stays.
#[utoipa::path(patch, path = "/keys/{name}", request_body = KeyPatch, responses((status = 200, body = KeyView)))]
pub(super) async fn update(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(KeyPatch(patch)): Json<KeyPatch>,
) -> Result<Answer<KeyView>, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::invalid("the body must be an object of settings"));
    }
    let result = admin.keys.update(&name, &patch).await.map_err(ApiError::from);
    Ok(Answer(KeyView::new(audit(via, "key update", &name, result)?, None)))
}

/// Gives a client key another secret, shown this once; the one before stays valid for a while.
#[utoipa::path(post, path = "/keys/{name}/rotate", request_body = Rotate, responses((status = 200, body = KeyMade)))]
pub(super) async fn rotate(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(Rotate { overlap_ms }): Json<Rotate>,
) -> Result<Answer<KeyMade>, ApiError> {
    let result = admin.keys.rotate(&name, overlap_ms).await.map_err(ApiError::from);
    let key = audit(via, "key rotate", &name, result)?;
    Ok(Answer(KeyMade { key, name }))
}

/// Lets a client key in again that was switched off.
#[utoipa::path(post, path = "/keys/{name}/enable", responses((status = 200, body = KeyEnabled)))]
pub(super) async fn enable(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<KeyEnabled>, ApiError> {
    let result = admin.keys.enable(&name, true).await.map_err(ApiError::from);
    audit(via, "key enable", &name, result)?;
    Ok(Answer(KeyEnabled { enabled: name }))
}

/// Switches a client key off, until it is enabled.
#[utoipa::path(post, path = "/keys/{name}/disable", responses((status = 200, body = KeyDisabled)))]
pub(super) async fn disable(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<KeyDisabled>, ApiError> {
    let result = admin.keys.enable(&name, false).await.map_err(ApiError::from);
    audit(via, "key disable", &name, result)?;
    Ok(Answer(KeyDisabled { disabled: name }))
}

/// How far a key goes.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Going {
    /// Whether its records go too: its rows in the log, in the log of errors and in the statistics of its usage, and then
    /// the key itself. Statistics of days and totals of accounts stay.
    #[serde(default)]
    records: bool,
}

/// Revokes the key of a name. With `records=true`, where an id will do as well, everything that was recorded of it is
/// removed in the background, and `/deletions` tells how far that is.
#[utoipa::path(delete, path = "/keys/{name}", params(Going), responses((status = 200, body = KeyGone)))]
pub(super) async fn revoke(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Parameters(Going { records }): Parameters<Going>,
) -> Result<Answer<KeyGone>, ApiError> {
    if records {
        let mark = |key: &KeyInfo| accounting::mark(&key.id, &key.name, now_ms());
        let result = admin.keys.delete(&name, mark).await.map_err(ApiError::from);
        let id = audit(via, "key delete", &name, result)?;
        admin.erasure.begin();
        return Ok(Answer(KeyGone::Deleted { deleted: name, id }));
    }
    let result = admin.keys.revoke(&name).await.map_err(ApiError::from);
    audit(via, "key revoke", &name, result)?;
    Ok(Answer(KeyGone::Revoked { revoked: name }))
}

/// Which deletions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Sought {
    /// That of the key of this id alone; left out: the latest thousand.
    id: Option<String>,
}

/// The keys whose records are being removed, or have been within the last day; the latest first.
#[utoipa::path(get, path = "/deletions", params(Sought), responses((status = 200, body = DeletionList)))]
pub(super) async fn deletions(
    State(admin): State<Shared>,
    Parameters(Sought { id }): Parameters<Sought>,
) -> Result<Answer<DeletionList>, ApiError> {
    Ok(Answer(DeletionList { deletions: admin.erasure.list(id.as_deref()).await? }))
}
