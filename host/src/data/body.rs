//! Request bodies: whole ones in bounded memory, streams at a bounded pace.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::RETRY_AFTER;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::limits::{
    BODY_TIME, JSON_BYTES, JSON_LIGHT_BYTES, JSON_WEIGHT, MEMORY_BYTES, PACE_BYTES, PACE_TIME, PARSING_BYTES,
    TURN_WAIT,
};
use crate::api::error::ApiError;

/// Bytes that one permit stands for.
const GRAIN: usize = 1024;

/// Memory for whole bodies, shared by all requests.
pub(super) struct Memory {
    bodies: Arc<Semaphore>,
    /// For what JSON comes to while it is read.
    parsing: Arc<Semaphore>,
}

/// A body, with its share of the memory.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    share: OwnedSemaphorePermit,
}

impl Memory {
    pub(super) fn new() -> Memory {
        let of = |bytes: usize| Arc::new(Semaphore::new(bytes / GRAIN));
        Memory { bodies: of(MEMORY_BYTES), parsing: of(PARSING_BYTES) }
    }

    /// Reads a JSON body; the permit is its share of the memory, for as long as what was in it is.
    pub(super) async fn json<T>(&self, body: Body) -> Result<(T, OwnedSemaphorePermit), ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let whole = self.whole(body, JSON_BYTES).await?;
        self.parse(whole).await
    }

    /// Reads the JSON in a body. It waits for memory that others hold for the time of their reading only, whatever the pace
    /// of their clients.
    pub(super) async fn parse<T>(&self, whole: Whole) -> Result<(T, OwnedSemaphorePermit), ApiError>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Whole { bytes, share } = whole;
        let weight = grains(bytes.len().saturating_mul(JSON_WEIGHT));
        let reading = turn(self.parsing.clone().acquire_many_owned(weight)).await?;
        let light = bytes.len() <= JSON_LIGHT_BYTES;
        let read = move || {
            let value = serde_json::from_slice(&bytes);
            drop(reading);
            (value, share)
        };
        let (value, share) = if light {
            read()
        } else {
            let read = spawn_blocking(read).await;
            read.map_err(|error| ApiError::internal(error.to_string()))?
        };
        let value = value
            .map_err(|error| ApiError::invalid(format!("the body is not what was expected: {error}")))?;
        Ok((value, share))
    }

    /// Reads a whole body of at most so many bytes.
    pub(super) async fn whole(&self, body: Body, most: usize) -> Result<Whole, ApiError> {
        let announced = body.size_hint().exact();
        if announced.is_some_and(|length| length > most as u64) {
            return Err(too_large(most));
        }
        timeout(BODY_TIME, self.collect(body, most)).await.unwrap_or_else(|_| Err(slow()))
    }

    /// Takes memory as bytes come: what is announced and not sent takes none from others.
    async fn collect(&self, mut body: Body, most: usize) -> Result<Whole, ApiError> {
        let mut share = turn(self.bodies.clone().acquire_many_owned(0)).await?;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
            if bytes.len() + data.len() > most {
                return Err(too_large(most));
            }
            bytes.extend_from_slice(&data);
            let has = u32::try_from(share.num_permits()).unwrap_or(u32::MAX);
            let needed = grains(bytes.len()).saturating_sub(has);
            // Only who holds nothing waits: else all could hold some and wait for each other.
            let more = if has == 0 {
                turn(self.bodies.clone().acquire_many_owned(needed)).await?
            } else {
                self.bodies.clone().try_acquire_many_owned(needed).map_err(|_| crowded())?
            };
            share.merge(more);
        }
        Ok(Whole { bytes: bytes.freeze(), share })
    }
}

fn grains(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX)
}

/// Waits a while for a place.
pub(super) async fn turn<T, E>(place: impl Future<Output = Result<T, E>>) -> Result<T, ApiError> {
    match timeout(TURN_WAIT, place).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(crowded()),
    }
}

pub(super) fn crowded() -> ApiError {
    ApiError::unavailable("too many requests of this kind are under way").hint("come again in a second")
}

/// A body that is read piece by piece, and whose client may not drip.
pub(super) struct Paced {
    body: Body,
    /// Bytes since the time was full.
    bytes: usize,
    left: Duration,
}

impl Paced {
    pub(super) fn new(body: Body) -> Paced {
        Paced { body, bytes: 0, left: PACE_TIME }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let asked = Instant::now();
            let Ok(frame) = timeout(self.left, self.body.frame()).await else { return Err(slow()) };
            self.left = self.left.saturating_sub(asked.elapsed());
            let Some(frame) = frame else { return Ok(None) };
            let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
            self.bytes += data.len();
            if self.bytes >= PACE_BYTES {
                (self.bytes, self.left) = (0, PACE_TIME);
            }
            return Ok(Some(data));
        }
    }
}

fn too_large(most: usize) -> ApiError {
    ApiError::too_large(format!("the body has more than {most} bytes"))
}

fn broken() -> ApiError {
    ApiError::invalid("the body broke off")
}

fn slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body did not arrive in time")
}

/// Adds to an answer when to come again, if that may help.
pub(super) fn with_retry(mut response: Response) -> Response {
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response.into_response()
}
