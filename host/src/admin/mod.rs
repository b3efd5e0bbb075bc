//! The admin API under `/admin/v1`: keys, accounts, blacklist, plugins, queries, storage and health.
//!
//! The same routes answer on the gateway's listener, where a bearer token is needed, and on the socket in the data
//! directory, where being able to open it is proof enough. Every change is logged and kept in the audit log, without secrets.

mod accounts;
mod audit;
mod blacklist;
mod health;
mod keys;
mod kv;
pub mod limits;
mod plugins;
mod reload;
mod secrets;
mod sql;
mod storage;
#[cfg(test)]
mod tests;
mod token;
mod tokens;
mod trail;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::DefaultBodyLimit;
use axum::{Extension, Router};
use tollgate_store::{Database, Kv, Store};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::accounting::Erasure;
use crate::accounts::Roster;
use crate::api::{error, extract};
use crate::keys::Keys;
use crate::plugin::Registry;
use crate::tokens::Tokens;
use audit::Via;
use error::ApiError;
use token::Guard;

pub use reload::{Reload, Reloaded};
pub use storage::Reading;
pub use token::AdminToken;
pub use trail::{Change, Trail};

/// Where the API starts.
pub const PREFIX: &str = "/admin/v1";

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// What the API manages.
pub struct Admin {
    /// Client keys.
    pub keys: Keys,
    /// Data tokens.
    pub tokens: Tokens,
    /// Plugins.
    pub registry: Registry,
    /// The store, for its figures and reports.
    pub store: Store,
    /// Who reads the store for a report.
    pub reading: Reading,
    /// The named kv stores, the blacklist among them.
    pub kv: BTreeMap<String, Kv>,
    /// The databases.
    pub sql: BTreeMap<String, Database>,
    /// Upstream accounts.
    pub accounts: Roster,
    /// What removes the records of deleted keys.
    pub erasure: Erasure,
    /// The log of all changes.
    pub trail: Trail,
    /// Reads the configuration again.
    pub reload: Reload,
    /// When the server started.
    pub started: Instant,
}

type Shared = Arc<Admin>;

/// The API for the gateway's listener: nothing without the token.
pub fn over_http(admin: Arc<Admin>, token: AdminToken) -> Router {
    let guard = Guard { token, trail: admin.trail.clone(), refusals: Arc::default() };
    let guard = axum::middleware::from_fn_with_state(guard, token::require);
    routes(admin).layer(guard).layer(Extension(Via::Http))
}

/// The API for the socket in the data directory, whose file mode lets in only the user who runs the server.
pub fn over_socket(admin: Arc<Admin>) -> Router {
    routes(admin).layer(Extension(Via::Socket))
}

/// The routes, which are the OpenAPI document too: what is added with `routes!` stands in both.
fn paths() -> OpenApiRouter<Shared> {
    let settings = || DefaultBodyLimit::max(limits::SETTINGS_BYTES);
    OpenApiRouter::new()
        .routes(routes!(keys::list, keys::create).layer(settings()))
        .routes(routes!(keys::get, keys::update, keys::revoke).layer(settings()))
        .routes(routes!(keys::usage))
        .routes(routes!(keys::deletions))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::enable))
        .routes(routes!(keys::disable))
        .routes(routes!(accounts::list, accounts::create).layer(settings()))
        .routes(routes!(accounts::get, accounts::change, accounts::delete).layer(settings()))
        .routes(routes!(accounts::usage))
        .routes(routes!(secrets::rotate))
        .routes(routes!(tokens::list, tokens::create).layer(settings()))
        .routes(routes!(tokens::revoke))
        .routes(routes!(blacklist::list, blacklist::add))
        .routes(routes!(blacklist::add_many))
        .routes(routes!(blacklist::stats))
        .routes(routes!(blacklist::check, blacklist::remove))
        .routes(routes!(plugins::list))
        .routes(
            routes!(plugins::get, plugins::push)
                .layer(DefaultBodyLimit::max(crate::plugin::limits::COMPONENT_BYTES)),
        )
        .routes(routes!(plugins::logs))
        .routes(routes!(plugins::configure))
        .routes(routes!(plugins::promote))
        .routes(routes!(plugins::rollback))
        .routes(routes!(plugins::run_job))
        .routes(routes!(sql::run))
        .routes(routes!(sql::file::export, sql::file::import))
        .routes(routes!(kv::list))
        .routes(routes!(kv::get, kv::set, kv::delete))
        .routes(routes!(storage::list))
        .routes(routes!(storage::file))
        .routes(routes!(storage::stats))
        .routes(routes!(storage::check))
        .routes(routes!(audit::list))
        .routes(routes!(usage::usage))
        .routes(routes!(reload::reload))
        .routes(routes!(health::health))
}

/// What the API is, for the OpenAPI document.
pub fn document() -> OpenApi {
    OpenApiRouter::new().nest(PREFIX, paths()).into_openapi()
}

fn routes(admin: Arc<Admin>) -> Router {
    let record = axum::middleware::from_fn_with_state(admin.trail.clone(), audit::recorded);
    let routes = paths().layer(DefaultBodyLimit::max(limits::JSON_BYTES)).with_state(admin);
    let routes = Router::from(routes)
        .fallback(async || ApiError::not_found("there is no such admin endpoint"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed());
    Router::new().nest(PREFIX, routes).layer(record)
}
