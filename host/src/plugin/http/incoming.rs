//! What comes into a guest from the network: the body of a request, or of an answer to one that the guest sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::plugin::limits::HTTP_BODY_BYTES;

/// A request as the guest gets it.
pub(crate) type Asked = http::Request<UnsyncBoxBody<Bytes, Error>>;

/// Where the guest brings its answer, or the reason why there is none.
pub(crate) type Answering = oneshot::Sender<Result<http::Response<HyperOutgoingBody>, ErrorCode>>;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is too large.
    TooLarge,
    /// Nothing came of it for too long.
    Slow,
    /// It broke off, or is malformed.
    Broken,
}

/// A body within its limits.
pub(super) struct Incoming<B> {
    body: B,
    /// Bytes that may still come.
    left: usize,
    /// Runs while the guest waits.
    silence: Option<Pin<Box<Sleep>>>,
    at_fault: AtFault,
    patience: Duration,
}

/// What happens beyond the limits.
enum AtFault {
    /// The host is told, and the guest nothing any more: whatever a client sends must not look like a fault of the plugin's.
    Tell(oneshot::Sender<Fault>),
    /// The host has been told.
    Told,
    /// The guest gets an error; until then the body keeps a place.
    Fail { _place: OwnedSemaphorePermit },
}

impl<B> Incoming<B> {
    /// Of a request; `patience` is how long the guest may wait for the next bytes.
    pub(super) fn new(body: B, patience: Duration, fault: oneshot::Sender<Fault>) -> Incoming<B> {
        Incoming { body, left: HTTP_BODY_BYTES, silence: None, at_fault: AtFault::Tell(fault), patience }
    }

    /// Of an answer, which keeps its place among those under way.
    pub(super) fn answer(body: B, patience: Duration, place: OwnedSemaphorePermit) -> Incoming<B> {
        Incoming {
            body,
            left: HTTP_BODY_BYTES,
            silence: None,
            at_fault: AtFault::Fail { _place: place },
            patience,
        }
    }

    fn fail<T>(&mut self, fault: Fault) -> Poll<Option<Result<T, Error>>> {
        match std::mem::replace(&mut self.at_fault, AtFault::Told) {
            AtFault::Tell(sender) => {
                // Nobody waits for it when the request is over anyway.
                let _ = sender.send(fault);
                Poll::Pending
            }
            AtFault::Told => Poll::Pending,
            AtFault::Fail { .. } => Poll::Ready(Some(Err(match fault {
                Fault::TooLarge => Error::HttpResponseBodySize(None),
                Fault::Slow => Error::ConnectionReadTimeout,
                Fault::Broken => Error::ConnectionTerminated,
            }))),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Incoming<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if matches!(self.at_fault, AtFault::Told) {
            return Poll::Pending;
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(frame) = polled else {
            let patience = self.patience;
            let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(patience)));
            ready!(silence.as_mut().poll(context));
            return self.fail(Fault::Slow);
        };
        self.silence = None;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return self.fail(Fault::Broken),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => self.fail(Fault::TooLarge),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::Semaphore;

    use super::*;

    type Piece = Result<Frame<Bytes>, std::convert::Infallible>;

    /// What the guest gets of a body before it hears nothing any more, and what the host hears.
    async fn read(
        pieces: impl futures_util::Stream<Item = Piece> + Send + 'static,
    ) -> (usize, Result<Fault, oneshot::error::RecvError>) {
        let (sender, fault) = oneshot::channel();
        let body = StreamBody::new(Box::pin(pieces));
        let mut body = Incoming::new(body, Duration::from_millis(20), sender);
        let mut bytes = 0;
        let reading = async {
            while let Some(frame) = body.frame().await {
                bytes += frame.unwrap().data_ref().unwrap().len();
            }
            drop(body);
            std::future::pending::<()>().await;
        };
        let fault = tokio::select! {
            () = reading => unreachable!(),
            fault = fault => fault,
        };
        (bytes, fault)
    }

    #[tokio::test]
    async fn a_body_without_end_stops_at_its_limit() {
        let piece = Bytes::from(vec![0; 1 << 20]);
        let endless = stream::repeat_with(move || Ok(Frame::data(piece.clone())));
        assert_eq!(read(endless).await, (HTTP_BODY_BYTES, Ok(Fault::TooLarge)));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_an_error_and_keeps_its_place_until_then() {
        let piece = Bytes::from(vec![0; 1 << 20]);
        let endless = stream::repeat_with(move || Piece::Ok(Frame::data(piece.clone())));
        let room = Arc::new(Semaphore::new(1));
        let place = room.clone().try_acquire_owned().unwrap();
        let mut body = Incoming::answer(StreamBody::new(endless), Duration::from_secs(60), place);
        let error = loop {
            assert_eq!(room.available_permits(), 0);
            if let Err(error) = body.frame().await.unwrap() {
                break error;
            }
        };
        assert!(matches!(error, Error::HttpResponseBodySize(_)), "{error}");
        assert_eq!(room.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_client_that_stops_sending_is_noticed_and_one_that_ends_is_not_at_fault() {
        let once = || stream::once(async { Ok(Frame::data(Bytes::from_static(b"some"))) });
        use futures_util::StreamExt as _;
        assert_eq!(read(once().chain(stream::pending())).await, (4, Ok(Fault::Slow)));
        assert!(matches!(read(once()).await, (4, Err(_))));
    }
}
