//! Answers in bounded memory: a client that does not take its answer holds it for a bounded time.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::body::crowded;
use super::limits::{ANSWER_PIECE_BYTES, ANSWER_TIME, ANSWERS_BYTES, STALL_TIME};
use crate::api::error::ApiError;
use crate::api::sent::sent;

/// Memory for answers, shared by all requests. A permit is a piece.
pub(super) struct Answers(Arc<Semaphore>);

impl Answers {
    pub(super) fn new() -> Answers {
        Answers(Arc::new(Semaphore::new(ANSWERS_BYTES / ANSWER_PIECE_BYTES)))
    }

    /// An answer in JSON. `place` is what the value's own memory is counted by; it is given back when the value is written.
    pub(super) async fn json<T, P>(&self, value: T, place: P) -> Result<Response, ApiError>
    where
        T: Serialize + Send + 'static,
        P: Send + 'static,
    {
        let mut pieces = Pieces::new(self);
        // Off the runtime's threads: some tens of MiB take a tenth of a second.
        let written = spawn_blocking(move || {
            let written = serde_json::to_writer(&mut pieces, &value);
            drop((value, place));
            written.map(|()| pieces)
        });
        let pieces = match written.await.map_err(|error| ApiError::internal(error.to_string()))? {
            Ok(pieces) => pieces,
            Err(error) if error.is_io() => return Err(crowded()),
            Err(error) => return Err(ApiError::internal(error.to_string())),
        };
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok((json, pieces.into_response()).into_response())
    }

    /// An answer of these bytes.
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<Response, ApiError> {
        let mut pieces = Pieces::new(self);
        io::Write::write_all(&mut pieces, bytes).map_err(|_| crowded())?;
        Ok(pieces.into_response())
    }
}

/// An answer as it is written. What there is no memory for is not written: who waited for it would hold what is there.
struct Pieces {
    memory: Arc<Semaphore>,
    all: Vec<Piece>,
}

/// A part of an answer, with its share of the memory; the first of each answer has none.
struct Piece {
    bytes: Vec<u8>,
    share: Option<OwnedSemaphorePermit>,
}

impl Pieces {
    fn new(answers: &Answers) -> Pieces {
        let first = Piece { bytes: Vec::new(), share: None };
        Pieces { memory: answers.0.clone(), all: vec![first] }
    }

    fn into_response(self) -> Response {
        let length: usize = self.all.iter().map(|piece| piece.bytes.len()).sum();
        let mut pieces = self.all.into_iter().map(|Piece { bytes, share }| {
            drop(share);
            Bytes::from(bytes)
        });
        if pieces.len() <= 1 {
            return Body::from(pieces.next().unwrap_or_default()).into_response();
        }
        let body = sent(stream::iter(pieces.map(Ok)), STALL_TIME, ANSWER_TIME);
        ([(CONTENT_LENGTH, HeaderValue::from(length))], body).into_response()
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = |piece: &Piece| ANSWER_PIECE_BYTES.saturating_sub(piece.bytes.len());
        if self.all.last().is_none_or(|piece| room(piece) == 0) {
            let share = self.memory.clone().try_acquire_owned().map_err(io::Error::other)?;
            self.all.push(Piece { bytes: Vec::with_capacity(ANSWER_PIECE_BYTES), share: Some(share) });
        }
        let Some(piece) = self.all.last_mut() else { return Ok(0) };
        let (now, _) = bytes.split_at(bytes.len().min(room(piece)));
        piece.bytes.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
