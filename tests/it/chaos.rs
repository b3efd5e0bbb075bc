//! An upstream that does everything wrong leaves nothing behind: no slot, place, lease, connection, thread or memory, and one
//! row for each request.
//!
//! `TOLLGATE_CHAOS_REQUESTS` sets another number of requests, `TOLLGATE_CHAOS_SEED` the seed.

mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use self::upstream::Wild;
use crate::support::{Client, Server, Setup, client::chat_body, eventually};

/// Requests of the default run; the long one has 100,000.
const REQUESTS: u64 = 2_000;

/// Clients that send at once: more than the accounts have places.
const CLIENTS: u64 = 32;

/// Accounts, each with so many places.
const ACCOUNTS: u64 = 3;
const PLACES: u64 = 8;

/// Requests after which memory has what it needs.
const WARM_UP: u64 = 500;

/// What memory may grow between the half and the end: the buffers of the clients that happen to be at work, in KiB.
const GROWTH_KIB: u64 = 32 << 10;

/// The blacklist would spare the upstream most of what it does wrong; the page cache is full by the half.
const CONFIG: &str = "[gateway]\nfirst_byte_timeout_ms = 400\nanswer_timeout_ms = 400\nidle_timeout_ms = 400\nstall_timeout_ms = 400
[storage]\npage_cache_bytes = 4194304\nkv_cache_bytes = 1048576\n[[plugin]]\nname = \"blacklist\"\nenabled = false\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_everything_wrong_leaves_nothing_behind() {
    let set = |name: &str| std::env::var(name).ok().map(|value| value.parse().unwrap());
    let requests = set("TOLLGATE_CHAOS_REQUESTS").unwrap_or(REQUESTS);
    let seed = set("TOLLGATE_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("TOLLGATE_CHAOS_SEED={seed}");
    let wild = Wild::start(seed).await;
    let mut config = CONFIG.to_owned();
    for number in 0..ACCOUNTS {
        config += &format!(
            "[[account]]\nname = \"a{number}\"\nbase_url = \"{}\"\napi_key = \"k{number}\"\nconcurrency = {PLACES}\nrpm = 1000000000\n",
            wild.url
        );
    }
    let server = Setup::demo().config(&config).start();
    let key = server
        .key("user", &["--rpm", "1000000000", "--tpm", "1000000000000", "--tokens-total", "1000000000000"]);
    let mut answers = BTreeMap::new();
    send(&server, &key, WARM_UP, &mut answers).await;
    let idle = at_rest(&server, &wild, u64::MAX).await;
    send(&server, &key, requests / 2, &mut answers).await;
    let half = at_rest(&server, &wild, idle.handles).await;
    send(&server, &key, requests / 2, &mut answers).await;
    let end = at_rest(&server, &wild, idle.handles).await;
    println!("{answers:?}\n{idle:?}\n{half:?}\n{end:?}");

    assert!(end.threads <= half.threads, "{half:?} {end:?}");
    assert!(end.resident_kib <= half.resident_kib + GROWTH_KIB, "{half:?} {end:?}");
    every_place_is_free(&server, &wild, &key).await;
    let sent = WARM_UP + requests / 2 * 2 + ACCOUNTS * PLACES;
    eventually("every request is logged", || async {
        (server.count("SELECT count(*) FROM request_logs") >= sent).then_some(())
    })
    .await;
    assert_eq!(server.count("SELECT count(*) FROM request_logs"), sent, "one row a request");
    assert_eq!(server.count("SELECT sum(total_requests) FROM system_stats"), sent);
    let to_accounts = "SELECT (SELECT count(*) FROM request_logs WHERE api_key_hash <> '')
        + (SELECT count(*) FROM error_logs WHERE attempt > 0)";
    let counted = server.count("SELECT sum(total_requests) FROM api_key_metrics");
    assert_eq!(counted, server.count(to_accounts), "every attempt counts for its account");
    assert!(answers[&200] > requests / 4, "{answers:?}");
    assert!(!answers.contains_key(&101), "nobody asked for another protocol: {answers:?}");
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Sends requests from many clients at once, some of which leave when an answer begins; how many had which status.
async fn send(server: &Server, key: &str, requests: u64, answers: &mut BTreeMap<u16, u64>) {
    let next = Arc::new(AtomicU64::new(0));
    let client = server.client(key);
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (next, client) = (next.clone(), client.clone());
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= requests {
                        return statuses;
                    }
                    let response = begin(&client, number % 3 != 0).await;
                    statuses.push(response.status().as_u16());
                    if number % 10 != 0 {
                        // It may break off.
                        let _ = response.into_body().collect().await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        for status in task.await.unwrap() {
            *answers.entry(status).or_default() += 1;
        }
    }
}

/// An answer that has begun: whatever the upstream does, there is one.
async fn begin(client: &Client, stream: bool) -> http::Response<Incoming> {
    let body = chat_body("m", stream).to_string();
    client.send(Method::POST, "/v1/chat/completions", Bytes::from(body)).await
}

/// What a server holds while nobody asks for anything.
#[derive(Debug)]
struct Held {
    /// Beside its connections to the upstream.
    handles: u64,
    threads: u64,
    resident_kib: u64,
}

/// Waits until nothing is under way, only such connections to the upstream are open as are kept for the next request, and
/// there are no more other handles than so many.
async fn at_rest(server: &Server, wild: &Wild, most: u64) -> Held {
    for metric in ["tollgate_requests_in_flight", "tollgate_leases_open", "tollgate_queue_requests"] {
        eventually(metric, || async { (server.metric(metric).await == 0.0).then_some(()) }).await;
    }
    eventually("no more connections than there are places", || async {
        (wild.open() <= ACCOUNTS * PLACES).then_some(())
    })
    .await;
    let mut last = 0;
    let mut handles = || {
        let handles = server.handles() as u64 - wild.open();
        (std::mem::replace(&mut last, handles) == handles && handles <= most).then_some(handles)
    };
    let handles = eventually("the connections of clients are closed", || std::future::ready(handles())).await;
    Held { handles, threads: server.threads(), resident_kib: server.resident_kib() }
}

/// As many requests are answered at once as the accounts have places.
async fn every_place_is_free(server: &Server, wild: &Wild, key: &str) {
    wild.hold();
    let client = server.client(key);
    let tasks: Vec<_> = (0..ACCOUNTS * PLACES)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { begin(&client, true).await.into_body().collect().await.unwrap() })
        })
        .collect();
    eventually("every place is free", || async { (wild.held() == ACCOUNTS * PLACES).then_some(()) }).await;
    wild.let_go();
    for task in tasks {
        task.await.unwrap();
    }
}
