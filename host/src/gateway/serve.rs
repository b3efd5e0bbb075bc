//! The public listener: HTTP/1 and HTTP/2 against clients that may be slow, rude or gone.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    limits::{CONNECTIONS, DRAIN_TIMEOUT, HEAD_BYTES, HEAD_TIMEOUT, HEADERS, STREAMS, WRITE_TIMEOUT},
    unread::Unread,
};

/// The other end of the connection, in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Pause after a failed accept, such as when file descriptors have run out: without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves a router until `shutdown` ends, then lets requests in flight finish for a while. Those that do not are cut:
/// when this returns, nothing runs any more.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve_and_drain(listener, router, shutdown, DRAIN_TIMEOUT).await;
}

pub(super) async fn serve_and_drain(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let tasks = Tasks::default();
    let server = Arc::new(builder(tasks.clone()));
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, router, watcher) = (server.clone(), router.clone(), graceful.watcher());
                tasks.execute(async move {
                    connection(&server, stream, Peer(peer), router, watcher).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running at the end of the drain time");
        tasks.cut().await;
    }
}

/// The tasks of connections, and of streams on them.
#[derive(Clone, Default)]
struct Tasks {
    all: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    /// Drops what runs, so that it is settled and recorded while somebody still takes it.
    async fn cut(self) {
        self.cut.cancel();
        self.all.close();
        self.all.wait().await;
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let cut = self.cut.clone();
        self.all.spawn(async move {
            cut.run_until_cancelled(future).await;
        });
    }
}

fn builder(tasks: Tasks) -> Builder<Tasks> {
    let mut builder = Builder::new(tasks);
    let mut http1 = builder.http1();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32);
    builder
}

async fn connection(
    server: &Builder<Tasks>,
    stream: TcpStream,
    peer: Peer,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Small events of a stream must not wait for each other; a socket that refuses is as good as gone.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let started = Arc::new(AtomicBool::new(false));
    let seen = started.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        seen.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        let (request, unread) = Unread::lend(request.map(Body::new));
        let answering = router.clone().oneshot(request);
        async {
            let mut answer = answering.await?;
            if let Some(unread) = unread {
                unread.discard(&mut answer).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let io = TokioIo::new(Guarded { stream, timer: None });
    let served = watcher.watch(server.serve_connection(io, service).into_owned());
    let mut served = pin!(served);
    // Until the protocol is known, no timer of hyper's runs.
    let first = tokio::select! {
        ended = &mut served => Some(ended),
        () = sleep(HEAD_TIMEOUT) => None,
    };
    let ended = match first {
        Some(ended) => ended,
        None if started.load(Ordering::Relaxed) => served.await,
        None => return,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %peer.0, "connection ended");
    }
}

/// A socket that fails when its peer takes nothing for too long.
struct Guarded {
    stream: TcpStream,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn guard<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.guard(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.guard(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
