//! A collector of traces in this process, which does as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prost::Message;
use tollgate::telemetry::otlp::{ExportRequest, ExportResponse, PartialSuccess, Span, Value};

use super::eventually;

/// What the next message is answered with; when nothing is said it is taken.
pub enum Answer {
    /// A status, with a retry-after in seconds.
    Refuse(u16, Option<u64>),
    /// So many of its spans are not taken.
    TakeWithout(i64),
}

/// The collector; stops with the test's runtime.
#[derive(Clone)]
pub struct Collector {
    router: axum::Router,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    messages: Mutex<Vec<(HeaderMap, Bytes)>>,
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<u64>,
}

impl Collector {
    pub fn new() -> Collector {
        let shared = Arc::<Shared>::default();
        let router = axum::Router::new()
            .route("/v1/traces", axum::routing::post(take))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(shared.clone());
        Collector { router, shared }
    }

    /// Serves on a free port; returns `http://IP:PORT`.
    pub async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// What it serves, to be served elsewhere.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// Says how the next message that has not been told about is answered.
    pub fn answer(&self, answer: Answer) {
        self.shared.answers.lock().unwrap().push_back(answer);
    }

    /// Messages that came, those that were not taken among them.
    pub fn asked(&self) -> u64 {
        *self.shared.asked.lock().unwrap()
    }

    /// The messages that were taken, with their headers.
    pub fn messages(&self) -> Vec<(HeaderMap, Bytes)> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// The spans that were taken.
    pub fn spans(&self) -> Vec<Span> {
        let messages = self.messages();
        let requests = messages.into_iter().map(|(_, body)| ExportRequest::decode(body).unwrap());
        let resources = requests.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits until so many traces have come whole, that is with the span that answered the client; all spans.
    pub async fn traces(&self, count: usize) -> Vec<Span> {
        eventually(&format!("{count} traces come"), async || {
            let spans = self.spans();
            let served = spans.iter().filter(|span| span.kind == 2).count();
            (served >= count).then_some(spans)
        })
        .await
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    *shared.asked.lock().unwrap() += 1;
    let answer = shared.answers.lock().unwrap().pop_front();
    if let Some(Answer::Refuse(status, retry_after)) = answer {
        let mut response = StatusCode::from_u16(status).unwrap().into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert("retry-after", seconds.into());
        }
        return response;
    }
    shared.messages.lock().unwrap().push((headers, body));
    let partial_success = match answer {
        Some(Answer::TakeWithout(rejected_spans)) => {
            // As long as it likes, and with a line that might be one of the log.
            let error_message = format!("told to\nforged{}", " very much so".repeat(1_000));
            Some(PartialSuccess { rejected_spans, error_message })
        }
        _ => None,
    };
    ([("content-type", "application/x-protobuf")], ExportResponse { partial_success }.encode_to_vec())
        .into_response()
}

/// An attribute of a span, as text.
pub fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::Real(real) => real.to_string(),
    })
}
