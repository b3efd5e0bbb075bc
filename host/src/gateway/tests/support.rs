//! A gateway in this process, between a client and an upstream that does as it is told.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use tollgate_store::{Options, Queue, Store};

use crate::{
    gateway::{AccountSpec, Accounts, Dialect, Gateway, Parts, Settings, serve},
    keys::{Keys, NewKey},
    plugin::{Admissions, EventQueue, EventRecord, ingest::decode_record},
    secret::Secret,
    telemetry::Tracer,
};

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Received {
    /// The account's key that it came with.
    pub(super) fn key(&self) -> &str {
        self.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap()
    }
}

/// An upstream and what it has seen.
#[derive(Clone)]
pub(super) struct Upstream {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    /// Answers each request with what `answer` returns; without an answer it keeps the client waiting.
    pub(super) async fn start(
        answer: impl Fn(&Received) -> Option<Response> + Send + Sync + 'static,
    ) -> Upstream {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (seen.clone(), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request<Body>| {
            let (noted, answer) = (noted.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let received = Received { path: parts.uri.to_string(), headers: parts.headers, body };
                noted.lock().unwrap().push(received.clone());
                match answer(&received) {
                    Some(response) => response,
                    None => std::future::pending().await,
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Upstream { url, seen }
    }

    pub(super) fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    /// An account whose key is its name.
    pub(super) fn account(&self, name: &str) -> AccountSpec {
        AccountSpec {
            name: name.to_owned(),
            dialect: Dialect::OpenAi,
            base_url: self.url.clone(),
            api_key: Secret::new(name),
            models: vec!["m".to_owned()],
            ..AccountSpec::default()
        }
    }
}

/// Accounts named `first` and `second`, tried in this order.
pub(super) fn two(upstream: &Upstream) -> Vec<AccountSpec> {
    let second = AccountSpec { priority: 1, ..upstream.account("second") };
    vec![upstream.account("first"), second]
}

pub(super) fn json_response(status: u16, body: &str) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

/// Sent as an event, it breaks the stream.
pub(super) const BREAK: &str = "break";

/// A stream of events that is fed through the sender, and ends when that is dropped.
pub(super) fn fed_stream() -> (mpsc::Sender<&'static str>, Response) {
    let (sender, receiver) = mpsc::channel::<&'static str>(16);
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        let frame =
            if event == BREAK { Err(io::Error::other("told to break")) } else { Ok(Bytes::from(event)) };
        Some((frame, receiver))
    });
    let response = Response::builder().header("content-type", "text/event-stream");
    (sender, response.body(Body::from_stream(frames)).unwrap())
}

/// An upstream that gives one stream, and the way to feed it.
pub(super) async fn streaming_upstream() -> (Upstream, mpsc::Sender<&'static str>) {
    let (sender, response) = fed_stream();
    let response = Mutex::new(Some(response));
    (Upstream::start(move |_| response.lock().unwrap().take()).await, sender)
}

/// An answer as the client got it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }
}

/// A gateway without policies, with one key.
pub(super) struct World {
    pub(super) gateway: Gateway,
    pub(super) keys: Keys,
    pub(super) key: String,
    pub(super) url: String,
    pub(super) stop: CancellationToken,
    queue: Queue,
    client: Client<HttpConnector, Full<Bytes>>,
    _home: TempDir,
}

impl World {
    pub(super) async fn start(accounts: Vec<AccountSpec>) -> World {
        World::with(accounts, Settings::default()).await
    }

    pub(super) async fn with(accounts: Vec<AccountSpec>, settings: Settings) -> World {
        World::traced(accounts, settings, Tracer::default()).await
    }

    pub(super) async fn traced(accounts: Vec<AccountSpec>, settings: Settings, tracer: Tracer) -> World {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("store"), Options::default()).unwrap();
        let keys = Keys::open(store.database("gateway").unwrap(), b"a secret").await.unwrap();
        let key = keys.create(NewKey { name: "user".to_owned(), ..NewKey::default() }).await.unwrap();
        let queue = store.queue("events", 1 << 20).unwrap();
        let clock: tollgate_store::Clock = Arc::new(|| 1_000);
        let specs = accounts;
        let accounts = Accounts::new(settings.connect_timeout);
        accounts.serve(accounts.prepare(specs).await.unwrap());
        let gateway = Gateway::new(Parts {
            prices: crate::gateway::Prices::default(),
            keys: keys.clone(),
            accounts,
            admissions: Admissions::new(clock.clone()),
            mounts: crate::plugin::Mounts::default(),
            events: EventQueue::new(queue.clone()),
            settings,
            clock,
            tracer,
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, gateway.router(), stop.clone().cancelled_owned()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        World { gateway, keys, key, url, stop, queue, client, _home: home }
    }

    /// Sends with the world's key and returns when the head of the answer is there.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        self.send_as(&self.key, method, path, body).await
    }

    pub(super) async fn send_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {key}"))
            .header("user-agent", "a test")
            .body(Full::new(body.into()))
            .unwrap();
        self.request(request).await
    }

    pub(super) async fn request(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        self.client.request(request).await.unwrap()
    }

    pub(super) async fn chat(&self, body: &'static str) -> Answer {
        whole(self.send(Method::POST, "/v1/chat/completions", body).await).await
    }

    /// The first `count` requests in the log, which are waited for.
    pub(super) async fn events(&self, count: usize) -> Vec<EventRecord> {
        let read = async {
            let mut last = 0;
            loop {
                let events = self.queue.read(0, 1_000, 1 << 20).await.unwrap();
                if events.len() >= count {
                    return events;
                }
                last = events.last().map_or(last, |(sequence, _)| *sequence);
                self.queue.wait(last).await;
            }
        };
        let events =
            tokio::time::timeout(Duration::from_secs(20), read).await.expect("the events are recorded");
        assert_eq!(events.len(), count, "too many events");
        events.iter().map(|(_, bytes)| decode_record(bytes).unwrap()).collect()
    }

    /// The only request in the log.
    pub(super) async fn event(&self) -> EventRecord {
        self.events(1).await.remove(0)
    }
}

pub(super) async fn whole(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}
