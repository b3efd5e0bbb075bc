//! `POST /api/kv/{store}`: many keys at once.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use tollgate_store::Kv;
use tollgate_store::limits::LIST_ITEMS;
use utoipa::ToSchema;

use super::Shared;
use super::body::turn;
use super::guard::Token;
use super::kv::{check_ttl, store};
use crate::api::error::ApiError;
use crate::api::extract::Segments;
use crate::api::list::bounded;
use crate::api::values::{Content, KvEntry};
use crate::plugin::Access;

/// What to do with up to 1,000 keys.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[schema(as = KvMany)]
pub(super) enum Many {
    /// Reads these keys; together at most 8 MiB.
    #[serde(deserialize_with = "keys")]
    Get(Vec<String>),
    /// Writes these entries.
    Set(SetMany),
    /// Removes these keys.
    #[serde(deserialize_with = "keys")]
    Delete(Vec<String>),
}

/// Entries to be written: after a crash all of them are there, or none.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvSetMany)]
pub(super) struct SetMany {
    #[serde(deserialize_with = "entries")]
    entries: Vec<NewEntry>,
    /// Milliseconds until they are gone; left out: the store's default.
    #[schema(minimum = 1, maximum = 3_153_600_000_000_i64)]
    ttl_ms: Option<u64>,
}

/// An entry to be written.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KvNewEntry)]
pub(super) struct NewEntry {
    key: String,
    value: Content,
}

fn keys<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    bounded(from, LIST_ITEMS, |number| format!("keys[{number}]"))
}

fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NewEntry>, D::Error> {
    bounded(from, LIST_ITEMS, |number| format!("entries[{number}]"))
}

/// What was done.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = KvManyDone)]
pub(super) enum Done {
    /// The entries in the order asked; null where there is none.
    Entries(Vec<Option<KvEntry>>),
    /// How many keys were written.
    Written(usize),
    /// How many keys were to be removed; absent ones count too.
    Deleted(usize),
}

/// Reads, writes or removes many keys: `{"get": […]}`, `{"set": {…}}` or `{"delete": […]}`.
#[utoipa::path(post, path = "/kv/{store}", request_body = Many, responses((status = 200, body = Done)))]
pub(super) async fn many(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    body: Body,
) -> Result<Response, ApiError> {
    // The scope first: who has none does not send a body for nothing.
    store(&data, &token, &name, Access::Read, &[])?;
    let (many, share) = data.memory.json::<Many>(body).await?;
    let reach = |access, keys: &[String]| {
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        store(&data, &token, &name, access, &keys)
    };
    match many {
        Many::Get(keys) => {
            let kv = reach(Access::Read, &keys)?;
            let place = turn(data.kv_reads.clone().acquire_owned()).await?;
            data.answers.json(get(kv, keys).await?, (place, share)).await
        }
        Many::Set(set) => {
            let keys: Vec<_> = set.entries.iter().map(|entry| entry.key.clone()).collect();
            let written = set_all(reach(Access::ReadWrite, &keys)?, set).await?;
            data.answers.json(written, share).await
        }
        Many::Delete(keys) => {
            reach(Access::ReadWrite, &keys)?.delete_many(&keys).await?;
            data.answers.json(Done::Deleted(keys.len()), share).await
        }
    }
}

async fn get(kv: &Kv, keys: Vec<String>) -> Result<Done, ApiError> {
    let entries = kv.get_many(&keys).await?;
    let found = keys.into_iter().zip(entries).map(|(key, entry)| Some(KvEntry::new(key, &entry?)));
    Ok(Done::Entries(found.collect()))
}

async fn set_all(kv: &Kv, SetMany { entries, ttl_ms }: SetMany) -> Result<Done, ApiError> {
    check_ttl(ttl_ms)?;
    let count = entries.len();
    let entries = entries.into_iter().enumerate().map(|(number, NewEntry { key, value })| {
        let value = value.into_bytes().map_err(|error| error.at(format!("set.entries[{number}].value")))?;
        Ok((key, value))
    });
    kv.set_many(entries.collect::<Result<_, ApiError>>()?, ttl_ms).await?;
    Ok(Done::Written(count))
}
