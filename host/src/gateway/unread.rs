//! What an answer leaves unread of its request's body is thrown away before the answer goes out.
//!
//! HTTP/1.1 finds the next request after the end of this one's body. Whoever answers earlier than that must either read
//! on or say that the connection ends: else a client sends its next request (or the rest of this one) into a connection
//! that is being closed, and sees a reset where the answer was (RFC 9112, section 9.6).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{body::Body, middleware::Next, response::Response};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Version,
    header::{CONNECTION, EXPECT},
};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot::{Receiver, Sender, channel, error::TryRecvError},
    time::timeout,
};

use super::limits::{DISCARD_BYTES, DISCARD_SILENCE, DISCARD_TIMEOUT};

/// The body of a request that comes back here when it is dropped before its end.
struct Lent {
    body: Body,
    /// Whether its client waits for a word before it sends it, and has not got it.
    awaited: bool,
    back: Option<Sender<Option<Body>>>,
}

/// Where it comes back to; nothing comes if its client was never told to send it.
pub(super) struct Unread {
    back: Receiver<Option<Body>>,
    version: Version,
}

impl Unread {
    /// Lends a request's body out. None: it has none.
    pub(super) fn lend(request: Request<Body>) -> (Request<Body>, Option<Unread>) {
        if request.body().is_end_stream() {
            return (request, None);
        }
        let awaited = request.headers().contains_key(EXPECT);
        let (sender, back) = channel();
        let unread = Unread { back, version: request.version() };
        let lend = |body| Body::new(Lent { body, awaited, back: Some(sender) });
        (request.map(lend), Some(unread))
    }

    /// Reads what is left, within bounds; where they do not suffice, the answer says that the connection ends.
    pub(super) async fn discard(mut self, answer: &mut Response) {
        match self.back.try_recv() {
            Ok(left) => {
                let ended = match left {
                    Some(left) => discard(left).await,
                    None => false,
                };
                if !ended && self.version <= Version::HTTP_11 {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            // Somebody reads it while the answer goes out.
            Err(TryRecvError::Empty) => {
                tokio::spawn(async move {
                    if let Ok(Some(left)) = self.back.await {
                        discard(left).await;
                    }
                });
            }
            Err(TryRecvError::Closed) => (),
        }
    }
}

/// The same for a router that somebody else serves.
pub(crate) async fn discard_unread(request: axum::extract::Request, next: Next) -> Response {
    let (request, unread) = Unread::lend(request);
    let mut answer = next.run(request).await;
    if let Some(unread) = unread {
        unread.discard(&mut answer).await;
    }
    answer
}

/// Whether the body's end was reached, or its client is gone.
async fn discard(mut body: Body) -> bool {
    let read = async {
        let mut discarded = 0;
        while discarded <= DISCARD_BYTES {
            match timeout(DISCARD_SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => discarded += frame.data_ref().map_or(0, Bytes::len),
                Ok(Some(Err(_)) | None) => return true,
                Err(_) => return false,
            }
        }
        false
    };
    timeout(DISCARD_TIMEOUT, read).await.unwrap_or(false)
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.awaited = false;
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.back = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            return;
        }
        let Some(back) = self.back.take() else { return };
        // To read from a client that waits for a word would be that word.
        let left = (!self.awaited).then(|| std::mem::take(&mut self.body));
        // Nobody takes it when the request's connection is gone.
        let _ = back.send(left);
    }
}
