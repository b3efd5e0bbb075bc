//! How upstreams are reached, and the connections that accounts of the same way share.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Uri, uri::Authority};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use super::{
    account::{Account, AccountError, AccountSpec},
    dial::Dial,
    forward_proxy::ForwardProxy,
    host::Host,
    limits::{IDLE_CONNECTION_TIMEOUT, IDLE_CONNECTIONS, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT},
    renamed::Sending,
};
use crate::tls;

/// A client with its pool of connections.
pub(super) type Pooled = Client<HttpsConnector<Dial>, Sending>;

/// What an account's connections depend on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// The upstream itself, in plain HTTP.
    plain: Option<Authority>,
    proxy: Option<ForwardProxy>,
    /// The certificates that it is trusted by, over TLS.
    ca: Option<Arc<str>>,
}

impl Way {
    pub(super) fn of(spec: &AccountSpec, base: &Uri) -> Way {
        let is_plain = base.scheme_str() == Some("http");
        Way {
            plain: base.authority().filter(|_| is_plain).cloned(),
            proxy: spec.proxy.clone(),
            ca: spec.ca.clone().filter(|_| !is_plain),
        }
    }
}

/// The connections of one way.
#[derive(Clone)]
pub(super) enum Route {
    /// To one upstream in plain HTTP.
    Plain(Arc<Host>),
    /// For all others, since over TLS an upstream may choose HTTP/2, where requests share a connection.
    Pooled(Arc<Pooled>),
}

/// What is the same for all accounts of a gateway.
pub(super) struct Shared {
    connect_ms: Arc<AtomicU64>,
    /// TLS with the system's roots, read at the first account that needs them; none: there are none.
    system: OnceCell<Option<ClientConfig>>,
}

impl Shared {
    pub(super) fn new(connect_timeout: Duration) -> Shared {
        let shared = Shared { connect_ms: Arc::default(), system: OnceCell::new() };
        shared.set_connect_timeout(connect_timeout);
        shared
    }

    pub(super) fn set_connect_timeout(&self, timeout: Duration) {
        let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.connect_ms.store(ms, Ordering::Relaxed);
    }
}

/// The routes there are, and how more are made.
pub(super) struct Routes {
    known: HashMap<Way, Route>,
    connect_ms: Arc<AtomicU64>,
    /// None: no account needs it, or the system has no roots.
    system: Option<ClientConfig>,
}

impl Routes {
    /// Those of the present accounts, and what the described ones need beyond.
    pub(super) async fn new(shared: &Shared, present: &[Arc<Account>], specs: &[AccountSpec]) -> Routes {
        let known = present.iter().map(|account| (account.way.clone(), account.route.clone())).collect();
        let is_needed = |spec: &AccountSpec| {
            spec.ca.is_none() && !spec.base_url.to_ascii_lowercase().starts_with("http://")
        };
        let system = match specs.iter().any(is_needed) {
            true => shared.system.get_or_init(system_tls).await.clone(),
            false => None,
        };
        Routes { known, connect_ms: shared.connect_ms.clone(), system }
    }

    /// The route of a way; `name` is the account that asks. Needs a tokio runtime.
    pub(super) fn route(&mut self, way: &Way, base: &Uri, name: &str) -> Result<Route, AccountError> {
        if let Some(route) = self.known.get(way) {
            return Ok(route.clone());
        }
        let dial = Dial::new(way.proxy.clone(), self.connect_ms.clone());
        let route = match &way.plain {
            Some(_) => {
                Route::Plain(Host::new(base, way.proxy.as_ref(), dial).map_err(|error| system(name, &error))?)
            }
            None => Route::Pooled(Arc::new(pooled(self.tls(way.ca.as_deref(), name)?, dial))),
        };
        self.known.insert(way.clone(), route.clone());
        Ok(route)
    }

    fn tls(&self, ca: Option<&str>, name: &str) -> Result<ClientConfig, AccountError> {
        let Some(ca) = ca else {
            return match &self.system {
                Some(config) => Ok(config.clone()),
                None => tls::trusting(RootCertStore::empty()).map_err(|error| system(name, &error)),
            };
        };
        let roots = tls::roots(ca).map_err(|reason| AccountError::Ca { name: name.to_owned(), reason })?;
        tls::trusting(roots).map_err(|error| system(name, &error))
    }
}

#[cfg(test)]
impl Default for Routes {
    fn default() -> Routes {
        Routes { known: HashMap::new(), connect_ms: Arc::new(AtomicU64::new(1_000)), system: None }
    }
}

fn system(name: &str, error: &io::Error) -> AccountError {
    AccountError::System { name: name.to_owned(), reason: error.to_string() }
}

fn pooled(tls: ClientConfig, dial: Dial) -> Pooled {
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_all_versions()
        .wrap_connector(dial);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        // A connection that was dropped in between without a word must not be used on.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
        .build(https)
}

/// TLS with the system's roots. Without any, https accounts fail, each with its own message.
async fn system_tls() -> Option<ClientConfig> {
    let read = tls::trusting_the_system().await;
    read.inspect_err(|error| {
        tracing::warn!(%error, "no root certificates: no https upstream will be trusted");
    })
    .ok()
}
