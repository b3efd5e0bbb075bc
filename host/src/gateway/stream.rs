//! The answer on its way to the client: frame by frame, no faster than the client reads.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::{
    flight::{End, Guard, Open},
    unasked::Unasked,
};
use crate::plugin::admission::Ending;

/// Passes an upstream's answer on unchanged but for what the client is not to get, reads its usage and ends the flight with it.
pub(super) struct AnswerBody {
    flight: Guard,
    over: bool,
    /// How the upstream broke off, until the server is told.
    broken: Option<io::Error>,
}

impl AnswerBody {
    /// The body of a flight that has an answer.
    pub(super) fn new(flight: Guard) -> AnswerBody {
        // A server does not ask an empty body for anything, so that it has to end here.
        let empty = flight.with(ended).flatten();
        let over = empty.is_some();
        empty.into_iter().for_each(|end| flight.end(end));
        AnswerBody { flight, over, broken: None }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(error) = self.broken.take() {
            self.over = true;
            return Poll::Ready(Some(Err(error)));
        }
        let Some((polled, end)) = self.flight.with(|open| advance(open, cx)) else {
            self.over = true;
            return Poll::Ready(Some(Err(io::Error::other("the answer was cut"))));
        };
        let Some(end) = end else { return polled };
        self.flight.end(end);
        match polled {
            Poll::Ready(Some(Err(error))) => {
                // A server that is told at once drops what it has not written, such as the head; told of nothing more, it
                // writes that.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            last => {
                self.over = true;
                last
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

type Polled = Poll<Option<io::Result<Frame<Bytes>>>>;

/// Asks the upstream for the next frame; also how the flight ends, if this was the last.
fn advance(open: &mut Open, cx: &mut Context<'_>) -> (Polled, Option<End>) {
    let Some(answer) = &mut open.answer else { return (Poll::Ready(None), None) };
    match Pin::new(&mut answer.body).poll_frame(cx) {
        Poll::Pending => {
            if answer.waiting.is_none() {
                answer.since = Instant::now();
            }
            answer.waiting = Some(cx.waker().clone());
            (Poll::Pending, None)
        }
        Poll::Ready(Some(Ok(frame))) => {
            let now = Instant::now();
            (answer.since, answer.waiting) = (now, None);
            if let Some(data) = frame.data_ref() {
                answer.reader.feed(data);
            }
            let is_last = answer.body.is_end_stream();
            let Some(frame) = passing(&mut answer.unasked, frame, is_last) else {
                return nothing(open, cx);
            };
            if let Some(data) = frame.data_ref() {
                open.passed(data.len(), now);
            }
            (Poll::Ready(Some(Ok(frame))), ended(open))
        }
        Poll::Ready(Some(Err(error))) => {
            let end = End::new(Ending::UpstreamError, answer.status)
                .error(format!("the upstream broke off: {error}"));
            (Poll::Ready(Some(Err(io::Error::other(error)))), Some(end))
        }
        Poll::Ready(None) => {
            let end = End::new(Ending::Completed, answer.status);
            let rest = passing(&mut answer.unasked, Frame::data(Bytes::new()), true);
            let rest = rest.filter(|frame| frame.data_ref().is_some_and(|data| !data.is_empty()));
            if let Some(data) = rest.as_ref().and_then(Frame::data_ref) {
                open.passed(data.len(), Instant::now());
            }
            (Poll::Ready(rest.map(Ok)), Some(end))
        }
    }
}

/// What of a frame the client gets, if it is anything.
fn passing(unasked: &mut Option<Unasked>, frame: Frame<Bytes>, is_last: bool) -> Option<Frame<Bytes>> {
    let Some(unasked) = unasked else { return Some(frame) };
    let mut passed = Vec::new();
    if let Ok(data) = frame.into_data() {
        unasked.feed(&data, &mut passed);
    }
    if is_last {
        unasked.finish(&mut passed);
    }
    (!passed.is_empty()).then(|| Frame::data(passed.into()))
}

/// Of the last frame nothing is for the client. The next one is asked for when others have had their turn: an upstream can
/// send many of the kind.
fn nothing(open: &mut Open, cx: &mut Context<'_>) -> (Polled, Option<End>) {
    match ended(open) {
        Some(end) => (Poll::Ready(None), Some(end)),
        None => {
            cx.waker().wake_by_ref();
            (Poll::Pending, None)
        }
    }
}

fn ended(open: &mut Open) -> Option<End> {
    let answer = open.answer.as_ref()?;
    answer.body.is_end_stream().then(|| End::new(Ending::Completed, answer.status))
}
