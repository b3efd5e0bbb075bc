//! The upstream and the bare proxy: hyper with nothing added.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-test","choices":[{"index":0,"message":{"role":"assistant","content":"The capital of France is Paris; about 2.1 million people live there."},"finish_reason":"stop"}],"usage":{"prompt_tokens":37,"completion_tokens":17,"total_tokens":54}}"#;

/// Answers every request with the same completion.
pub fn upstream() -> Result<()> {
    runtime()?.block_on(async {
        let listener = announce().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async {
                    request.into_body().collect().await.ok();
                    let answer = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(
                        answer.body(Full::new(Bytes::from_static(ANSWER.as_bytes()))).unwrap_or_default(),
                    )
                });
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    })
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
