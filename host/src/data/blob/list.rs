//! Listing objects.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tollgate_store::BlobList;
use utoipa::{IntoParams, ToSchema};

use super::headers::Object;
use crate::api::error::ApiError;
use crate::api::extract::{Parameters, Segments};
use crate::data::guard::Token;
use crate::data::{Shared, limit, named};
use crate::plugin::Access;
use crate::tokens::Keyed;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::data) struct ListParameters {
    /// Only keys that start with this; left out: with the prefix of the token's scope.
    prefix: Option<String>,
    /// Keys with this after the prefix are not listed, but what they start with up to it, each once; usually `/`.
    delimiter: Option<String>,
    /// The `cursor` of the page before.
    cursor: Option<String>,
    /// Objects and prefixes at most, 1 to 1,000; left out: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A page of objects.
#[derive(Serialize, ToSchema)]
#[schema(as = BlobPage)]
pub(in crate::data) struct Objects {
    /// In the order of their keys' UTF-8 bytes.
    objects: Vec<Object>,
    /// What further keys start with, up to the delimiter.
    prefixes: Vec<String>,
    /// Where the next page starts; null: this was the last.
    cursor: Option<String>,
}

/// Objects of a container, a page at a time.
#[utoipa::path(get, path = "/blob/{container}", params(ListParameters), responses((status = 200, body = Objects)))]
pub(in crate::data) async fn list(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    Parameters(asked): Parameters<ListParameters>,
) -> Result<Response, ApiError> {
    let scope = token.scopes.keyed(Keyed::Blob, &name, Access::Read)?;
    let prefix = scope.list(asked.prefix.as_deref())?.to_owned();
    let blob = named(&data.stores.blob, "blob container", &name)?;
    let limit = limit(asked.limit)? as usize;
    let list = BlobList { prefix, delimiter: asked.delimiter, cursor: asked.cursor, limit };
    let page = blob.objects.list(list).await?;
    let objects = page.objects.into_iter().map(Object::from).collect();
    data.answers.json(Objects { objects, prefixes: page.prefixes, cursor: page.cursor }, ()).await
}
