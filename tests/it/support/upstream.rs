//! An upstream in this process that speaks OpenAI's dialect, counts what it sees and does as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

/// What a chat request is answered with.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// One answer that used `input` and `output` tokens; streams send one event per output token.
    Answer { input: u64, output: u64 },
    /// As `Answer`, with a pause before each event of a stream (or before the whole answer).
    Slow { input: u64, output: u64, pause: Duration },
    /// An error with a status, and a retry-after in seconds.
    Refuse { status: u16, retry_after: Option<u64> },
    /// An error with its own headers and body.
    Say { status: u16, headers: Vec<(&'static str, String)>, body: Value },
    /// The connection breaks before an answer.
    Break,
    /// A stream breaks after so many events.
    BreakOff { events: u64 },
}

/// The upstream; stops with the test's runtime.
#[derive(Clone)]
pub struct Upstream {
    url: String,
    router: axum::Router,
    shared: Arc<Shared>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    by_key: Mutex<HashMap<String, Behaviour>>,
    seen: AtomicU64,
    seen_by_key: Mutex<HashMap<String, u64>>,
    /// Of the last request with each key.
    headers_by_key: Mutex<HashMap<String, HeaderMap>>,
    at_once: Mutex<HashMap<String, AtOnce>>,
}

/// Requests of one key that are being answered, and the most there have been.
#[derive(Default)]
struct AtOnce {
    now: u64,
    most: u64,
}

impl Upstream {
    /// Starts on a free port.
    pub async fn start(behaviour: Behaviour) -> Upstream {
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            by_key: Mutex::default(),
            seen: AtomicU64::new(0),
            seen_by_key: Mutex::default(),
            headers_by_key: Mutex::default(),
            at_once: Mutex::default(),
        });
        let router = axum::Router::new()
            .route("/v1/chat/completions", axum::routing::post(chat))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = router.clone();
        tokio::spawn(async move { axum::serve(listener, served).await });
        Upstream { url, router, shared }
    }

    /// `http://IP:PORT`, without `/v1`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it serves, to be served elsewhere too.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// Answers differently from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Answers one account's key differently from now on.
    pub fn behave_for(&self, account: &str, behaviour: Behaviour) {
        self.shared.by_key.lock().unwrap().insert(format!("Bearer upstream-{account}"), behaviour);
    }

    /// Chat requests seen so far.
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// Chat requests seen so far with one account's key.
    pub fn seen_from(&self, account: &str) -> u64 {
        let seen = self.shared.seen_by_key.lock().unwrap();
        seen.get(&format!("Bearer upstream-{account}")).copied().unwrap_or(0)
    }

    /// A header of the last chat request with one account's key.
    pub fn header_from(&self, account: &str, name: &str) -> Option<String> {
        let headers = self.shared.headers_by_key.lock().unwrap();
        let value = headers.get(&format!("Bearer upstream-{account}"))?.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    }

    /// The most chat requests with one account's key whose answers were being made at once.
    pub fn most_at_once_from(&self, account: &str) -> u64 {
        let at_once = self.shared.at_once.lock().unwrap();
        at_once.get(&format!("Bearer upstream-{account}")).map_or(0, |at_once| at_once.most)
    }
}

async fn chat(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let key =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    shared.seen.fetch_add(1, Ordering::SeqCst);
    *shared.seen_by_key.lock().unwrap().entry(key.clone()).or_default() += 1;
    shared.headers_by_key.lock().unwrap().insert(key.clone(), headers);
    let _running = Running::begin(shared.clone(), key.clone());
    let behaviour = shared.by_key.lock().unwrap().get(&key).cloned();
    let behaviour = behaviour.unwrap_or_else(|| shared.behaviour.lock().unwrap().clone());
    let Ok(request) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "no JSON").into_response();
    };
    match behaviour {
        Behaviour::Answer { input, output } => answer(&request, input, output, Duration::ZERO).await,
        Behaviour::Slow { input, output, pause } => answer(&request, input, output, pause).await,
        Behaviour::Refuse { status, retry_after } => refuse(status, retry_after),
        Behaviour::Say { status, headers, body } => say(status, &headers, body),
        Behaviour::Break => broken(),
        Behaviour::BreakOff { events } => broken_off(events),
    }
}

/// A request whose answer is being made.
struct Running {
    shared: Arc<Shared>,
    key: String,
}

impl Running {
    fn begin(shared: Arc<Shared>, key: String) -> Running {
        let mut at_once = shared.at_once.lock().unwrap();
        let of_key = at_once.entry(key.clone()).or_default();
        of_key.now += 1;
        of_key.most = of_key.most.max(of_key.now);
        drop(at_once);
        Running { shared, key }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.at_once.lock().unwrap().get_mut(&self.key).unwrap().now -= 1;
    }
}

async fn answer(request: &Value, input: u64, output: u64, pause: Duration) -> Response {
    let usage =
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    if request["stream"].as_bool() == Some(true) {
        let include_usage = request["stream_options"]["include_usage"].as_bool() == Some(true);
        return stream_of(request["model"].clone(), output, include_usage.then_some(usage), pause);
    }
    tokio::time::sleep(pause).await;
    let message = json!({ "role": "assistant", "content": "hello ".repeat(output as usize) });
    Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"],
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": usage,
    }))
    .into_response()
}

fn stream_of(model: Value, output: u64, usage: Option<Value>, pause: Duration) -> Response {
    let chunk = move |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice],
        });
        format!("data: {chunk}\n\n")
    };
    let mut events: Vec<String> =
        (0..output).map(|_| chunk(json!({ "content": "hello " }), Value::Null)).collect();
    events.push(chunk(json!({}), json!("stop")));
    if let Some(usage) = usage {
        let last = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [], "usage": usage,
        });
        events.push(format!("data: {last}\n\n"));
    }
    events.push("data: [DONE]\n\n".to_owned());
    let frames = stream::unfold(events.into_iter(), move |mut events| async move {
        let event = events.next()?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        Some((Ok::<_, Infallible>(Bytes::from(event)), events))
    });
    ([("content-type", "text/event-stream")], Body::from_stream(frames)).into_response()
}

fn refuse(status: u16, retry_after: Option<u64>) -> Response {
    let error = json!({ "error": { "message": "told to refuse", "type": "server_error", "code": null } });
    let headers: Vec<_> =
        retry_after.map(|seconds| ("retry-after", seconds.to_string())).into_iter().collect();
    say(status, &headers, error)
}

fn say(status: u16, headers: &[(&'static str, String)], body: Value) -> Response {
    let mut response = (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn broken() -> Response {
    // A body that fails before its first byte makes the server close the connection without an answer.
    let frames = stream::once(async { Err::<Bytes, _>(std::io::Error::other("told to break")) });
    Response::builder().header("content-length", "10").body(Body::from_stream(frames)).unwrap()
}

fn broken_off(events: u64) -> Response {
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello \"}}]}\n\n";
    let frames = stream::iter(0..events).map(move |_| Ok(Bytes::from(event)));
    let frames = frames.chain(stream::once(async {
        // A server that is told of the break at once does not write what came before it.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("told to break"))
    }));
    ([("content-type", "text/event-stream")], Body::from_stream(frames)).into_response()
}
