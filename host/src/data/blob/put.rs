//! Writing and removing objects.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::header::ETAG;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tollgate_store::{BlobInfo, Container, PutOptions};

use super::headers::{Object, options};
use super::multipart::{self, Begun, Complete, Part};
use super::{Step, container};
use crate::api::error::ApiError;
use crate::api::extract::{Parameters, Segments};
use crate::data::body::{Paced, turn};
use crate::data::conditions::{etag, precondition};
use crate::data::guard::Token;
use crate::data::{Data, Shared};
use crate::plugin::Access;

/// Writes an object from a stream; whole and on disk when it is answered, and nothing of it there before.
///
/// `content-type`, `cache-control` and each `tollgate-meta-NAME` are kept. `if-none-match: *` writes only where there is
/// no object, `if-match` only over one with that tag. With `upload` and `part` the body is a part of an upload in parts.
#[utoipa::path(put, path = "/blob/{container}/{*key}",
    params(Step, ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header),
        ("cache-control" = Option<String>, Header)),
    request_body(content = Option<Vec<u8>>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The object, or the part", body = Stored, headers(("etag" = String)))))]
pub(in crate::data) async fn put(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(step): Parameters<Step>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let blob = container(&data, &token, &name, Access::ReadWrite, &key)?;
    match (step.upload, step.part) {
        (None, None) => {
            let info = upload(&data, &blob.objects, &key, options(&headers)?, body).await?;
            Ok(described(info))
        }
        (Some(id), Some(part)) => {
            let place = multipart::part(blob, &id, &key, part).await?;
            let info = upload(&data, &blob.parts, &place, PutOptions::default(), body).await?;
            let tag = [(ETAG, etag(&info.etag))];
            Ok((tag, Answer(Part::new(part, info))).into_response())
        }
        _ => Err(ApiError::invalid("`upload` and `part` come together")),
    }
}

/// What has been stored.
#[derive(utoipa::ToSchema)]
#[schema(as = BlobStored)]
#[expect(dead_code, reason = "only its schema is used: the two are answered as they are")]
#[serde(untagged)]
pub(in crate::data) enum Stored {
    Object(Object),
    Part(Part),
}

/// Streams a body into an object. A client that goes in between leaves nothing.
async fn upload(
    data: &Data,
    container: &Container,
    key: &str,
    options: PutOptions,
    body: Body,
) -> Result<BlobInfo, ApiError> {
    let most = container.options().object_bytes;
    let announced = body.size_hint().exact();
    let mut body = Paced::new(body);
    if announced.is_some_and(|length| length > most) {
        return Err(ApiError::too_large(format!("an object of this container has at most {most} bytes")));
    }
    let _place = turn(data.uploads.clone().acquire_owned()).await?;
    let mut upload = container.upload(key, options)?;
    while let Some(bytes) = body.next().await? {
        upload.write(&bytes).await?;
    }
    Ok(upload.publish().await?)
}

/// Begins an upload in parts; with `upload`, makes the object of the parts that have come.
///
/// The headers of the beginning are the object's, as with `PUT`. Parts are sent in any order, also again, and at once.
/// `if-match` and `if-none-match` count when it is completed. One that is not complete is forgotten after 7 days.
#[utoipa::path(post, path = "/blob/{container}/{*key}",
    params(Step, ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header),
        ("cache-control" = Option<String>, Header)),
    request_body(content = Option<Complete>, content_type = "application/json"),
    responses(
        (status = 200, description = "The object", body = Object, headers(("etag" = String))),
        (status = 201, description = "The upload has begun", body = Begun),
    ))]
pub(in crate::data) async fn post(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(step): Parameters<Step>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let blob = container(&data, &token, &name, Access::ReadWrite, &key)?;
    match step {
        Step { upload: None, part: None } => {
            let begun = multipart::begin(blob, key, options(&headers)?, (data.stores.clock)()).await?;
            Ok((StatusCode::CREATED, Answer(begun)).into_response())
        }
        Step { upload: Some(id), part: None } => {
            let precondition = precondition(&headers)?;
            let (complete, share) = data.memory.json::<Complete>(body).await?;
            // Some tags, bounded by their number: no share of others' for as long as the object is made.
            drop(share);
            let _place = turn(data.uploads.clone().acquire_owned()).await?;
            Ok(described(multipart::complete(blob, &id, &key, complete, precondition).await?))
        }
        Step { part: Some(_), .. } => Err(ApiError::invalid("`part` goes with PUT")),
    }
}

/// Removes an object; one that is not there is no error. With `upload`, gives up an upload in parts.
#[utoipa::path(delete, path = "/blob/{container}/{*key}",
    params(Step, ("if-match" = Option<String>, Header), ("if-none-match" = Option<String>, Header)),
    responses((status = 204, description = "It is gone")))]
pub(in crate::data) async fn delete(
    State(data): State<Shared>,
    Extension(token): Extension<Token>,
    Segments((name, key)): Segments<(String, String)>,
    Parameters(step): Parameters<Step>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let blob = container(&data, &token, &name, Access::ReadWrite, &key)?;
    match step {
        Step { upload: None, part: None } => {
            blob.objects.delete(&key, precondition(&headers)?).await?;
        }
        Step { upload: Some(id), part: None } => multipart::abandon(blob, &id, &key).await?,
        Step { part: Some(_), .. } => return Err(ApiError::invalid("`part` goes with PUT")),
    }
    Ok(StatusCode::NO_CONTENT)
}

fn described(info: BlobInfo) -> Response {
    ([(ETAG, etag(&info.etag))], Answer(Object::from(info))).into_response()
}
