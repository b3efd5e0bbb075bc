//! The data API under `/api`: kv stores, blob containers, SQL databases and vector indexes over HTTP, each with a
//! token's scopes.
//!
//! Independent of plugins and of the admin API: a data token opens nothing else, and nothing else opens this.

mod answer;
mod blob;
mod body;
mod conditions;
mod guard;
mod kv;
mod kv_many;
mod limits;
mod sql;
mod vector;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tollgate_store::{Clock, Database, Index, Kv};
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::error::ApiError;
use crate::tokens::Tokens;
use answer::Answers;
use body::Memory;
use limits::{DOWNLOADS, KV_READS, PAGE, PAGE_MOST, SQL_CALLS, SQL_CALLS_OF_ONE, UPLOADS, VECTOR_CALLS};

pub use blob::{Blob, sweep};
pub use limits::SWEEP_EVERY;

/// Where the API starts.
pub const PREFIX: &str = "/api";

/// What the API serves.
pub struct Stores {
    /// Who may use what.
    pub tokens: Tokens,
    /// The store's own time.
    pub clock: Clock,
    /// The named kv stores.
    pub kv: BTreeMap<String, Kv>,
    /// The blob containers.
    pub blob: BTreeMap<String, Blob>,
    /// The databases.
    pub sql: BTreeMap<String, Database>,
    /// The vector indexes.
    pub vector: BTreeMap<String, Index>,
}

/// The stores, and the places that requests share.
struct Data {
    stores: Stores,
    memory: Memory,
    answers: Answers,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    kv_reads: Arc<Semaphore>,
    sql_calls: Arc<Semaphore>,
    /// Of each database.
    sql_calls_of: BTreeMap<String, Arc<Semaphore>>,
    vector_calls: Arc<Semaphore>,
}

type Shared = Arc<Data>;

/// The API: nothing without a token.
pub fn router(stores: Stores) -> Router {
    let guard = axum::middleware::from_fn_with_state(stores.tokens.clone(), guard::require);
    let places = |most| Arc::new(Semaphore::new(most));
    let sql_calls_of = stores.sql.keys().map(|name| (name.clone(), places(SQL_CALLS_OF_ONE))).collect();
    let data = Arc::new(Data {
        stores,
        memory: Memory::new(),
        answers: Answers::new(),
        uploads: places(UPLOADS),
        downloads: places(DOWNLOADS),
        kv_reads: places(KV_READS),
        sql_calls: places(SQL_CALLS),
        sql_calls_of,
        vector_calls: places(VECTOR_CALLS),
    });
    let routes = Router::from(paths().with_state(data))
        .fallback(async || ApiError::not_found("there is no such data endpoint"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(guard);
    Router::new().nest(PREFIX, routes)
}

/// What the API is, for the OpenAPI document.
pub fn document() -> OpenApi {
    OpenApiRouter::new().nest(PREFIX, paths()).into_openapi()
}

/// The routes, which are the OpenAPI document too: what is added with `routes!` stands in both.
fn paths() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(kv::list, kv_many::many))
        .routes(routes!(kv::get, kv::put, kv::delete, kv::increment))
        .routes(routes!(blob::list))
        .routes(routes!(blob::uploads))
        .routes(routes!(blob::get, blob::head, blob::put, blob::delete, blob::post))
        .routes(routes!(sql::run))
        .routes(routes!(vector::describe, vector::call))
}

/// The store of a name; a token can outlive it.
fn named<'a, T>(stores: &'a BTreeMap<String, T>, kind: &str, name: &str) -> Result<&'a T, ApiError> {
    stores.get(name).ok_or_else(|| ApiError::not_found(format!("there is no {kind} `{name}`")))
}

/// A part of a list of keys.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only keys that start with this; left out: with the prefix of the token's scope.
    prefix: Option<String>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// Entries at most, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// How many entries of a list were asked for.
fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(PAGE) {
        limit @ 1..=PAGE_MOST => Ok(limit),
        _ => Err(ApiError::invalid(format!("`limit` must be from 1 to {PAGE_MOST}"))),
    }
}
