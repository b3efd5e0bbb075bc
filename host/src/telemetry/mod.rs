//! Traces for an operator's collector, by OpenTelemetry's protocol over HTTP. What a request is nobody knows here.
//!
//! Spans go into a [`buffer`] that is bounded and that nobody waits for; [`export`] sends what is there.
//!
//! OpenTelemetry's SDK is not used: its batches are sent by a blocking client only, which would be a second one (reqwest), and
//! it tells what it dropped when it ends, where a metric is wanted. The messages are a page of `prost`.

mod buffer;
pub(crate) mod context;
mod export;
pub mod limits;
pub mod otlp;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::secret::Secret;
use buffer::Buffer;
use context::{Context, Parent};
use export::Exporter;
use otlp::Span;

/// What the server is called in traces when nobody says otherwise.
pub const SERVICE: &str = "tollgate";

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The collector's address; `/v1/traces` is put behind it.
    pub endpoint: String,
    /// Headers that it wants, such as its own key; [`check_header`] has passed them.
    pub headers: BTreeMap<String, Secret>,
    /// The certificates, as PEM, that it is trusted by; none: the system's.
    pub ca: Option<Arc<str>>,
    /// The part of the traces that begin here which is kept, 0 to 1; what a caller has begun is kept if the caller keeps it.
    pub sample_ratio: f64,
    /// What the server is called in them.
    pub service_name: String,
}

/// What is wrong with a header for the collector; the value is never told.
pub fn check_header(name: &str, value: &str) -> Result<(), &'static str> {
    let Ok(name) = HeaderName::try_from(name) else { return Err("is no name of a header") };
    if matches!(
        name.as_str(),
        "host" | "content-type" | "content-length" | "transfer-encoding" | "connection"
    ) {
        return Err("is set by the server itself");
    }
    match HeaderValue::from_str(value) {
        Ok(_) if !value.is_empty() => Ok(()),
        _ => Err("has a value that no header can carry"),
    }
}

/// Takes the spans of who makes them. A clone is the same; the default takes none.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Shared>>);

struct Shared {
    ratio: f64,
    buffer: Buffer,
}

impl Tracer {
    /// The trace of a request; none: there are no traces.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Context> {
        self.0.as_ref().map(|shared| Context::new(Parent::of(headers), shared.ratio))
    }

    /// Hands spans over that have ended: at once, whatever the collector does.
    pub(crate) fn take(&self, spans: Vec<Span>) {
        if let Some(shared) = &self.0 {
            shared.buffer.put(spans);
        }
    }
}

#[cfg(test)]
impl Tracer {
    /// One that keeps all that it takes.
    pub(crate) fn keeping() -> Tracer {
        Tracer(Some(Arc::new(Shared { ratio: 1.0, buffer: Buffer::new() })))
    }

    /// Takes out what it keeps, a message's worth at most.
    pub(crate) fn kept(&self) -> Vec<Span> {
        self.0.as_ref().map(|shared| shared.buffer.take()).unwrap_or_default()
    }
}

/// Traces, while the server runs.
pub struct Telemetry {
    tracer: Tracer,
    exporter: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Telemetry {
    /// Begins to send; without settings there are no traces. Needs the metrics recorder to be installed before.
    ///
    /// # Errors
    ///
    /// When the address is none, or the certificates cannot be read.
    pub async fn start(settings: Option<&Settings>) -> anyhow::Result<Self> {
        let Some(settings) = settings else { return Ok(Self { tracer: Tracer::default(), exporter: None }) };
        let shared = Arc::new(Shared { ratio: settings.sample_ratio, buffer: Buffer::new() });
        let exporter = Exporter::new(settings, shared.clone()).await.context("cannot set up [telemetry]")?;
        let stopping = CancellationToken::new();
        let task = tokio::spawn(exporter.run(stopping.clone()));
        Ok(Self { tracer: Tracer(Some(shared)), exporter: Some((task, stopping)) })
    }

    /// What takes the spans.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Sends what waits, for a while.
    pub async fn stop(self) {
        let Some((task, stopping)) = self.exporter else { return };
        stopping.cancel();
        if let Err(error) = task.await {
            tracing::error!(%error, "sending traces ended badly");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use axum::{Router, routing::post};
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use prost::Message as _;
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, oneshot};

    use super::limits::BATCH_SPANS;
    use super::otlp::ExportRequest;
    use super::*;

    /// A message's spans, and what holds its answer back.
    type Message = (usize, oneshot::Sender<()>);

    /// A collector that answers a message as soon as nobody holds that back any more.
    async fn collector() -> (Settings, mpsc::UnboundedReceiver<Message>) {
        let (came, messages) = mpsc::unbounded_channel();
        let take = move |body: Bytes| {
            let (came, (held, let_go)) = (came.clone(), oneshot::channel());
            async move {
                let sent = ExportRequest::decode(body).unwrap().resource_spans;
                came.send((sent[0].scope_spans[0].spans.len(), held)).unwrap();
                let _ = let_go.await;
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            headers: BTreeMap::new(),
            ca: None,
            sample_ratio: 1.0,
            service_name: SERVICE.to_owned(),
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (settings, messages)
    }

    #[tokio::test]
    async fn what_comes_while_a_message_is_on_its_way_is_sent_before_the_end() {
        let (settings, mut messages) = collector().await;
        let telemetry = Telemetry::start(Some(&settings)).await.unwrap();
        let tracer = telemetry.tracer();
        // The second message is not full, so that nothing would be sent right after it.
        tracer.take(vec![Span::default(); BATCH_SPANS + 1]);
        assert_eq!(messages.recv().await.unwrap().0, BATCH_SPANS);
        let (spans, held) = messages.recv().await.unwrap();
        assert_eq!(spans, 1);
        tracer.take(vec![Span::default(); 2]);
        let mut stopped = pin!(telemetry.stop());
        assert!(stopped.as_mut().now_or_never().is_none());
        drop(held);
        let (spans, held) = tokio::select! {
            message = messages.recv() => message.unwrap(),
            () = &mut stopped => panic!("it stops without the last spans"),
        };
        assert_eq!(spans, 2);
        drop(held);
        stopped.await;
    }

    #[test]
    fn headers_for_the_collector_are_ones_and_none_of_the_servers_own() {
        for (name, value) in [("authorization", "Bearer x"), ("X-Tenant", "a b")] {
            assert_eq!(check_header(name, value), Ok(()), "{name}");
        }
        for (name, value) in
            [("a b", "x"), ("", "x"), ("x", ""), ("x", "a\nb"), ("Host", "x"), ("content-type", "x")]
        {
            assert!(check_header(name, value).is_err(), "{name}: {value:?}");
        }
    }

    #[test]
    fn without_a_collector_nothing_begins() {
        assert!(Tracer::default().begin(&HeaderMap::new()).is_none());
    }
}
