//! Sends spans to the collector, a message at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use metrics::Counter;
use prost::Message as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_util::sync::CancellationToken;

use super::limits::{
    ANSWER_BYTES, ATTEMPTS, BATCH_SPANS, CONNECT_TIMEOUT, FLUSH_TIMEOUT, PAUSE_FIRST, PAUSE_MOST,
    REASON_BYTES, SEND_EVERY, SEND_TIMEOUT,
};
use super::otlp::{
    ExportRequest, ExportResponse, KeyValue, PartialSuccess, Resource, ResourceSpans, Scope, ScopeSpans, Span,
};
use super::{Settings, Shared};
use crate::tls;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Sends what the buffer has.
pub(super) struct Exporter {
    shared: Arc<Shared>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    resource: Resource,
    sent: Counter,
    refused: Counter,
    unreachable: Counter,
    /// Spans that are being sent.
    sending: u64,
    /// Why the last message was not taken as it was; said once of each kind, and once when that is over.
    trouble: Option<Trouble>,
}

/// A kind of trouble with the collector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It gives no answer.
    Unreachable,
    /// It answers that it does not take a message.
    Refused(StatusCode),
    /// It takes a message without some of its spans.
    Partial,
}

/// Why a message was not taken.
struct Failure {
    trouble: Trouble,
    reason: String,
    /// Whether it may be taken later.
    again: bool,
    /// The pause that the collector asks for.
    pause: Option<Duration>,
}

/// Spans that nobody will see, by why.
pub(super) fn dropped(cause: &'static str) -> Counter {
    metrics::counter!("tollgate_spans_dropped_total", "cause" => cause)
}

impl Exporter {
    pub(super) async fn new(settings: &Settings, shared: Arc<Shared>) -> anyhow::Result<Exporter> {
        let uri: Uri = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'))
            .parse()
            .context("`endpoint` is no address")?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in &settings.headers {
            let name = HeaderName::try_from(name).context("`headers` has a name that is none")?;
            let mut value = HeaderValue::from_str(value.expose())
                .with_context(|| format!("the value of header {name} cannot be sent"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let tls = tls_for(&uri, settings.ca.as_deref()).await.context("`ca_file`")?;
        let instance = format!("{:016x}", fastrand::u64(..));
        Ok(Exporter {
            shared,
            client: client(tls),
            uri,
            headers,
            resource: Resource {
                attributes: vec![
                    KeyValue::text("service.name", settings.service_name.as_str()),
                    KeyValue::text("service.version", VERSION),
                    KeyValue::text("service.instance.id", instance),
                ],
            },
            sent: metrics::counter!("tollgate_spans_sent_total"),
            refused: dropped("refused"),
            unreachable: dropped("unreachable"),
            sending: 0,
            trouble: None,
        })
    }

    /// Sends until the server stops, and then, for a while, what is left.
    pub(super) async fn run(mut self, stopping: CancellationToken) {
        let late = async {
            stopping.cancelled().await;
            tokio::time::sleep(FLUSH_TIMEOUT).await;
        };
        tokio::select! {
            () = self.send_all(&stopping) => {}
            () = late => self.give_up(),
        }
    }

    async fn send_all(&mut self, stopping: &CancellationToken) {
        while !stopping.is_cancelled() {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.shared.buffer.enough() => {}
                () = tokio::time::sleep(SEND_EVERY) => {}
            }
            // What does not fill a message waits for more.
            while self.send_some(stopping).await == BATCH_SPANS {}
        }
        // What came while the last message was on its way.
        while self.send_some(stopping).await > 0 {}
    }

    /// Sends a message of what waits; how many spans it had.
    async fn send_some(&mut self, stopping: &CancellationToken) -> usize {
        let spans = self.shared.buffer.take();
        let count = spans.len();
        if count > 0 {
            self.sending = count as u64;
            self.send(spans, stopping).await;
            self.sending = 0;
        }
        count
    }

    /// Drops what the collector has not taken.
    fn give_up(&self) {
        let spans = self.sending + self.shared.buffer.clear();
        self.unreachable.increment(spans);
        tracing::warn!(spans, "the collector did not take the last spans in time; they are dropped");
    }

    /// Sends a message until it is taken, refused, or has been tried often enough; once when the server stops.
    async fn send(&mut self, spans: Vec<Span>, stopping: &CancellationToken) {
        let count = spans.len() as u64;
        let body = Bytes::from(self.message(spans).encode_to_vec());
        let mut pause = PAUSE_FIRST;
        for attempt in 1.. {
            let Failure { trouble, reason, again, pause: asked } = match self.post(body.clone()).await {
                Ok(not_taken) => return self.was_taken(count, not_taken),
                Err(failure) => failure,
            };
            self.note(trouble, &reason);
            if !again {
                return self.refused.increment(count);
            }
            if attempt >= ATTEMPTS || stopping.is_cancelled() {
                return self.unreachable.increment(count);
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = tokio::time::sleep(asked.unwrap_or(pause).min(PAUSE_MOST)) => {}
            }
            pause = pause.saturating_mul(2);
        }
    }

    fn message(&self, spans: Vec<Span>) -> ExportRequest {
        let scope = Scope { name: env!("CARGO_PKG_NAME").to_owned(), version: VERSION.to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        ExportRequest {
            resource_spans: vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }],
        }
    }

    /// What of the message was not taken.
    async fn post(&self, body: Bytes) -> Result<PartialSuccess, Failure> {
        let later =
            |reason: String| Failure { trouble: Trouble::Unreachable, reason, again: true, pause: None };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let answered = tokio::time::timeout(SEND_TIMEOUT, async {
            let (head, body) = self.client.request(request).await?.into_parts();
            // What cannot be read of an answer is as good as no body: the status tells whether spans were taken.
            let body = Limited::new(body, ANSWER_BYTES).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Ok::<_, hyper_util::client::legacy::Error>((head, body))
        });
        let (head, body) = match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(later(format!("{:#}", anyhow::Error::new(error)))),
            Err(_) => return Err(later(format!("no answer within {} s", SEND_TIMEOUT.as_secs()))),
        };
        if head.status.is_success() {
            return Ok(ExportResponse::decode(body).unwrap_or_default().partial_success.unwrap_or_default());
        }
        let seconds =
            head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Err(Failure {
            trouble: Trouble::Refused(head.status),
            reason: format!("it answered {}", head.status.as_u16()),
            again: is_passing(head.status),
            pause: seconds.map(Duration::from_secs),
        })
    }

    fn was_taken(&mut self, count: u64, not_taken: PartialSuccess) {
        let PartialSuccess { rejected_spans, error_message } = not_taken;
        let rejected = u64::try_from(rejected_spans).unwrap_or_default().min(count);
        self.sent.increment(count - rejected);
        self.refused.increment(rejected);
        if rejected > 0 {
            let said = error_message.get(..error_message.floor_char_boundary(REASON_BYTES));
            let said = said.unwrap_or_default();
            self.note(Trouble::Partial, &format!("it rejected {rejected} of {count} spans: {said}"));
        } else if self.trouble.take().is_some() {
            tracing::info!("the collector takes traces again");
        }
    }

    fn note(&mut self, trouble: Trouble, reason: &str) {
        if self.trouble.replace(trouble) == Some(trouble) {
            return;
        }
        // A field that is a text is logged with its control characters escaped: the collector may have written it.
        match trouble {
            Trouble::Partial => tracing::warn!(reason, "the collector does not take all spans"),
            Trouble::Unreachable | Trouble::Refused(_) => tracing::warn!(
                reason,
                "the collector does not take traces; they are dropped when there are too many"
            ),
        }
    }
}

/// The answers that the protocol says to try again after.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504)
}

async fn tls_for(uri: &Uri, ca: Option<&str>) -> anyhow::Result<ClientConfig> {
    Ok(match ca {
        _ if uri.scheme_str() == Some("http") => tls::trusting(RootCertStore::empty())?,
        Some(pem) => tls::trusting(tls::roots(pem).map_err(io::Error::other)?)?,
        None => tls::trusting_the_system().await?,
    })
}

fn client(tls: ClientConfig) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https)
}
