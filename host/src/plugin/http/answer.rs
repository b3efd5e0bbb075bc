//! The body of a guest's answer on its way to the client.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::incoming::Fault;
use super::unanswered::Unanswered;
use crate::plugin::limits::HTTP_ANSWER_BYTES;

/// The call that answers, which ends when this is dropped.
pub(super) type Running = AbortOnDropHandle<Result<(), Unanswered>>;

/// The body of an answer. Dropped before its end, because the client has gone, the guest ends with it.
pub struct Answer {
    body: HyperOutgoingBody,
    /// None: it has ended well.
    running: Option<Running>,
    /// None: nothing can be wrong with the request's body any more.
    fault: Option<oneshot::Receiver<Fault>>,
    /// Bytes that may still go out.
    left: u64,
    /// Bytes that are still to come, where the head says so.
    declared: Option<u64>,
    /// The last of those: it goes out when the guest has ended, since nobody asks for more after it.
    last: Option<Frame<Bytes>>,
}

/// Why an answer broke off, for the log; its client only sees that it did.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The guest's call or the request's body ended badly.
    #[error("a plugin's answer broke off: {0}")]
    Ended(Unanswered),
    /// It has more bytes than it may.
    #[error("a plugin's answer broke off: it is too large")]
    TooLarge,
    /// The guest let go of it in the middle.
    #[error("a plugin's answer broke off: the plugin did not finish it")]
    Unfinished,
}

impl Answer {
    /// `declared` is the length that the head tells.
    pub(super) fn new(
        body: HyperOutgoingBody,
        declared: Option<u64>,
        running: Running,
        fault: Option<oneshot::Receiver<Fault>>,
    ) -> Answer {
        Answer { body, running: Some(running), fault, left: HTTP_ANSWER_BYTES, declared, last: None }
    }

    /// Waits for the guest's end, in place of a client that nothing of the body is for. Then it is at its end.
    pub(super) async fn finish(&mut self) -> Result<(), Unanswered> {
        poll_fn(|context| {
            if let Poll::Ready(fault) = self.poll_fault(context) {
                return Poll::Ready(Err(fault.into()));
            }
            // One that the guest leaves unfinished is no worse here.
            while let Some(Ok(_)) = ready!(Pin::new(&mut self.body).poll_frame(context)) {}
            self.poll_ended(context)
        })
        .await
    }

    /// Ends the guest.
    fn break_off<T>(&mut self, why: BrokenOff) -> Poll<Option<Result<T, BrokenOff>>> {
        self.running = None;
        Poll::Ready(Some(Err(why)))
    }

    /// What is wrong with the request's body.
    fn poll_fault(&mut self, context: &mut Context<'_>) -> Poll<Fault> {
        let Some(fault) = &mut self.fault else { return Poll::Pending };
        let heard = ready!(Pin::new(fault).poll(context));
        // Or else the guest has let go of the body.
        self.fault = None;
        heard.map_or(Poll::Pending, Poll::Ready)
    }

    /// How the guest's call ended.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        let Some(running) = &mut self.running else { return Poll::Ready(Ok(())) };
        let ended = ready!(Pin::new(running).poll(context));
        self.running = None;
        Poll::Ready(ended.unwrap_or(Err(Unanswered::Nothing)))
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Poll::Ready(fault) = self.poll_fault(context) {
            return self.break_off(BrokenOff::Ended(fault.into()));
        }
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let Some(left) = self.left.checked_sub(bytes) else {
                        return self.break_off(BrokenOff::TooLarge);
                    };
                    self.left = left;
                    self.declared = self.declared.map(|declared| declared.saturating_sub(bytes));
                    if self.declared != Some(0) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    // Behind the last bytes there can only be trailers, which no answer with a length has.
                    self.last.get_or_insert(frame);
                }
                Some(Err(_)) => return self.break_off(BrokenOff::Unfinished),
                // The body of a guest that has trapped ends like that of a good one: the call's end tells them apart.
                None => {
                    return match ready!(self.poll_ended(context)) {
                        Ok(()) => Poll::Ready(self.last.take().map(Ok)),
                        Err(why) => self.break_off(BrokenOff::Ended(why)),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt, Full};

    use super::*;

    /// An answer of four bytes, and where its guest ends.
    fn answer(declared: Option<u64>) -> (Answer, oneshot::Sender<Result<(), Unanswered>>) {
        let (end, ended) = oneshot::channel();
        let running = AbortOnDropHandle::new(tokio::spawn(async move { ended.await.unwrap() }));
        let body = Full::new(Bytes::from_static(b"some")).map_err(|never| match never {}).boxed_unsync();
        (Answer::new(body, declared, running, None), end)
    }

    #[tokio::test]
    async fn the_last_bytes_of_a_declared_length_wait_for_the_guests_end() {
        let (mut good, end) = answer(Some(4));
        assert!(good.frame().now_or_never().is_none());
        end.send(Ok(())).unwrap();
        assert_eq!(good.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
        assert!(good.frame().await.is_none());
        let (mut bad, end) = answer(Some(4));
        assert!(bad.frame().now_or_never().is_none());
        end.send(Err(Unanswered::Late)).unwrap();
        assert!(matches!(bad.frame().await, Some(Err(BrokenOff::Ended(Unanswered::Late)))));
    }

    #[tokio::test]
    async fn bytes_without_a_declared_length_go_out_at_once() {
        let (mut answer, _end) = answer(None);
        assert!(answer.frame().now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_with_its_guest() {
        let (mut bad, end) = answer(None);
        assert!(bad.finish().now_or_never().is_none());
        end.send(Err(Unanswered::Late)).unwrap();
        assert!(matches!(bad.finish().await, Err(Unanswered::Late)));
        let (mut good, end) = answer(Some(4));
        end.send(Ok(())).unwrap();
        good.finish().await.unwrap();
        assert!(good.frame().await.is_none());
    }
}
