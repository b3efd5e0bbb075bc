//! What a guest writes: bytes that go to an object as they come once it is said which, and are held until then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;
use tollgate_store::{BlobError, Upload};
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::types;
use crate::capability::Host;
use crate::capability::blob::{BlobView, gone};
use crate::capability::budget::Left;
use crate::plugin::Limit;
use crate::plugin::limits::{BLOB_HELD_BYTES, BLOB_STREAM_BYTES};

/// A content that becomes an object by `finish`; dropped before, it leaves nothing behind.
pub struct OutgoingValue {
    content: Arc<Content>,
    /// Whether its stream was asked for.
    streams: bool,
}

/// What a content and its stream share.
struct Content {
    state: Mutex<State>,
    left: Arc<Left>,
}

enum State {
    /// Nobody has said yet which object it becomes.
    Held {
        bytes: Vec<u8>,
        place: Option<OwnedSemaphorePermit>,
    },
    Open(Box<Writer>),
    /// Bytes are on their way, whether the guest waits for them or not.
    Writing(Writing),
    Failed(String),
    Closed,
}

/// An object that is being written.
pub(super) struct Writer {
    pub(super) upload: Upload,
    pub(super) place: OwnedSemaphorePermit,
}

/// A task of its own: the store's places for uploads go to whoever queues for them, and one that only its guest drove would
/// keep such a place until the guest asks again.
type Writing = AbortOnDropHandle<Result<Box<Writer>, BlobError>>;

/// The stream of a content.
struct ContentStream(Arc<Content>);

/// The host's side of one call about contents.
pub(super) struct Values<'a> {
    pub(super) blob: BlobView<'a>,
    /// Places of the plugin for contents that are held.
    pub(super) held: &'a Arc<Semaphore>,
}

/// Says to the engine that host functions get [`Values`].
pub(super) struct HasValues;

impl HasData for HasValues {
    type Data<'a> = Values<'a>;
}

pub(super) fn values<T: Host>(state: &mut T) -> Values<'_> {
    let (granted, table, budget) = state.parts();
    let (openable, held) = (&granted.blob, &granted.held_blobs);
    Values { blob: BlobView { openable, table, budget }, held }
}

/// What a guest is told of an error of the store.
pub(super) fn told(left: &Left, error: BlobError) -> String {
    if matches!(error, BlobError::TooLarge(_)) {
        left.hit(Limit::Size);
    }
    error.to_string()
}

/// The error of a stream.
pub(super) fn failed(text: String) -> StreamError {
    StreamError::LastOperationFailed(wasmtime::Error::msg(text))
}

impl OutgoingValue {
    /// Says which object it becomes, and hands over what was written before.
    pub(super) async fn goes_to(&self, writer: Box<Writer>) -> Result<(), String> {
        {
            let mut state = self.content.state.lock();
            let (bytes, place) = match &mut *state {
                State::Held { bytes, place } => (std::mem::take(bytes), place.take()),
                State::Failed(text) => return Err(text.clone()),
                _ => return Err("it was said before which object the content becomes".to_owned()),
            };
            *state = self.content.begin(writer, bytes.into(), place);
        }
        self.content.settled().await;
        match &*self.content.state.lock() {
            State::Failed(text) => Err(text.clone()),
            _ => Ok(()),
        }
    }

    async fn finish(self) -> Result<(), String> {
        self.content.settled().await;
        match self.content.close() {
            State::Open(writer) => {
                // The place is kept until the object is there.
                let Writer { upload, place: _place } = *writer;
                upload.publish().await.map_err(|error| told(&self.content.left, error))?;
                Ok(())
            }
            State::Failed(text) => Err(text),
            State::Held { .. } => Err("write-data has not said which object the content becomes".to_owned()),
            State::Writing(_) | State::Closed => Err("the content is closed".to_owned()),
        }
    }
}

impl Drop for OutgoingValue {
    /// The stream may be there longer.
    fn drop(&mut self) {
        self.content.close();
    }
}

impl Content {
    /// Sends bytes on their way; the place of what was held is kept until they have gone.
    fn begin(&self, mut writer: Box<Writer>, bytes: Bytes, held: Option<OwnedSemaphorePermit>) -> State {
        if bytes.is_empty() {
            return State::Open(writer);
        }
        let mut writing = Box::pin(async move {
            let _held = held;
            writer.upload.write(&bytes).await?;
            Ok(writer)
        });
        // Most pieces only join what is gathered for a chunk.
        match writing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(written) => self.written(written),
            Poll::Pending => State::Writing(AbortOnDropHandle::new(tokio::spawn(writing))),
        }
    }

    fn written(&self, written: Result<Box<Writer>, BlobError>) -> State {
        match written {
            Ok(writer) => State::Open(writer),
            Err(error) => State::Failed(told(&self.left, error)),
        }
    }

    /// Waits for what is on its way.
    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if let State::Writing(writing) = &mut *state {
            *state = match ready!(Pin::new(writing).poll(context)) {
                Ok(written) => self.written(written),
                Err(error) => State::Failed(error.to_string()),
            };
        }
        Poll::Ready(())
    }

    async fn settled(&self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    fn close(&self) -> State {
        std::mem::replace(&mut self.state.lock(), State::Closed)
    }

    /// How many bytes may be written now.
    fn permit(&self) -> StreamResult<usize> {
        // A guest may ask again and again rather than wait.
        let _ = self.poll(&mut Context::from_waker(Waker::noop()));
        match &*self.state.lock() {
            // Never 0, for which a guest would wait: who holds too much is told when it writes.
            State::Held { bytes, .. } => Ok((BLOB_HELD_BYTES - bytes.len()).clamp(1, BLOB_STREAM_BYTES)),
            State::Open(_) => Ok(BLOB_STREAM_BYTES),
            State::Writing(_) => Ok(0),
            State::Failed(text) => Err(failed(text.clone())),
            State::Closed => Err(StreamError::Closed),
        }
    }

    /// Takes bytes. An error is for good: an object without them is none.
    fn write(&self, bytes: Bytes) -> Result<(), String> {
        self.left.call(bytes.len())?;
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Held { bytes: held, .. } if held.len() + bytes.len() > BLOB_HELD_BYTES => {
                self.left.hit(Limit::Size);
                return Err(format!(
                    "at most {BLOB_HELD_BYTES} bytes are held; call write-data before they are written"
                ));
            }
            State::Held { bytes: mut held, place } => {
                held.extend_from_slice(&bytes);
                *state = State::Held { bytes: held, place };
            }
            State::Open(writer) => *state = self.begin(writer, bytes, None),
            other => *state = other,
        }
        Ok(())
    }
}

#[async_trait]
impl Pollable for ContentStream {
    async fn ready(&mut self) {
        self.0.settled().await;
    }
}

impl OutputStream for ContentStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let most = self.0.permit()?;
        let written = if bytes.len() > most {
            Err(format!("check-write lets {most} bytes be written now, and not {}", bytes.len()))
        } else {
            self.0.write(bytes)
        };
        written.map_err(|text| {
            *self.0.state.lock() = State::Failed(text.clone());
            failed(text)
        })
    }

    /// What was written is always on its way.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.permit()
    }
}

impl types::Host for Values<'_> {}

impl types::HostOutgoingValue for Values<'_> {
    /// The standard leaves no way to refuse it but a trap.
    async fn new_outgoing_value(&mut self) -> wasmtime::Result<Resource<OutgoingValue>> {
        let state = Mutex::new(State::Held { bytes: Vec::new(), place: None });
        let content = Arc::new(Content { state, left: self.blob.budget.share() });
        let value = self.blob.push(OutgoingValue { content, streams: false });
        value.map_err(|error| wasmtime::Error::msg(String::from(error)))
    }

    async fn outgoing_value_write_body(
        &mut self,
        value: Resource<OutgoingValue>,
    ) -> Result<Resource<DynOutputStream>, ()> {
        self.blob.call(0).map_err(drop)?;
        let value = self.blob.table.get_mut(&value).map_err(drop)?;
        if value.streams {
            return Err(());
        }
        let content = value.content.clone();
        if let State::Held { place, .. } = &mut *content.state.lock() {
            let Ok(free) = self.held.clone().try_acquire_owned() else {
                self.blob.budget.hit(Limit::Handles);
                return Err(());
            };
            *place = Some(free);
        }
        value.streams = true;
        let stream: DynOutputStream = Box::new(ContentStream(content));
        self.blob.push(stream).map_err(drop)
    }

    async fn finish(&mut self, value: Resource<OutgoingValue>) -> Result<(), String> {
        // Whatever comes of it, the guest has given the handle away.
        let value = self.blob.table.delete(value).map_err(gone)?;
        self.blob.call(0)?;
        value.finish().await
    }

    async fn drop(&mut self, value: Resource<OutgoingValue>) -> wasmtime::Result<()> {
        self.blob.table.delete(value)?;
        Ok(())
    }
}
