//! An upstream spoken to in plain HTTP/1, and the connections to it that are kept between requests.

use std::{
    io,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Response, Uri,
    header::{HOST, PROXY_AUTHORIZATION},
};
use parking_lot::Mutex;

use super::{
    connection::{Connection, Received, Sent},
    dial::{Dial, DialError},
    forward_proxy::ForwardProxy,
    limits::{IDLE_CONNECTION_TIMEOUT, IDLE_CONNECTIONS},
};

/// What goes wrong before there is an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("no connection")]
    Connect(#[source] DialError),
    #[error("the connection failed")]
    Broken(#[source] hyper::Error),
}

/// An upstream, reached directly or through a proxy.
pub(super) struct Host {
    address: Uri,
    name: HeaderValue,
    dial: Dial,
    /// Some where requests go to a proxy, which takes them to the upstream.
    relay: Option<Relay>,
    /// The one used last is used next, so that those too many grow old.
    idle: Mutex<Vec<Idle>>,
}

/// What a proxy wants to see with a request.
struct Relay {
    authorization: Option<HeaderValue>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Host {
    /// The upstream at an address. Needs a tokio runtime, in which old connections are closed.
    pub(super) fn new(address: &Uri, proxy: Option<&ForwardProxy>, dial: Dial) -> io::Result<Arc<Host>> {
        let authority = address.authority().ok_or(io::ErrorKind::InvalidInput)?;
        let name = match address.port_u16() {
            Some(80) | None => authority.host(),
            Some(_) => authority.as_str(),
        };
        let name = HeaderValue::from_str(name).map_err(io::Error::other)?;
        let relay = proxy.filter(|proxy| proxy.relays());
        let relay = relay.map(|proxy| Relay { authorization: proxy.authorization() });
        let host = Arc::new(Host { address: address.clone(), name, dial, relay, idle: Mutex::default() });
        tokio::spawn(close_old(Arc::downgrade(&host)));
        Ok(host)
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(self: &Arc<Host>, mut request: Sent) -> Result<Response<Received>, SendError> {
        match (&self.relay, request.uri().path_and_query()) {
            // The proxy needs the whole address.
            (Some(relay), _) => {
                let authorization = relay.authorization.clone();
                request.headers_mut().extend(authorization.map(|value| (PROXY_AUTHORIZATION, value)));
            }
            (None, Some(path)) => *request.uri_mut() = Uri::from(path.clone()),
            (None, None) => {}
        }
        request.headers_mut().insert(HOST, self.name.clone());
        while let Some(connection) = self.idle() {
            request = match connection.send(request, self).await {
                Ok(answer) => return Ok(answer),
                // The upstream has closed the connection while it was not used.
                Err(mut error) => {
                    error.take_message().ok_or_else(|| SendError::Broken(error.into_error()))?
                }
            };
        }
        let stream = self.dial.connect(self.address.clone()).await.map_err(SendError::Connect)?;
        let connection = Connection::new(stream).await.map_err(SendError::Broken)?;
        connection.send(request, self).await.map_err(|error| SendError::Broken(error.into_error()))
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, connection: Box<Connection>) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    fn idle(&self) -> Option<Box<Connection>> {
        let idle = self.idle.lock().pop()?;
        (idle.since.elapsed() < IDLE_CONNECTION_TIMEOUT).then_some(idle.connection)
    }
}

/// How often old connections are looked for: so that none is kept for more than one and a half of its time.
const CLOSE_EVERY: Duration = Duration::from_millis(IDLE_CONNECTION_TIMEOUT.as_millis() as u64 / 2);

async fn close_old(host: Weak<Host>) {
    let mut ticks = tokio::time::interval(CLOSE_EVERY);
    loop {
        ticks.tick().await;
        let Some(host) = host.upgrade() else { return };
        let mut idle = host.idle.lock();
        // The oldest stand first.
        let old = idle.iter().take_while(|idle| idle.since.elapsed() >= IDLE_CONNECTION_TIMEOUT).count();
        let old: Vec<Idle> = idle.drain(..old).collect();
        drop(idle);
        drop(old);
    }
}
