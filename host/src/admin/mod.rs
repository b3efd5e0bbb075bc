//! The admin API under `/admin/v1`: keys, blacklist, plugins, queries and health.
//!
//! The same routes answer on the gateway's listener, where a bearer token is needed, and on the socket in the data
//! directory, where being able to open it is proof enough. Every change is logged, without secrets.

mod audit;
mod blacklist;
mod error;
mod extract;
mod health;
mod keys;
mod kv;
pub mod limits;
mod plugins;
mod sql;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use tollgate_store::{Database, Kv, Store};

use crate::keys::Keys;
use crate::plugin::Registry;
use audit::Via;
use error::ApiError;

pub use token::AdminToken;

/// Where the API starts.
pub const PREFIX: &str = "/admin/v1";

/// The socket's name in the data directory.
pub const SOCKET: &str = "admin.sock";

/// What the API manages.
pub struct Admin {
    /// Client keys.
    pub keys: Keys,
    /// Plugins.
    pub registry: Registry,
    /// The store, for its figures.
    pub store: Store,
    /// The named kv stores, the blacklist among them.
    pub kv: BTreeMap<String, Kv>,
    /// The databases.
    pub sql: BTreeMap<String, Database>,
    /// Upstream accounts: name and id, which is the hash of the account's key.
    pub accounts: Vec<(String, String)>,
    /// When the server started.
    pub started: Instant,
}

type Shared = Arc<Admin>;

/// The API for the gateway's listener: nothing without the token.
pub fn over_http(admin: Arc<Admin>, token: AdminToken) -> Router {
    let guard = axum::middleware::from_fn_with_state(token, token::require);
    routes(admin).layer(guard).layer(Extension(Via::Http))
}

/// The API for the socket in the data directory, whose file mode lets in only the user who runs the server.
pub fn over_socket(admin: Arc<Admin>) -> Router {
    routes(admin).layer(Extension(Via::Socket))
}

fn routes(admin: Arc<Admin>) -> Router {
    let routes = Router::new()
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{name}", delete(keys::revoke))
        .route("/blacklist", get(blacklist::list).post(blacklist::add))
        .route("/blacklist/batch", post(blacklist::add_many))
        .route("/blacklist/stats", get(blacklist::stats))
        .route("/blacklist/{kind}/{subject}", get(blacklist::check).delete(blacklist::remove))
        .route("/plugins", get(plugins::list))
        .route(
            "/plugins/{name}",
            get(plugins::get)
                .put(plugins::push)
                .layer(DefaultBodyLimit::max(crate::plugin::limits::COMPONENT_BYTES)),
        )
        .route("/plugins/{name}/logs", get(plugins::logs))
        .route("/plugins/{name}/rollback", post(plugins::rollback))
        .route("/plugins/{name}/jobs/{job}", post(plugins::run_job))
        .route("/sql/{database}", post(sql::run))
        .route("/kv/{store}", get(kv::list))
        .route("/kv/{store}/{*key}", get(kv::get).put(kv::set).delete(kv::delete))
        .route("/health", get(health::health))
        .fallback(async || ApiError::not_found("there is no such admin endpoint"))
        .method_not_allowed_fallback(async || {
            ApiError::new(http::StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "not with this method")
        })
        .layer(DefaultBodyLimit::max(limits::JSON_BYTES))
        .with_state(admin);
    Router::new().nest(PREFIX, routes)
}
