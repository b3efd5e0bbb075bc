//! The uploads in parts that are open: shown to their owners, and the oldest idle one gives way where there is no room.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tollgate_store::{BlobError, BlobList, Container, GetOptions, Got};
use utoipa::{IntoParams, ToSchema};

use super::multipart::{about, parts, remove};
use crate::api::error::ApiError;
use crate::api::extract::{Parameters, Segments};
use crate::data::guard::Token;
use crate::data::limits::{MULTIPART_IDLE, PAGE_MOST};
use crate::data::{Shared, named};
use crate::plugin::Access;
use crate::tokens::Keyed;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::data) struct UploadsParameters {
    /// Only of keys that start with this; left out: with the prefix of the token's scope.
    prefix: Option<String>,
}

/// The uploads in parts that are open.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenUploads)]
pub(in crate::data) struct Uploads {
    /// The oldest first.
    uploads: Vec<OpenUpload>,
}

/// An upload in parts that is not complete.
#[derive(Serialize, ToSchema)]
pub(in crate::data) struct OpenUpload {
    key: String,
    /// Its id, for the parameter `upload`.
    upload: String,
    /// When it began, in milliseconds since 1970.
    begun_ms: u64,
}

/// The uploads in parts that are open, of which a container has at most 100. `GET` on a key with `upload` tells what has come.
#[utoipa::path(get, path = "/uploads/{container}", params(UploadsParameters),
    responses((status = 200, body = Uploads)))]
pub(in crate::data) async fn uploads(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments(name): Segments<String>,
    Parameters(asked): Parameters<UploadsParameters>,
) -> Result<Response, ApiError> {
    let scope = token.scopes.keyed(Keyed::Blob, &name, Access::Read)?;
    let prefix = scope.list(asked.prefix.as_deref())?;
    let blob = named(&data.stores.blob, "blob container", &name)?;
    let mut uploads = Vec::new();
    for upload in open(&blob.parts).await? {
        let Got::Found(reader) = blob.parts.get(&about(&upload), GetOptions::default()).await? else {
            continue;
        };
        let begun_ms = reader.info().uploaded_ms;
        if let Ok(key) = String::from_utf8(reader.read_all().await?)
            && key.starts_with(prefix)
        {
            uploads.push(OpenUpload { key, upload, begun_ms });
        }
    }
    uploads.sort_by_key(|upload| upload.begun_ms);
    data.answers.json(Uploads { uploads }, ()).await
}

/// The ids of all uploads, with those of which a removal has left something.
pub(super) async fn open(container: &Container) -> Result<Vec<String>, BlobError> {
    let mut list =
        BlobList { delimiter: Some("/".to_owned()), limit: PAGE_MOST as usize, ..BlobList::default() };
    let mut ids = Vec::new();
    loop {
        let page = container.list(list.clone()).await?;
        ids.extend(page.prefixes.iter().filter_map(|prefix| prefix.strip_suffix('/')).map(str::to_owned));
        match page.cursor {
            Some(cursor) => list.cursor = Some(cursor),
            None => return Ok(ids),
        }
    }
}

/// When an upload began, in milliseconds since 1970; 0 if a removal has left something of it.
pub(super) async fn begun_ms(container: &Container, id: &str) -> Result<u64, BlobError> {
    Ok(container.head(&about(id)).await?.map_or(0, |info| info.uploaded_ms))
}

/// Gives up the oldest of these uploads that has brought nothing for long at this time. False: there is none.
pub(super) async fn make_room(container: &Container, ids: &[String], now_ms: u64) -> Result<bool, BlobError> {
    let idle = |since_ms: &u64| Duration::from_millis(now_ms.saturating_sub(*since_ms)) >= MULTIPART_IDLE;
    let mut old = Vec::new();
    for id in ids {
        let begun_ms = begun_ms(container, id).await?;
        if idle(&begun_ms) {
            old.push((begun_ms, id));
        }
    }
    old.sort_unstable();
    for (_, id) in old {
        if parts(container, id).await?.iter().all(|(_, info)| idle(&info.uploaded_ms)) {
            remove(container, id).await?;
            return Ok(true);
        }
    }
    Ok(false)
}
