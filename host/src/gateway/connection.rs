//! One plain HTTP/1 connection to an upstream, worked by whoever waits for its answer.
//!
//! hyper's pooled client gives each connection a task, which a request wakes, and which wakes the request for the head and
//! each piece of the body. Here the request works the connection itself: no task, nobody to wake, and the head of an
//! answer is still at hand when its body comes, so that both leave in one write.
//!
//! Invariant: between two requests nothing of a connection runs. Whether the upstream has closed it meanwhile shows at its
//! next use, before anything is sent.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{host::Host, renamed::Sending};

/// A request as it is sent.
pub(super) type Sent = Request<Sending>;

/// A connection and what drives it.
pub(super) struct Connection {
    sender: http1::SendRequest<Sending>,
    /// None once it has come to its end, by which hyper also answers whoever waits.
    work: Option<http1::Connection<TokioIo<TcpStream>, Sending>>,
}

impl Connection {
    /// Speaks HTTP/1 over a stream.
    pub(super) async fn new(stream: TokioIo<TcpStream>) -> hyper::Result<Box<Connection>> {
        let (sender, work) = http1::handshake(stream).await?;
        Ok(Box::new(Connection { sender, work: Some(work) }))
    }

    /// Sends a request and waits for the head of its answer. The error has the request if none of it was sent.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Sent,
        host: &Arc<Host>,
    ) -> Result<Response<Received>, TrySendError<Sent>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let head = poll_fn(|cx| self.work_for(cx, |unwoken| answer.as_mut().poll(unwoken)));
        let (head, body) = head.await?.into_parts();
        let mut received = Received { body, over: Some((self, host.clone())) };
        received.let_go_at_end();
        Ok(Response::from_parts(head, received))
    }

    /// Goes on until there is what `look` looks for, or there is nothing to do.
    ///
    /// What a step brings is looked for right after it, so that nobody has to be woken for it; only when there is nothing
    /// the step is done again with the waker that waits for the socket. Woken by hyper's own channels, the task would be
    /// polled once more for nothing with each piece.
    fn work_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut unwoken = Context::from_waker(Waker::noop());
        self.step(&mut unwoken);
        let mut found = look(&mut unwoken);
        if found.is_pending() {
            self.step(cx);
            found = look(&mut unwoken);
        }
        found
    }

    fn step(&mut self, cx: &mut Context<'_>) {
        let ended = self.work.as_mut().is_some_and(|work| Pin::new(work).poll(cx).is_ready());
        if ended {
            self.work = None;
        }
    }

    /// Whether another request can be sent, now that the last one has been answered.
    fn is_reusable(&mut self) -> bool {
        self.step(&mut Context::from_waker(Waker::noop()));
        self.work.is_some() && self.sender.is_ready()
    }
}

/// The body of an answer.
pub(super) struct Received {
    body: Incoming,
    /// The connection it comes over, until its end; none if somebody else works that.
    over: Option<(Box<Connection>, Arc<Host>)>,
}

impl Received {
    fn let_go_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if let Some((mut connection, host)) = self.over.take()
            && connection.is_reusable()
        {
            host.keep(connection);
        }
    }
}

impl From<Incoming> for Received {
    fn from(body: Incoming) -> Received {
        Received { body, over: None }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Received { body, over } = &mut *self;
        let Some((connection, _)) = over else { return Pin::new(body).poll_frame(cx) };
        // Asked for first, since the connection reads no more than that.
        let mut polled = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
        if polled.is_pending() {
            polled = connection.work_for(cx, |unwoken| Pin::new(&mut *body).poll_frame(unwoken));
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.let_go_at_end(),
            Poll::Ready(_) => self.let_go(),
            Poll::Pending => {}
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
