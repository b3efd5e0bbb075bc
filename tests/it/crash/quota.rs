//! What limits lose by kill -9: what was admitted in the last moments, and no more.
//!
//! Quota's store acknowledges at once and promises to be on disk within 50 ms; a busy machine may take longer, which the server
//! tells. Hence the bound: a key may be over its limit by as many requests as were admitted in the last 50 ms before the
//! kill, or in twice the longest time that any commit of that server took, if that is more. Who admitted them is the
//! upstream's own account, which is not killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use serde_json::{Value, json};

use super::{LOAD_TASKS, Load, ingested, rounds};
use crate::support::{Client, Server, Setup};

/// Within which a write of quota is on disk.
const PROMISED: Duration = Duration::from_millis(50);

/// What each request uses, as the upstream tells it, and what is reserved for it: a prompt of ten bytes and 16 tokens.
const USED: u64 = 10;
const RESERVED: u64 = 20;

/// A limit, how many requests it lets through, and how many one that never ends takes of them.
const LIMITS: [(&str, &str, u64, u64); 3] =
    [("--rpm", "150", 150, 1), ("--rpd", "220", 220, 1), ("--tokens-total", "2000", 200, RESERVED / USED)];

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_lets_no_limit_be_passed_by_more_than_was_admitted_in_the_last_moments() {
    let upstream = Upstream::start().await;
    let account = format!("[[account]]\nname = \"main\"\nbase_url = \"{}\"\napi_key = \"k\"", upstream.url);
    let mut server = Setup::demo().config(&account).start();
    for round in 0..rounds() {
        let model = |limit: &str| format!("{round}{limit}");
        let key = |(limit, most, ..): &(&str, &str, u64, u64)| {
            (server.key(&model(limit), &[limit, most]), model(limit))
        };
        let keys: Vec<(String, String)> = LIMITS.iter().map(key).collect();
        let clients = |server: &Server| -> Vec<(Client, String)> {
            keys.iter().map(|(key, model)| (server.client(key), model.clone())).collect()
        };
        let load = Load::start(&clients(&server));
        // Other places of the work each round, before any limit is reached.
        tokio::time::sleep(Duration::from_millis(300 + round * 37 % 400)).await;
        let lag = server.metric("tollgate_store_commit_lag_microseconds_max").await;
        let late = PROMISED.max(2 * Duration::from_micros(lag as u64));
        let killed = Instant::now();
        server.crash();
        load.stop().await;
        server.crash_and_restart();
        let restarted = Instant::now();
        for (client, model) in clients(&server) {
            use_up(&client, &model).await;
        }
        ingested(&server).await;
        for ((limit, _, most, of_unended), (_, model)) in LIMITS.iter().zip(&keys) {
            let seen = upstream.seen(model);
            let total = seen.len() as u64;
            let last = seen.iter().filter(|at| **at + late >= killed && **at < restarted).count() as u64;
            let told =
                format!("round {round}, {limit}: {total} admitted, {last} of them in the last {late:?}");
            println!("{told}");
            assert!(total <= most + last, "{told}");
            // What was under way has not come to its end, and may count all the same.
            assert!(total + (LOAD_TASKS as u64 + 1) * of_unended >= *most, "{told}");
            let logged = server.count(&format!(
                "SELECT count(*) FROM request_logs WHERE status_code = 200 AND model = '{model}'"
            ));
            assert!(logged <= total && logged + last + LOAD_TASKS as u64 >= total, "{told}, {logged} logged");
        }
    }
}

/// Asks until the key is refused.
async fn use_up(client: &Client, model: &str) {
    loop {
        match client.chat(model).await.status.as_u16() {
            200 => {}
            429 => return,
            other => panic!("neither admitted nor over the limit: {other}"),
        }
    }
}

/// Answers everything, and knows when it was asked for each model.
struct Upstream {
    url: String,
    seen: Arc<Mutex<HashMap<String, Vec<Instant>>>>,
}

impl Upstream {
    async fn start() -> Upstream {
        let seen: Arc<Mutex<HashMap<String, Vec<Instant>>>> = Arc::default();
        let noted = seen.clone();
        let answer = move |Json(request): Json<Value>| {
            let model = request["model"].as_str().unwrap().to_owned();
            noted.lock().unwrap().entry(model).or_default().push(Instant::now());
            async {
                Json(json!({ "choices": [], "usage": { "prompt_tokens": 4, "completion_tokens": USED - 4 } }))
            }
        };
        let router = axum::Router::new().route("/v1/chat/completions", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Upstream { url, seen }
    }

    fn seen(&self, model: &str) -> Vec<Instant> {
        self.seen.lock().unwrap().get(model).cloned().unwrap_or_default()
    }
}
