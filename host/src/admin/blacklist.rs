//! `/blacklist`: entries of the kv store that the blacklist plugin goes by.
//!
//! A key is `account:ID` or `client:ID`, with `/MODEL` behind it for one model; a value is JSON with reason, created_ms
//! and until_ms (`plugins/guest/src/blacklist.rs` documents both).

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use tollgate_store::{Entry, Kv};
use utoipa::{IntoParams, ToSchema};

use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Parameters, Segments};
use super::kv::PageParameters;
use super::limits::{BLACKLIST_BATCH, BLACKLIST_TTL_MS, PAGE_KEYS, REASON_BYTES};
use super::{Admin, Shared};
use crate::accounts::Held;
use crate::api::list::bounded;
use crate::keys::KeyInfo;

/// The kv store.
const STORE: &str = "blacklist";

/// Life of an entry whose maker names none: 24 h.
const DEFAULT_TTL_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BlacklistAdd)]
pub(super) struct Add {
    account: Option<String>,
    client: Option<String>,
    model: Option<String>,
    reason: String,
    ttl_ms: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BlacklistAddMany)]
pub(super) struct AddMany {
    #[serde(deserialize_with = "entries")]
    entries: Vec<Add>,
}

fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Add>, D::Error> {
    bounded(from, BLACKLIST_BATCH, |number| format!("entries[{number}]"))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    model: Option<String>,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Account,
    Client,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Client => "client",
        }
    }
}

/// An entry: what the plugin wrote, with the key taken apart.
#[derive(Serialize, ToSchema)]
#[schema(as = BlacklistEntry)]
pub(super) struct Listed {
    key: String,
    /// `account` or `client`.
    kind: String,
    /// The hash of the subject's key.
    id: String,
    /// The quota that it is for, such as `rpm`; null: none, or it does not say.
    limit: Option<String>,
    /// The account's name; null: it is gone, or the subject is a client.
    name: Option<String>,
    /// Whether it keeps its subject out now.
    active: bool,
    /// What the plugin wrote: `reason`, `created_ms`, `until_ms`, `model` and what else it knows.
    entry: Value,
    /// Milliseconds since 1970, UTC, when it is removed; null: never.
    expires_ms: Option<u64>,
}

/// Entries in the order of their keys.
#[derive(Serialize, ToSchema)]
#[schema(as = BlacklistPage)]
pub(super) struct ListedPage {
    entries: Vec<Listed>,
    /// Where the next page starts; null: this was the last.
    cursor: Option<String>,
}

/// How many entries there are.
#[derive(Serialize, ToSchema)]
#[schema(as = BlacklistStats)]
pub(super) struct Counted {
    total: u64,
    /// Those that keep their subject out now.
    active: u64,
    /// Those that are over, and wait for a request that tries again.
    expired: u64,
}

/// Entries that were made.
#[derive(Serialize, ToSchema)]
#[schema(as = BlacklistMade)]
pub(super) struct Made {
    entries: Vec<Listed>,
}

/// Whether a subject is kept out.
#[derive(Serialize, ToSchema)]
#[schema(as = BlacklistAnswer)]
pub(super) struct Checked {
    blacklisted: bool,
    /// By what; null: it is not.
    entry: Option<Listed>,
}

/// An entry that is gone.
#[derive(Serialize, ToSchema)]
#[schema(as = BlacklistRemoved)]
pub(super) struct Removed {
    /// Its key.
    removed: String,
}

/// Entries in the order of their keys. A page may hold fewer than asked for.
#[utoipa::path(get, path = "/blacklist", params(PageParameters), responses((status = 200, body = ListedPage)))]
pub(super) async fn list(
    State(admin): State<Shared>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<ListedPage>, ApiError> {
    let kv = store(&admin)?;
    let found = kv.list_keys(page.prefix.as_deref(), page.cursor.as_deref(), page.limit()?).await?;
    let now_ms = now_ms();
    let entries = present(kv, &found.keys).await?;
    let entries = entries.iter().map(|(key, entry)| describe(&admin, key, entry, now_ms)).collect();
    Ok(Answer(ListedPage { entries, cursor: found.cursor }))
}

/// How many entries there are, keep their subject out now, or are over and wait for a request that tries again.
#[utoipa::path(get, path = "/blacklist/stats", responses((status = 200, body = Counted)))]
pub(super) async fn stats(State(admin): State<Shared>) -> Result<Answer<Counted>, ApiError> {
    let kv = store(&admin)?;
    let (mut total, mut active) = (0_u64, 0_u64);
    let mut cursor: Option<String> = None;
    loop {
        let page = kv.list_keys(None, cursor.as_deref(), PAGE_KEYS).await?;
        let now_ms = now_ms();
        for (_, entry) in present(kv, &page.keys).await? {
            total += 1;
            active += u64::from(holds(&entry, now_ms));
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(Answer(Counted { total, active, expired: total - active }));
        }
    }
}

/// Puts an account or client, by name or id, on the list.
#[utoipa::path(post, path = "/blacklist", request_body = Add, responses((status = 201, body = Listed)))]
pub(super) async fn add(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(add): Json<Add>,
) -> Result<(StatusCode, Answer<Listed>), ApiError> {
    let added = put(&admin, vec![add]).await;
    let target = added.as_ref().map(|added| added.keys.join(", ")).unwrap_or_default();
    let mut added = audit(via, "blacklist add", &target, added)?;
    let entry =
        added.entries.pop().ok_or_else(|| ApiError::conflict("the entry has been removed meanwhile"))?;
    Ok((StatusCode::CREATED, Answer(entry)))
}

/// Puts several on the list, all of them or none: `{entries: […]}` both ways.
#[utoipa::path(post, path = "/blacklist/batch", request_body = AddMany, responses((status = 201, body = Made)))]
pub(super) async fn add_many(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(AddMany { entries }): Json<AddMany>,
) -> Result<(StatusCode, Answer<Made>), ApiError> {
    let added = put(&admin, entries).await;
    let target = added.as_ref().map(|added| format!("{} entries", added.keys.len())).unwrap_or_default();
    let added = audit(via, "blacklist add", &target, added)?;
    Ok((StatusCode::CREATED, Answer(Made { entries: added.entries })))
}

/// What was put on the list.
struct Added {
    keys: Vec<String>,
    entries: Vec<Listed>,
}

async fn put(admin: &Admin, adds: Vec<Add>) -> Result<Added, ApiError> {
    if !(1..=BLACKLIST_BATCH).contains(&adds.len()) {
        return Err(ApiError::invalid(format!("`entries` must be 1 to {BLACKLIST_BATCH}")));
    }
    let kv = store(admin)?;
    let clients =
        if adds.iter().any(|add| add.client.is_some()) { admin.keys.list().await? } else { Vec::new() };
    let now_ms = now_ms();
    let (mut batch, mut keys) = (kv.batch(), Vec::with_capacity(adds.len()));
    for (number, add) in adds.iter().enumerate() {
        let (key, value, ttl_ms) = entry(admin, &clients, add, now_ms)
            .map_err(|error| if adds.len() > 1 { error.at(format!("entries[{number}]")) } else { error })?;
        batch.set(kv, &key, value, Some(ttl_ms))?;
        keys.push(key);
    }
    batch.write().await?;
    let entries = present(kv, &keys).await?;
    let entries = entries.iter().map(|(key, entry)| describe(admin, key, entry, now_ms)).collect();
    Ok(Added { keys, entries })
}

/// Key, value and life of an entry.
fn entry(
    admin: &Admin,
    clients: &[KeyInfo],
    add: &Add,
    now_ms: u64,
) -> Result<(String, Vec<u8>, u64), ApiError> {
    let (kind, subject) = match (&add.account, &add.client) {
        (Some(account), None) => (Kind::Account, account),
        (None, Some(client)) => (Kind::Client, client),
        _ => return Err(ApiError::invalid("name either an `account` or a `client`")),
    };
    if add.reason.trim().is_empty() || add.reason.len() > REASON_BYTES {
        return Err(ApiError::invalid(format!("`reason` must have 1 to {REASON_BYTES} bytes")));
    }
    let ttl_ms = add.ttl_ms.unwrap_or(DEFAULT_TTL_MS);
    if !(1..=BLACKLIST_TTL_MS).contains(&ttl_ms) {
        return Err(ApiError::invalid(format!("`ttl_ms` must be from 1 to {BLACKLIST_TTL_MS}")));
    }
    let key = key(kind, &resolve(admin, clients, kind, subject)?, add.model.as_deref());
    let value = json!({
        "reason": add.reason,
        "created_ms": now_ms,
        "until_ms": now_ms.saturating_add(ttl_ms),
        "model": add.model,
    });
    Ok((key, value.to_string().into_bytes(), ttl_ms))
}

/// Whether a subject is kept out now. An entry that is over is not shown.
#[utoipa::path(get, path = "/blacklist/{kind}/{subject}", params(("kind" = inline(Kind), Path), Which), responses((status = 200, body = Checked)))]
pub(super) async fn check(
    State(admin): State<Shared>,
    Segments((kind, subject)): Segments<(Kind, String)>,
    Parameters(Which { model }): Parameters<Which>,
) -> Result<Answer<Checked>, ApiError> {
    let kv = store(&admin)?;
    let id = find(&admin, kind, &subject).await?;
    let mut keys = vec![key(kind, &id, None)];
    keys.extend(model.map(|model| key(kind, &id, Some(&model))));
    let now_ms = now_ms();
    let entries = present(kv, &keys).await?;
    let entry = entries.iter().find(|(_, entry)| holds(entry, now_ms));
    let entry = entry.map(|(key, entry)| describe(&admin, key, entry, now_ms));
    Ok(Answer(Checked { blacklisted: entry.is_some(), entry }))
}

/// Takes a subject off the list.
#[utoipa::path(delete, path = "/blacklist/{kind}/{subject}", params(("kind" = inline(Kind), Path), Which), responses((status = 200, body = Removed)))]
pub(super) async fn remove(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments((kind, subject)): Segments<(Kind, String)>,
    Parameters(Which { model }): Parameters<Which>,
) -> Result<Answer<Removed>, ApiError> {
    let work = async {
        let key = key(kind, &find(&admin, kind, &subject).await?, model.as_deref());
        let kv = store(&admin)?;
        if !kv.exists(&key).await? {
            return Err(ApiError::not_found(format!("{} `{subject}` is not on the blacklist", kind.name())));
        }
        kv.delete(&key).await?;
        Ok(key)
    };
    let removed = work.await;
    let target = removed.clone().unwrap_or_default();
    let key = audit(via, "blacklist remove", &target, removed)?;
    Ok(Answer(Removed { removed: key }))
}

fn store(admin: &Admin) -> Result<&Kv, ApiError> {
    admin.kv.get(STORE).ok_or_else(|| ApiError::not_found("there is no kv store `blacklist`"))
}

fn key(kind: Kind, id: &str, model: Option<&str>) -> String {
    let model = model.map(|model| format!("/{model}")).unwrap_or_default();
    format!("{}:{id}{model}", kind.name())
}

async fn find(admin: &Admin, kind: Kind, subject: &str) -> Result<String, ApiError> {
    let clients = match kind {
        Kind::Account => Vec::new(),
        Kind::Client => admin.keys.list().await?,
    };
    resolve(admin, &clients, kind, subject)
}

/// The id of a subject called by its name or its id.
fn resolve(admin: &Admin, clients: &[KeyInfo], kind: Kind, subject: &str) -> Result<String, ApiError> {
    let known = match kind {
        Kind::Account => admin
            .accounts
            .named()
            .iter()
            .find(|(name, id)| name == subject || id == subject)
            .map(|(_, id)| id.clone()),
        Kind::Client => {
            let mut named = clients.iter().filter(|key| key.name == subject || key.id == subject);
            named.find(|key| key.active || key.id == subject).map(|key| key.id.clone())
        }
    };
    // An account that is gone may still stand on the list.
    let is_id = subject.len() == 64 && subject.bytes().all(|byte| byte.is_ascii_hexdigit());
    known.or_else(|| is_id.then(|| subject.to_owned())).ok_or_else(|| {
        ApiError::not_found(format!("there is no {} `{subject}`", kind.name()))
            .hint("call it by its name, or by the hash of its key")
    })
}

/// Those of the keys that stand for an entry and are there; the plugin keeps its strikes in the same store.
async fn present<'a>(kv: &Kv, keys: &'a [String]) -> Result<Vec<(&'a str, Entry)>, ApiError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let entries = kv.get_many(keys).await?;
    let found = keys.iter().zip(entries).filter_map(|(key, entry)| Some((key.as_str(), entry?)));
    let is_entry = |key: &str| {
        [Kind::Account, Kind::Client].iter().any(|kind| key.split(':').next() == Some(kind.name()))
    };
    Ok(found.filter(|(key, _)| is_entry(key)).collect())
}

/// The quota that an entry is for: `rpm`, `tpm` or `rpd`, as it says or as its reason tells.
fn limit(entry: &Value) -> Option<&str> {
    if let Some(named) = entry.get("limit").and_then(Value::as_str) {
        return Some(named);
    }
    let reason = entry.get("reason")?.as_str()?.to_ascii_lowercase();
    let spoken = [
        ("rpm", ["rpm", "requests per min"]),
        ("tpm", ["tpm", "tokens per min"]),
        ("rpd", ["rpd", "requests per day"]),
    ];
    spoken.into_iter().find(|(_, words)| words.iter().any(|word| reason.contains(word))).map(|(name, _)| name)
}

/// The times of an entry.
#[derive(Deserialize)]
struct Times {
    #[serde(default)]
    created_ms: u64,
    until_ms: Option<u64>,
}

/// Whether an entry keeps its subject out, as the plugin reads it: one without any time holds as long as it is there,
/// and so does one that cannot be read.
fn holds(entry: &Entry, now_ms: u64) -> bool {
    match serde_json::from_slice(&entry.value) {
        Ok(Times { until_ms: Some(until_ms), .. }) => now_ms < until_ms,
        Ok(Times { created_ms: 0, .. }) | Err(_) => true,
        Ok(Times { created_ms, .. }) => now_ms < created_ms.saturating_add(DEFAULT_TTL_MS),
    }
}

/// The entries that hold accounts back now, by the accounts' ids.
pub(super) async fn holding(admin: &Admin) -> Result<HashMap<String, Vec<Held>>, ApiError> {
    let mut holding: HashMap<String, Vec<Held>> = HashMap::new();
    let Some(kv) = admin.kv.get(STORE) else { return Ok(holding) };
    let prefix = key(Kind::Account, "", None);
    let mut cursor: Option<String> = None;
    loop {
        let page = kv.list_keys(Some(&prefix), cursor.as_deref(), PAGE_KEYS).await?;
        let now_ms = now_ms();
        for (key, entry) in present(kv, &page.keys).await? {
            let subject = key.strip_prefix(&prefix).filter(|_| holds(&entry, now_ms));
            let Some(subject) = subject else { continue };
            let (id, model) =
                subject.split_once('/').map_or((subject, None), |(id, model)| (id, Some(model)));
            let said = serde_json::from_slice::<Value>(&entry.value).unwrap_or_default();
            let held = Held {
                model: model.map(str::to_owned),
                reason: said.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned(),
                until_ms: said.get("until_ms").and_then(Value::as_u64).or(entry.expires_ms),
            };
            holding.entry(id.to_owned()).or_default().push(held);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(holding);
        }
    }
}

/// An entry as the API shows it: what the plugin wrote, with the key taken apart and a name where one is known.
fn describe(admin: &Admin, key: &str, entry: &Entry, now_ms: u64) -> Listed {
    let (kind, rest) = key.split_once(':').unwrap_or(("", key));
    let id = rest.split_once('/').map_or(rest, |(id, _)| id);
    let accounts = admin.accounts.named();
    let account = accounts.iter().find(|(_, known)| kind == "account" && known == id);
    let said = serde_json::from_slice::<Value>(&entry.value).unwrap_or_default();
    Listed {
        key: key.to_owned(),
        kind: kind.to_owned(),
        id: id.to_owned(),
        limit: limit(&said).map(str::to_owned),
        name: account.map(|(name, _)| name.clone()),
        active: holds(entry, now_ms),
        entry: said,
        expires_ms: entry.expires_ms,
    }
}

fn now_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
