//! What a guest reads: the bytes of an object as it was when it was asked for, whole or as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tollgate_store::{BlobError, Reader};
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynInputStream, InputStream, Pollable, StreamError, StreamResult};

use super::outgoing::{Values, failed, told};
use super::types;
use crate::capability::blob::gone;
use crate::capability::budget::Left;
use crate::plugin::limits::BLOB_PIECE_BYTES;

/// Bytes of an object; none of them where none were asked for that it has.
pub struct IncomingValue(Option<(Reader, OwnedSemaphorePermit)>);

/// The same as a stream, which has one piece of it in memory at a time.
struct ObjectStream {
    source: Source,
    /// What was read last and not taken yet.
    piece: Bytes,
    left: Arc<Left>,
    _place: Option<OwnedSemaphorePermit>,
}

enum Source {
    Open(Box<Reader>),
    /// A piece is on its way. It stays here when a guest does not wait for it any more.
    Reading(Reading),
    Failed(String),
    Ended,
}

type Reading = Pin<Box<dyn Future<Output = Result<Option<(Box<Reader>, Vec<u8>)>, BlobError>> + Send>>;

impl IncomingValue {
    pub(super) fn new(reader: Reader, place: OwnedSemaphorePermit) -> IncomingValue {
        IncomingValue(Some((reader, place)))
    }

    pub(super) fn empty() -> IncomingValue {
        IncomingValue(None)
    }

    fn size(&self) -> u64 {
        self.0.as_ref().map_or(0, |(reader, _)| reader.range().end - reader.range().start)
    }
}

impl ObjectStream {
    /// Reads on until there is a piece, an end or an error.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.piece.is_empty() {
            self.source = match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Open(mut reader) => Source::Reading(Box::pin(async move {
                    let bytes = reader.next().await?;
                    Ok(bytes.map(|bytes| (reader, bytes)))
                })),
                Source::Reading(mut reading) => match reading.as_mut().poll(context) {
                    Poll::Pending => {
                        self.source = Source::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Some((reader, bytes)))) => {
                        self.piece = bytes.into();
                        Source::Open(reader)
                    }
                    Poll::Ready(Ok(None)) => Source::Ended,
                    Poll::Ready(Err(error)) => Source::Failed(told(&self.left, error)),
                },
                over @ (Source::Failed(_) | Source::Ended) => {
                    self.source = over;
                    return Poll::Ready(());
                }
            };
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for ObjectStream {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

impl InputStream for ObjectStream {
    fn read(&mut self, most: usize) -> StreamResult<Bytes> {
        self.left.call(0).map_err(failed)?;
        if self.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Ok(Bytes::new());
        }
        match &self.source {
            _ if !self.piece.is_empty() => {}
            Source::Failed(text) => return Err(failed(text.clone())),
            _ => return Err(StreamError::Closed),
        }
        let length = most.min(self.piece.len()).min(BLOB_PIECE_BYTES);
        self.left.answer(length).map_err(failed)?;
        Ok(self.piece.split_to(length))
    }
}

impl types::HostIncomingValue for Values<'_> {
    async fn incoming_value_consume_sync(
        &mut self,
        value: Resource<IncomingValue>,
    ) -> Result<Vec<u8>, String> {
        // Whatever comes of it, the guest has given the handle away.
        let value = self.blob.table.delete(value).map_err(gone)?;
        self.blob.call(0)?;
        match value.0 {
            Some((reader, _place)) => Ok(self.blob.whole(reader).await?),
            None => Ok(Vec::new()),
        }
    }

    async fn incoming_value_consume_async(
        &mut self,
        value: Resource<IncomingValue>,
    ) -> Result<Resource<DynInputStream>, String> {
        let value = self.blob.table.delete(value).map_err(gone)?;
        self.blob.call(0)?;
        let (source, _place) = match value.0 {
            Some((reader, place)) => (Source::Open(Box::new(reader)), Some(place)),
            None => (Source::Ended, None),
        };
        let stream = ObjectStream { source, piece: Bytes::new(), left: self.blob.budget.share(), _place };
        let stream: DynInputStream = Box::new(stream);
        Ok(self.blob.push(stream)?)
    }

    async fn size(&mut self, value: Resource<IncomingValue>) -> u64 {
        self.blob.table.get(&value).map_or(0, IncomingValue::size)
    }

    async fn drop(&mut self, value: Resource<IncomingValue>) -> wasmtime::Result<()> {
        self.blob.table.delete(value)?;
        Ok(())
    }
}
