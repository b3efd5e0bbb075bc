//! A body whose beginning may have been read already, to find out what it is, and is passed on all the same.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::connection::Received;

/// What was read, and the rest.
pub(super) struct Begun {
    begun: BytesMut,
    rest: Received,
}

impl Begun {
    /// A body of which nothing has been read.
    pub(super) fn new(rest: Received) -> Begun {
        Begun { begun: BytesMut::new(), rest }
    }

    /// Reads until there are so many bytes, or all.
    pub(super) async fn read(&mut self, bytes: usize) -> hyper::Result<()> {
        while self.begun.len() < bytes {
            let Some(frame) = self.rest.frame().await else { return Ok(()) };
            if let Ok(data) = frame?.into_data() {
                self.begun.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    /// What was read and has not been passed on.
    pub(super) fn begun(&self) -> &[u8] {
        &self.begun
    }
}

impl Body for Begun {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if self.begun.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(cx);
        }
        let begun = std::mem::take(&mut self.begun);
        Poll::Ready(Some(Ok(Frame::data(begun.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (begun, rest) = (self.begun.len() as u64, self.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + begun);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + begun);
        }
        hint
    }
}
