//! `/blacklist`: entries of the kv store that the blacklist plugin goes by.
//!
//! A key is `account:ID` or `client:ID`, with `/MODEL` behind it for one model; a value is JSON with reason, created_ms
//! and until_ms (`plugins/guest/src/blacklist.rs` documents both).

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_store::{Entry, Kv, SetOptions};

use super::audit::{Via, audit};
use super::error::ApiError;
use super::extract::{Json, Parameters, Segments};
use super::kv::PageParameters;
use super::limits::{BLACKLIST_TTL_MS, REASON_BYTES};
use super::{Admin, Shared};

/// The kv store.
const STORE: &str = "blacklist";

/// Life of an entry whose maker names none: 24 h.
const DEFAULT_TTL_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    account: Option<String>,
    client: Option<String>,
    model: Option<String>,
    reason: String,
    ttl_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    model: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
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

/// Entries in the order of their keys: `{entries, cursor}`.
pub(super) async fn list(
    State(admin): State<Shared>,
    Parameters(page): Parameters<PageParameters>,
) -> Result<Answer<Value>, ApiError> {
    let kv = store(&admin)?;
    let found = kv.list_keys(page.prefix.as_deref(), page.cursor.as_deref(), page.limit()?).await?;
    let entries = kv.get_many(&found.keys).await?;
    let entries: Vec<_> = found
        .keys
        .iter()
        .zip(entries)
        .filter_map(|(key, entry)| Some(describe(&admin, key, &entry?)))
        .collect();
    Ok(Answer(json!({ "entries": entries, "cursor": found.cursor })))
}

/// Puts an account or client, by name or id, on the list.
pub(super) async fn add(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Json(add): Json<Add>,
) -> Result<(StatusCode, Answer<Value>), ApiError> {
    let (kind, subject) = match (&add.account, &add.client) {
        (Some(account), None) => (Kind::Account, account.clone()),
        (None, Some(client)) => (Kind::Client, client.clone()),
        _ => return Err(ApiError::invalid("name either an `account` or a `client`")),
    };
    let result = put(&admin, kind, &subject, add).await;
    let entry = audit(via, "blacklist add", &format!("{} {subject}", kind.name()), result)?;
    Ok((StatusCode::CREATED, Answer(entry)))
}

async fn put(admin: &Admin, kind: Kind, subject: &str, add: Add) -> Result<Value, ApiError> {
    if add.reason.trim().is_empty() || add.reason.len() > REASON_BYTES {
        return Err(ApiError::invalid(format!("`reason` must have 1 to {REASON_BYTES} bytes")));
    }
    let ttl_ms = add.ttl_ms.unwrap_or(DEFAULT_TTL_MS);
    if !(1..=BLACKLIST_TTL_MS).contains(&ttl_ms) {
        return Err(ApiError::invalid(format!("`ttl_ms` must be from 1 to {BLACKLIST_TTL_MS}")));
    }
    let key = key(admin, kind, subject, add.model.as_deref()).await?;
    let now_ms = now_ms();
    let value = json!({
        "reason": add.reason,
        "created_ms": now_ms,
        "until_ms": now_ms.saturating_add(ttl_ms),
        "model": add.model,
    });
    let kv = store(admin)?;
    let options = SetOptions { ttl_ms: Some(ttl_ms), ..SetOptions::default() };
    kv.set(&key, value.to_string().into_bytes(), options).await?;
    match kv.get(&key).await? {
        Some(entry) => Ok(describe(admin, &key, &entry)),
        None => Ok(json!({ "key": key })),
    }
}

/// Whether a subject is on the list: `{blacklisted, entry}`.
pub(super) async fn check(
    State(admin): State<Shared>,
    Segments((kind, subject)): Segments<(Kind, String)>,
    Parameters(Which { model }): Parameters<Which>,
) -> Result<Answer<Value>, ApiError> {
    let kv = store(&admin)?;
    let mut keys = vec![key(&admin, kind, &subject, None).await?];
    if let Some(model) = model {
        keys.push(key(&admin, kind, &subject, Some(&model)).await?);
    }
    let entries = kv.get_many(&keys).await?;
    let entry = keys.iter().zip(entries).find_map(|(key, entry)| Some(describe(&admin, key, &entry?)));
    Ok(Answer(json!({ "blacklisted": entry.is_some(), "entry": entry })))
}

/// Takes a subject off the list.
pub(super) async fn remove(
    State(admin): State<Shared>,
    Extension(via): Extension<Via>,
    Segments((kind, subject)): Segments<(Kind, String)>,
    Parameters(Which { model }): Parameters<Which>,
) -> Result<Answer<Value>, ApiError> {
    let work = async {
        let key = key(&admin, kind, &subject, model.as_deref()).await?;
        let kv = store(&admin)?;
        if !kv.exists(&key).await? {
            return Err(ApiError::not_found(format!("{} `{subject}` is not on the blacklist", kind.name())));
        }
        kv.delete(&key).await?;
        Ok(key)
    };
    let key = audit(via, "blacklist remove", &format!("{} {subject}", kind.name()), work.await)?;
    Ok(Answer(json!({ "removed": key })))
}

fn store(admin: &Admin) -> Result<&Kv, ApiError> {
    admin.kv.get(STORE).ok_or_else(|| ApiError::not_found("there is no kv store `blacklist`"))
}

async fn key(admin: &Admin, kind: Kind, subject: &str, model: Option<&str>) -> Result<String, ApiError> {
    let id = resolve(admin, kind, subject).await?;
    let model = model.map(|model| format!("/{model}")).unwrap_or_default();
    Ok(format!("{}:{id}{model}", kind.name()))
}

/// The id of a subject called by its name or its id.
async fn resolve(admin: &Admin, kind: Kind, subject: &str) -> Result<String, ApiError> {
    let known = match kind {
        Kind::Account => admin
            .accounts
            .iter()
            .find(|(name, id)| name == subject || id == subject)
            .map(|(_, id)| id.clone()),
        Kind::Client => {
            let keys = admin.keys.list().await?;
            let mut named = keys.into_iter().filter(|key| key.name == subject || key.key_hash == subject);
            named.find(|key| key.active || key.key_hash == subject).map(|key| key.key_hash)
        }
    };
    // An account that has left the configuration may still stand on the list.
    let is_id = subject.len() == 64 && subject.bytes().all(|byte| byte.is_ascii_hexdigit());
    known.or_else(|| is_id.then(|| subject.to_owned())).ok_or_else(|| {
        ApiError::not_found(format!("there is no {} `{subject}`", kind.name()))
            .hint("call it by its name, or by the hash of its key")
    })
}

/// An entry as the API shows it: what the plugin wrote, with the key taken apart and a name where one is known.
fn describe(admin: &Admin, key: &str, entry: &Entry) -> Value {
    let (kind, rest) = key.split_once(':').unwrap_or(("", key));
    let id = rest.split_once('/').map_or(rest, |(id, _)| id);
    let account = admin.accounts.iter().find(|(_, known)| kind == "account" && known == id);
    json!({
        "key": key,
        "kind": kind,
        "id": id,
        "name": account.map(|(name, _)| name),
        "entry": serde_json::from_slice::<Value>(&entry.value).unwrap_or_default(),
        "expires_ms": entry.expires_ms,
    })
}

fn now_ms() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
