//! `/keys`.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::Shared;
use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Parameters, Segments};
use super::usage::recent_usage;
use crate::accounting::{self, Deletion, Limited, RecentUsage, Whose};
use crate::keys::{KeyInfo, NewKey, OVERLAP_MS, Settings, now_ms};

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
#[utoipa::path(get, path = "/keys", params(Which), responses((status = 200, body = Value)))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Parameters(Which { totals }): Parameters<Which>,
) -> Result<Answer<Value>, ApiError> {
    let keys = admin.keys.list().await?;
    if !totals {
        return Ok(Answer(json!({ "keys": keys })));
    }
    let used = match admin.sql.get("gateway") {
        Some(database) => accounting::totals_by_key(database).await?,
        None => None,
    };
    let none = accounting::Totals::default();
    let keys: Result<Vec<Value>, ApiError> = keys
        .iter()
        .map(|key| with_totals(key, used.as_ref().map(|used| used.get(&key.id).unwrap_or(&none))))
        .collect();
    Ok(Answer(json!({ "keys": keys? })))
}

fn with_totals(key: &KeyInfo, totals: Option<&accounting::Totals>) -> Result<Value, ApiError> {
    let mut shown = serde_json::to_value(key).map_err(|error| ApiError::unavailable(error.to_string()))?;
    if let Value::Object(fields) = &mut shown {
        fields.insert("totals".to_owned(), json!(totals));
    }
    Ok(shown)
}

/// Makes a client key, whose secret is shown this once.
#[utoipa::path(post, path = "/keys", request_body = Create, responses((status = 201, body = Value)))]
pub(super) async fn create(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(create): Json<Create>,
) -> Result<(StatusCode, Answer<Value>), ApiError> {
    let Create { name, settings } = create;
    let made = async {
        let settings = Settings::default().patched(&settings)?;
        admin.keys.create(NewKey { name: name.clone(), settings }).await
    };
    let key = audit(via, "key create", &name, made.await.map_err(ApiError::from))?;
    Ok((StatusCode::CREATED, Answer(json!({ "name": name, "key": key }))))
}

/// A client key, with what it has used, as far back as statistics are kept. That is null where nothing is counted, as the ingestion plugin is switched off.
#[utoipa::path(get, path = "/keys/{name}", responses((status = 200, body = Value)))]
pub(super) async fn get(
    State(admin): State<Shared>,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    let key = admin.keys.get(&name).await?;
    let totals = match admin.sql.get("gateway") {
        Some(database) => accounting::totals(database, &key.id).await?,
        None => None,
    };
    Ok(Answer(with_totals(&key, totals.as_ref())?))
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
#[utoipa::path(patch, path = "/keys/{name}", request_body = Settings, responses((status = 200, body = Value)))]
pub(super) async fn update(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(patch): Json<Value>,
) -> Result<Answer<Value>, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::invalid("the body must be an object of settings"));
    }
    let result = admin.keys.update(&name, &patch).await.map_err(ApiError::from);
    Ok(Answer(json!(audit(via, "key update", &name, result)?)))
}

/// Gives a client key another secret, shown this once; the one before stays valid for a while.
#[utoipa::path(post, path = "/keys/{name}/rotate", request_body = Rotate, responses((status = 200, body = Value)))]
pub(super) async fn rotate(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Json(Rotate { overlap_ms }): Json<Rotate>,
) -> Result<Answer<Value>, ApiError> {
    let result = admin.keys.rotate(&name, overlap_ms).await.map_err(ApiError::from);
    let key = audit(via, "key rotate", &name, result)?;
    Ok(Answer(json!({ "name": name, "key": key })))
}

/// Lets a client key in again that was switched off.
#[utoipa::path(post, path = "/keys/{name}/enable", responses((status = 200, body = Value)))]
pub(super) async fn enable(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    let result = admin.keys.enable(&name, true).await.map_err(ApiError::from);
    audit(via, "key enable", &name, result)?;
    Ok(Answer(json!({ "enabled": name })))
}

/// Switches a client key off, until it is enabled.
#[utoipa::path(post, path = "/keys/{name}/disable", responses((status = 200, body = Value)))]
pub(super) async fn disable(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
) -> Result<Answer<Value>, ApiError> {
    let result = admin.keys.enable(&name, false).await.map_err(ApiError::from);
    audit(via, "key disable", &name, result)?;
    Ok(Answer(json!({ "disabled": name })))
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
/// removed in the background: `{deleted, id}`, and `/deletions` tells how far that is.
#[utoipa::path(delete, path = "/keys/{name}", params(Going), responses((status = 200, body = Value)))]
pub(super) async fn revoke(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments(name): Segments<String>,
    Parameters(Going { records }): Parameters<Going>,
) -> Result<Answer<Value>, ApiError> {
    if records {
        let mark = |key: &KeyInfo| accounting::mark(&key.id, &key.name, now_ms());
        let result = admin.keys.delete(&name, mark).await.map_err(ApiError::from);
        let id = audit(via, "key delete", &name, result)?;
        admin.erasure.begin();
        return Ok(Answer(json!({ "deleted": name, "id": id })));
    }
    let result = admin.keys.revoke(&name).await.map_err(ApiError::from);
    audit(via, "key revoke", &name, result)?;
    Ok(Answer(json!({ "revoked": name })))
}

/// Which deletions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Sought {
    /// That of the key of this id alone; left out: the latest thousand.
    id: Option<String>,
}

/// Deletions of keys with their records.
#[derive(Serialize, ToSchema)]
pub(super) struct DeletionList {
    deletions: Vec<Deletion>,
}

/// The keys whose records are being removed, or have been within the last day; the latest first.
#[utoipa::path(get, path = "/deletions", params(Sought), responses((status = 200, body = DeletionList)))]
pub(super) async fn deletions(
    State(admin): State<Shared>,
    Parameters(Sought { id }): Parameters<Sought>,
) -> Result<Answer<DeletionList>, ApiError> {
    Ok(Answer(DeletionList { deletions: admin.erasure.list(id.as_deref()).await? }))
}
