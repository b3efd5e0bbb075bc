//! The body of a guest's answer on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::incoming::Fault;
use crate::plugin::CallError;
use crate::plugin::limits::HTTP_ANSWER_BYTES;

/// The call that answers, which ends when this is dropped.
pub(super) type Running = AbortOnDropHandle<Result<(), CallError>>;

/// The body of an answer. Dropped before its end, because the client has gone, the guest ends with it.
pub struct Answer {
    body: HyperOutgoingBody,
    /// None: it has ended well.
    running: Option<Running>,
    /// None: nothing can be wrong with the request's body any more.
    fault: Option<oneshot::Receiver<Fault>>,
    /// When the exchange ends in any case.
    end: Pin<Box<Sleep>>,
    /// Bytes that may still go out.
    left: u64,
}

/// Why an answer broke off, for the log; its client only sees that it did.
#[derive(Debug, thiserror::Error)]
#[error("a plugin's answer broke off: {0}")]
pub struct BrokenOff(String);

impl Answer {
    pub(super) fn new(
        body: HyperOutgoingBody,
        running: Running,
        fault: Option<oneshot::Receiver<Fault>>,
        end: Pin<Box<Sleep>>,
    ) -> Answer {
        Answer { body, running: Some(running), fault, end, left: HTTP_ANSWER_BYTES }
    }

    /// Ends the guest.
    fn break_off<T>(&mut self, why: impl ToString) -> Poll<Option<Result<T, BrokenOff>>> {
        self.running = None;
        Poll::Ready(Some(Err(BrokenOff(why.to_string()))))
    }

    /// Whether something else than the guest ends the exchange.
    fn poll_interrupted(&mut self, context: &mut Context<'_>) -> Poll<&'static str> {
        if let Some(fault) = &mut self.fault
            && let Poll::Ready(fault) = Pin::new(fault).poll(context)
        {
            self.fault = None;
            match fault {
                Ok(Fault::TooLarge) => return Poll::Ready("the request's body is too large"),
                Ok(Fault::Slow) => return Poll::Ready("the request's body did not come in time"),
                // The guest has let go of the body.
                Err(_) => {}
            }
        }
        self.end.as_mut().poll(context).map(|()| "it took too long")
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Poll::Ready(why) = self.poll_interrupted(context) {
            return self.break_off(why);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                let Some(left) = self.left.checked_sub(bytes) else {
                    return self.break_off("it is too large");
                };
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => self.break_off(format!("{error:?}")),
            // The body of a guest that has trapped ends like that of a good one: the call's end tells them apart.
            None => {
                let Some(running) = &mut self.running else { return Poll::Ready(None) };
                let ended = ready!(Pin::new(running).poll(context));
                self.running = None;
                match ended {
                    Ok(Ok(())) => Poll::Ready(None),
                    Ok(Err(error)) => self.break_off(error),
                    Err(error) => self.break_off(error),
                }
            }
        }
    }
}
