//! An object's information as headers, both ways, and as JSON.

use std::collections::BTreeMap;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tollgate_store::{BlobInfo, PutOptions};
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::data::conditions::{date, etag, precondition};

/// What starts a header of user metadata.
const METADATA: &str = "tollgate-meta-";

/// An object without its content.
#[derive(Serialize, ToSchema)]
#[schema(as = BlobObject)]
pub(in crate::data) struct Object {
    key: String,
    /// Bytes.
    size: u64,
    /// SHA-256 of the content, in hexadecimal.
    etag: String,
    /// Milliseconds since 1970.
    uploaded_ms: u64,
    content_type: String,
    cache_control: Option<String>,
    /// Names and values of one's own.
    metadata: BTreeMap<String, String>,
}

impl From<BlobInfo> for Object {
    fn from(info: BlobInfo) -> Self {
        Self {
            key: info.key,
            size: info.size,
            etag: info.etag,
            uploaded_ms: info.uploaded_ms,
            content_type: info.content_type,
            cache_control: info.cache_control,
            metadata: info.metadata.into_iter().collect(),
        }
    }
}

/// What the headers of a request say of the object in its body.
pub(super) fn options(headers: &HeaderMap) -> Result<PutOptions, ApiError> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(ApiError::invalid("`content-range`: an object is written whole")
            .hint("for a large one, POST to its key begins an upload in parts"));
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let message = "`content-encoding` is not kept; send the object as it is";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", message));
    }
    let text = |name: HeaderName| match headers.get(&name).map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.to_owned())),
        Some(Err(_)) => Err(ApiError::invalid(format!("`{name}` must be printable ASCII"))),
    };
    let mut metadata = Vec::new();
    for (name, value) in headers {
        let Some(own) = name.as_str().strip_prefix(METADATA) else { continue };
        let value = std::str::from_utf8(value.as_bytes());
        let value = value.map_err(|_| ApiError::invalid(format!("`{name}` must be UTF-8")))?;
        metadata.push((own.to_owned(), value.to_owned()));
    }
    Ok(PutOptions {
        content_type: text(CONTENT_TYPE)?,
        cache_control: text(CACHE_CONTROL)?,
        metadata,
        precondition: precondition(headers)?,
    })
}

/// What an answer says of an object; its length is for whoever sends it.
pub(super) fn of(info: &BlobInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, etag(&info.etag));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The store has checked that each of them is a header; one from elsewhere that is not is left out.
    let mut add = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    add(LAST_MODIFIED, date(info.uploaded_ms));
    add(CONTENT_TYPE, HeaderValue::from_str(&info.content_type).ok());
    add(CACHE_CONTROL, info.cache_control.as_deref().and_then(|text| HeaderValue::from_str(text).ok()));
    for (name, value) in &info.metadata {
        if let Ok(name) = HeaderName::try_from(format!("{METADATA}{name}")) {
            add(name, HeaderValue::from_bytes(value.as_bytes()).ok());
        }
    }
    headers
}
