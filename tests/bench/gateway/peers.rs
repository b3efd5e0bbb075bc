//! The upstream and the bare proxy: hyper with nothing added.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Either, Full};
use hyper::Request;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::answers;
use crate::options::Workload;

/// Answers every request with the same completion, plain or streamed as asked.
pub fn upstream() -> Result<()> {
    let events: Arc<[Bytes]> = answers::events().into_iter().map(Bytes::from).collect();
    runtime()?.block_on(async {
        let listener = announce().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let events = events.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request, events.clone()));
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    events: Arc<[Bytes]>,
) -> Result<Response<Either<Full<Bytes>, Events>>, Infallible> {
    let body = request.into_body().collect().await.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    let (kind, body) = match answers::asked(&body) {
        Workload::Json => {
            ("application/json", Either::Left(Full::new(Bytes::from_static(answers::plain().as_bytes()))))
        }
        Workload::Stream => ("text/event-stream", Either::Right(Events { events, next: 0, written: true })),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind));
    Ok(response)
}

/// A stream that lets every event be written before the next is there, as a model does.
struct Events {
    events: Arc<[Bytes]>,
    next: usize,
    written: bool,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.written {
            self.written = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let event = self.events.get(self.next).cloned();
        self.next += 1;
        self.written = false;
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

/// Passes every request on to the upstream named in `TOLLGATE_BENCH_TARGET`, bodies streamed both ways.
pub fn proxy() -> Result<()> {
    let target = std::env::var("TOLLGATE_BENCH_TARGET")?;
    runtime()?.block_on(async {
        let listener = announce().await?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (client, target) = (client.clone(), target.clone());
            tokio::spawn(async move {
                let service = service_fn(move |mut request: Request<Incoming>| {
                    let uri = format!("{target}{}", request.uri().path()).parse();
                    let client = client.clone();
                    async move {
                        *request.uri_mut() = uri?;
                        request.headers_mut().remove("host");
                        anyhow::Ok(client.request(request).await?)
                    }
                });
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

async fn announce() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    Ok(listener)
}
