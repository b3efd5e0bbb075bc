//! Opens connections to upstreams, through their proxies.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::net::TcpStream;
use tower::{Service, ServiceExt as _};

use super::forward_proxy::ForwardProxy;

/// Why there is no connection, with all its causes in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DialError(String);

impl DialError {
    pub(super) fn new(text: impl Into<String>) -> DialError {
        DialError(text.into())
    }
}

/// Opens a connection to the host of an address.
#[derive(Clone)]
pub(super) struct Dial {
    connector: HttpConnector,
    proxy: Option<ForwardProxy>,
    connect_ms: Arc<AtomicU64>,
}

impl Dial {
    /// `connect_ms` is the time for a whole connection, in milliseconds.
    pub(super) fn new(proxy: Option<ForwardProxy>, connect_ms: Arc<AtomicU64>) -> Dial {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        Dial { connector, proxy, connect_ms }
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, target: Uri) -> Result<TokioIo<TcpStream>, DialError> {
        let timeout = Duration::from_millis(self.connect_ms.load(Ordering::Relaxed));
        let mut connector = self.connector.clone();
        // Shares the time among the addresses of a name.
        connector.set_connect_timeout(Some(timeout));
        let connecting = async {
            match &self.proxy {
                None => connector.oneshot(target).await.map_err(|error| DialError(causes(&error))),
                Some(proxy) => proxy.connect(connector, target).await,
            }
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(DialError(format!("no connection within {} s", timeout.as_secs_f32()))),
        }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, DialError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect(target).await })
    }
}

/// An error and what caused it, in one line.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
