//! Requests that plugins send: to the hosts that their manifests grant, and nowhere else.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use futures_util::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;
use tower::Service;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::address::is_public;
use super::incoming::Incoming;
use crate::plugin::limits::{
    HTTP_CONNECT, HTTP_HEAD, HTTP_IDLE_CONNECTIONS, HTTP_KEPT_IDLE, HTTP_SENDS, HTTP_SILENCE,
};
use crate::plugin::manifest::Reach;
use crate::plugin::{Limit, Tally};

/// What sends the requests of one generation.
pub(crate) struct Sender {
    /// By `HOST` or `HOST:PORT`.
    hosts: BTreeMap<String, Reach>,
    tally: Arc<Tally>,
    /// Requests that may be under way at once.
    room: Arc<Semaphore>,
    clients: OnceCell<Clients>,
}

/// Apart, so that no connection which one may not open is there to be used.
struct Clients {
    public: Https,
    private: Https,
}

type Https = Client<HttpsConnector<HttpConnector<Names>>, WasiBody>;

impl Sender {
    pub(crate) fn new(hosts: BTreeMap<String, Reach>, tally: Arc<Tally>) -> Sender {
        let room = Arc::new(Semaphore::new(HTTP_SENDS));
        Sender { hosts, tally, room, clients: OnceCell::new() }
    }

    /// Sends a request; the answer holds its place until its body has been read or dropped.
    pub(super) async fn send(
        &self,
        mut request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        let reach = self.reach(request.uri())?;
        let place = self.room.clone().try_acquire_owned().map_err(|_| {
            self.tally.hit(Limit::Sends);
            Error::ConnectionLimitReached
        })?;
        let clients = self.clients.get_or_try_init(clients).await?;
        let client = if reach == Reach::Public { &clients.public } else { &clients.private };
        // It says itself how it speaks.
        *request.version_mut() = http::Version::HTTP_11;
        let wait = options.first_byte_timeout.unwrap_or(HTTP_HEAD).min(HTTP_HEAD);
        let response = timeout(wait, client.request(request)).await;
        let response = response.map_err(|_| Error::HttpResponseTimeout)?.map_err(told)?;
        let silence = options.between_bytes_timeout.unwrap_or(HTTP_SILENCE).min(HTTP_SILENCE);
        Ok(response.map(|body| Incoming::answer(body, silence, place).boxed_unsync()))
    }

    /// How far a request may go; the error is that it may not.
    fn reach(&self, uri: &Uri) -> Result<Reach, Error> {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let with_port = self.hosts.get(&format!("{host}:{port}"));
        let granted = with_port.or_else(|| self.hosts.get(&host).filter(|_| port == default));
        let Some(reach) = granted else {
            self.tally.hit(Limit::Grant);
            return Err(Error::HttpRequestDenied);
        };
        // An address is not looked up, so that nobody else would ask.
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if *reach == Reach::Public && address.is_ok_and(|address| !is_public(address)) {
            self.tally.hit(Limit::Grant);
            return Err(Error::DestinationIpProhibited);
        }
        Ok(*reach)
    }
}

/// What a client's error is to the guest.
fn told(error: hyper_util::client::legacy::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if error.is::<Prohibited>() {
            return Error::DestinationIpProhibited;
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // The cause of an error of this type is hidden behind what it holds.
            if io.get_ref().is_some_and(|inner| inner.is::<Prohibited>()) {
                return Error::DestinationIpProhibited;
            }
            if io.kind() == io::ErrorKind::TimedOut {
                return Error::ConnectionTimeout;
            }
        }
        cause = error.source();
    }
    tracing::debug!(?error, "a plugin's request failed");
    if error.is_connect() { Error::ConnectionRefused } else { Error::HttpProtocolError }
}

async fn clients() -> Result<Clients, Error> {
    // Reading the system's certificates waits for the disk.
    let made = tokio::task::spawn_blocking(|| {
        Ok::<Clients, io::Error>(Clients { public: client(Reach::Public)?, private: client(Reach::Private)? })
    });
    match made.await {
        Ok(Ok(clients)) => Ok(clients),
        Ok(Err(error)) => {
            tracing::warn!(%error, "plugins cannot send requests: the system's certificates cannot be read");
            Err(Error::ConfigurationError)
        }
        Err(_) => Err(Error::ConfigurationError),
    }
}

fn client(reach: Reach) -> io::Result<Https> {
    let mut connector = HttpConnector::new_with_resolver(Names { reach });
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(HTTP_CONNECT));
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(HTTP_IDLE_CONNECTIONS)
        .pool_idle_timeout(HTTP_KEPT_IDLE)
        .pool_timer(hyper_util::rt::TokioTimer::new())
        .build(https))
}

/// Looks names up, and for hosts of the internet leaves out every other address: whoever owns a name can let it mean this
/// machine.
#[derive(Clone)]
struct Names {
    reach: Reach,
}

#[derive(Debug, thiserror::Error)]
#[error("no address of it is public")]
struct Prohibited;

impl Service<Name> for Names {
    type Response = IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<IntoIter<SocketAddr>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.reach;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let may = |found: &SocketAddr| reach == Reach::Private || is_public(found.ip());
            let addresses: Vec<SocketAddr> = found.filter(may).collect();
            if addresses.is_empty() {
                return Err(io::Error::other(Prohibited));
            }
            Ok(addresses.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;

    use super::*;

    fn sender(hosts: &[(&str, Reach)]) -> Sender {
        let hosts = hosts.iter().map(|(host, reach)| ((*host).to_owned(), *reach));
        Sender::new(hosts.collect(), Arc::new(Tally::new("sender")))
    }

    async fn send(sender: &Sender, uri: &str) -> Error {
        let body = Empty::<Bytes>::new().map_err(Error::from).boxed_unsync();
        let request = Request::get(uri).body(body).unwrap();
        sender.send(request, RequestOptions::default()).await.map(drop).unwrap_err()
    }

    #[tokio::test]
    async fn only_granted_hosts_and_ports_are_asked_and_near_ones_only_by_name() {
        let public = sender(&[
            ("example.com", Reach::Public),
            ("localhost", Reach::Public),
            ("[::1]:9", Reach::Public),
        ]);
        for denied in [
            "http://example.org/",
            "http://example.com:8080/",
            "http://a.example.com/",
            "http://localhost:81/",
        ] {
            assert!(matches!(send(&public, denied).await, Error::HttpRequestDenied), "{denied}");
        }
        for near in ["http://localhost/", "http://LOCALHOST/", "http://me@localhost/", "http://[::1]:9/"] {
            let error = send(&public, near).await;
            assert!(matches!(error, Error::DestinationIpProhibited), "{near}: {error}");
        }
    }

    #[tokio::test]
    async fn so_many_requests_are_under_way_and_no_more() {
        let sender = sender(&[("127.0.0.1:9", Reach::Private)]);
        let places = sender.room.clone().try_acquire_many_owned(HTTP_SENDS as u32).unwrap();
        assert!(matches!(send(&sender, "http://127.0.0.1:9/").await, Error::ConnectionLimitReached));
        drop(places);
        assert!(!matches!(send(&sender, "http://127.0.0.1:9/").await, Error::ConnectionLimitReached));
    }
}
