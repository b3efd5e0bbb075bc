//! Reading objects.

use std::io;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, StatusCode};
use tollgate_store::{BlobError, BlobInfo, GetOptions, Got, Precondition, Reader};

use super::{Step, container, headers, multipart};
use crate::api::error::ApiError;
use crate::api::extract::{Parameters, Segments};
use crate::api::sent::sent;
use crate::data::body::turn;
use crate::data::conditions::{Conditions, Verdict};
use crate::data::guard::Token;
use crate::data::limits::{ATTEMPTS, STALL_TIME};
use crate::data::{Data, Shared};
use crate::plugin::Access;

/// An object, as it was when the answer began, whatever becomes of it meanwhile.
///
/// Of several ranges in one request none counts: the whole object is sent. `if-range` counts with an entity tag. With
/// `upload` the answer is what has come of an upload in parts.
#[utoipa::path(get, path = "/blob/{container}/{*key}",
    params(Step,
        ("range" = Option<String>, Header), ("if-range" = Option<String>, Header),
        ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header),
        ("if-modified-since" = Option<String>, Header), ("if-unmodified-since" = Option<String>, Header)),
    responses(
        (status = 200, description = "The object", body = Vec<u8>, content_type = "*/*", headers(("etag" = String))),
        (status = 206, description = "The range", body = Vec<u8>, content_type = "*/*"),
        (status = 304, description = "It is the one that the caller has"),
    ))]
pub(in crate::data) async fn get(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(step): Parameters<Step>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let blob = container(&data, &token, &name, Access::Read, &key)?;
    match step {
        Step { upload: None, part: None } => {}
        Step { upload: Some(id), part: None } => {
            return data.answers.json(multipart::come(blob, &id, &key).await?, ()).await;
        }
        Step { part: Some(_), .. } => return Err(ApiError::invalid("`part` goes with PUT")),
    }
    let conditions = Conditions::of(&request)?;
    for _ in 0..ATTEMPTS {
        let mut options = GetOptions::default();
        if !conditions.is_none() {
            let info = blob.objects.head(&key).await?;
            options.range = match (conditions.verdict(info.as_ref()), &info) {
                (Verdict::Failed, _) => return Err(ApiError::precondition_failed()),
                (_, None) => return Err(absent(&name, &key)),
                (Verdict::NotModified, Some(info)) => return Ok(not_modified(info)),
                (Verdict::Send(range), Some(info)) => {
                    // What was looked at is what is sent.
                    options.precondition = Precondition::etag(&info.etag);
                    range
                }
            };
        }
        let ranged = options.range.is_some();
        match blob.objects.get(&key, options).await {
            Ok(Got::Found(reader)) => return answer(&data, reader, ranged).await,
            Ok(Got::Absent) => return Err(absent(&name, &key)),
            // Replaced or removed since it was looked at.
            Ok(Got::Unmet(..)) => {}
            Err(error @ BlobError::OutOfRange(size)) => {
                let range = [(CONTENT_RANGE, format!("bytes */{size}"))];
                return Ok((range, ApiError::from(error)).into_response());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::conflict("others write this key all the time").hint("come again in a second"))
}

/// What `GET` would say of an object, without the object.
#[utoipa::path(head, path = "/blob/{container}/{*key}",
    params(("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header),
        ("if-modified-since" = Option<String>, Header), ("if-unmodified-since" = Option<String>, Header)),
    responses(
        (status = 200, description = "The object is there", headers(("etag" = String), ("content-length" = u64))),
        (status = 304, description = "It is the one that the caller has"),
    ))]
pub(in crate::data) async fn head(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    request: HeaderMap,
) -> Result<Response, ApiError> {
    let blob = container(&data, &token, &name, Access::Read, &key)?;
    let conditions = Conditions::of(&request)?;
    let info = blob.objects.head(&key).await?;
    match (conditions.verdict(info.as_ref()), &info) {
        (Verdict::Failed, _) => Err(ApiError::precondition_failed()),
        (_, None) => Err(absent(&name, &key)),
        (Verdict::NotModified, Some(info)) => Ok(not_modified(info)),
        (Verdict::Send(_), Some(info)) => {
            let length = [(CONTENT_LENGTH, HeaderValue::from(info.size))];
            Ok((length, headers::of(info), Body::empty()).into_response())
        }
    }
}

fn absent(container: &str, key: &str) -> ApiError {
    ApiError::not_found(format!("there is no object `{key}` in blob container `{container}`"))
}

fn not_modified(info: &BlobInfo) -> Response {
    let mut all = headers::of(info);
    let kept = [ETAG, LAST_MODIFIED, CACHE_CONTROL, ACCEPT_RANGES].into_iter();
    let headers: HeaderMap = kept.filter_map(|name| all.remove(&name).map(|value| (name, value))).collect();
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

async fn answer(data: &Data, reader: Reader, ranged: bool) -> Result<Response, ApiError> {
    let mut headers = headers::of(reader.info());
    let (range, size) = (reader.range(), reader.info().size);
    let length = range.end.saturating_sub(range.start);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    let mut status = StatusCode::OK;
    if ranged {
        status = StatusCode::PARTIAL_CONTENT;
        let last = range.end.saturating_sub(1);
        let text = format!("bytes {}-{last}/{size}", range.start);
        headers.extend(HeaderValue::try_from(text).ok().map(|value| (CONTENT_RANGE, value)));
    }
    Ok((status, headers, body(data, reader, length).await?).into_response())
}

/// One chunk goes as it is; more are read as the client takes them.
async fn body(data: &Data, mut reader: Reader, length: u64) -> Result<Body, ApiError> {
    let first = reader.next().await?.unwrap_or_default();
    if first.len() as u64 >= length {
        return Ok(Body::from(first));
    }
    let place = turn(data.downloads.clone().acquire_owned()).await?;
    let rest = stream::unfold(Some((reader, place)), async |left| {
        let (mut reader, place) = left?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(Bytes::from(bytes)), Some((reader, place)))),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "an object could not be read to its end");
                Some((Err(io::Error::other("the object could not be read")), None))
            }
        }
    });
    let pieces = stream::iter([Ok(Bytes::from(first))]).chain(rest);
    Ok(sent(pieces, STALL_TIME, Duration::MAX))
}
