//! `/openapi.json`: the one document of the data API and the admin API.

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::api::openapi::{self, PATH, Part};
use crate::{admin, data};

/// The document, as this version serves it.
pub fn document() -> Value {
    openapi::document(vec![
        Part {
            document: data::document(),
            tag: "data",
            token: "data_token",
            about: "A data token, from `tollgate token create`.",
        },
        Part {
            document: admin::document(),
            tag: "admin",
            token: "admin_token",
            about: "The admin token, which the first start printed.",
        },
    ])
}

/// The route; what the API is like is no secret.
pub(super) fn router() -> Router {
    let text = Bytes::from(format!("{:#}\n", document()));
    Router::new().route(PATH, get(async move || ([(CONTENT_TYPE, "application/json")], text.clone())))
}
