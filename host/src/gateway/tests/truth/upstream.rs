//! The upstream of all accounts: does what the load's plans say, and keeps an account of its own.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

use super::{
    house::{Moment, Time},
    load::{Act, Asked, Plan, plan},
};
use crate::gateway::tests::support::json_response;

/// What the upstream saw of a request, once.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) account: String,
    pub(super) at: Moment,
    pub(super) plan: Plan,
}

impl Attempt {
    /// Whether another account is tried, or nothing.
    pub(super) fn fails(&self) -> bool {
        match self.plan.act {
            Act::Refuse(status, _) => status != 400,
            act => matches!(act, Act::Break | Act::Silence),
        }
    }
}

#[derive(Clone)]
pub(super) struct Upstream {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    time: Arc<Time>,
    /// From then on every request is answered at once and well.
    well: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was asked, by the id of the request.
    asked: BTreeMap<u64, Asked>,
    attempts: BTreeMap<u64, Vec<Attempt>>,
    /// Answers that stop until the test goes on.
    holding: BTreeMap<u64, oneshot::Sender<()>>,
    /// Those that never will: dropped, they would go on.
    forgotten: Vec<oneshot::Sender<()>>,
}

impl Upstream {
    pub(super) async fn start(seed: u64, time: Arc<Time>) -> Upstream {
        let shared = Arc::new(Shared { seed, time, well: AtomicBool::new(false), state: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let own = shared.clone();
        let router = Router::new().fallback(move |request: Request<Body>| answer(own.clone(), request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Upstream { url, shared }
    }

    /// Tells of a request that is about to be sent.
    pub(super) fn expect(&self, id: u64, asked: Asked) {
        self.shared.state.lock().unwrap().asked.insert(id, asked);
    }

    /// The requests whose answers stop.
    pub(super) fn holding(&self) -> Vec<u64> {
        self.shared.state.lock().unwrap().holding.keys().copied().collect()
    }

    /// Whether the answer of a request stops.
    pub(super) fn is_holding(&self, id: u64) -> bool {
        self.shared.state.lock().unwrap().holding.contains_key(&id)
    }

    /// Lets an answer go on.
    pub(super) fn go_on(&self, id: u64) {
        if let Some(held) = self.shared.state.lock().unwrap().holding.remove(&id) {
            let _ = held.send(());
        }
    }

    /// Leaves an answer as it stands, since its client has left.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.shared.state.lock().unwrap();
        let held = state.holding.remove(&id);
        state.forgotten.extend(held);
    }

    /// Behaves from now on.
    pub(super) fn get_well(&self) {
        self.shared.well.store(true, Ordering::SeqCst);
    }

    /// Every attempt of a request, in order.
    pub(super) fn attempts(&self, id: u64) -> Vec<Attempt> {
        self.shared.state.lock().unwrap().attempts.get(&id).cloned().unwrap_or_default()
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let account = head.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    let id: u64 = body["user"].as_str().unwrap().parse().unwrap();
    let (plan, stream, held) = {
        let mut state = shared.state.lock().unwrap();
        let asked = state.asked[&id].clone();
        let attempts = state.attempts.entry(id).or_default();
        let mut plan = plan(shared.seed, id, attempts.len(), &asked);
        if shared.well.load(Ordering::SeqCst) {
            plan = Plan { act: Act::Answer, holds: false, ..plan };
        }
        attempts.push(Attempt { account, at: shared.time.moment(), plan: plan.clone() });
        let held = plan.holds.then(|| {
            let (go, held) = oneshot::channel();
            state.holding.insert(id, go);
            held
        });
        (plan, asked.stream, held)
    };
    match plan.act {
        Act::Refuse(status, seconds) => refused(status, seconds),
        Act::Break => broken(),
        Act::Silence => std::future::pending().await,
        _ if stream => streamed(&plan, held),
        _ => {
            if let Some(held) = held {
                let _ = held.await;
            }
            json_response(200, &json!({ "choices": [], "usage": usage(&plan) }).to_string())
        }
    }
}

fn usage(plan: &Plan) -> Value {
    json!({ "prompt_tokens": plan.input, "completion_tokens": plan.output })
}

fn refused(status: u16, seconds: Option<u64>) -> Response {
    let mut response = json_response(status, r#"{"error":{"message":"told to refuse"}}"#);
    if let Some(seconds) = seconds {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

/// A body that fails before its first byte has the connection closed without an answer.
fn broken() -> Response {
    let frames = stream::once(async { Err::<Bytes, _>(io::Error::other("told to break")) });
    Response::builder().header("content-length", "10").body(Body::from_stream(frames)).unwrap()
}

/// A stream of two pieces, between which it may stop.
fn streamed(plan: &Plan, held: Option<oneshot::Receiver<()>>) -> Response {
    let event = |tokens: u64| {
        // A token is taken for three bytes.
        let text = "abc".repeat(tokens as usize);
        format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }))
    };
    let begun = plan.output.min(4);
    let rest = match plan.act {
        Act::BreakOff => Err(io::Error::other("told to break off")),
        Act::Fail => Ok("data: {\"error\":{\"message\":\"told to fail\"}}\n\n".to_owned()),
        Act::Unreported => Ok(format!("{}data: [DONE]\n\n", event(plan.output - begun))),
        _ => Ok(format!("data: {}\n\ndata: [DONE]\n\n", json!({ "choices": [], "usage": usage(plan) }))),
    };
    let first = stream::iter([Ok(Bytes::from(event(begun)))]);
    let then = stream::once(async move {
        match held {
            Some(held) => drop(held.await),
            // Lets the server send what came before.
            None => tokio::task::yield_now().await,
        }
        rest.map(Bytes::from)
    });
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(Body::from_stream(first.chain(then))).unwrap()
}
