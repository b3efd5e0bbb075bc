//! Streams that clients cut leave nothing behind, and count as far as they went.

use std::collections::HashMap;
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;

use crate::support::{Behaviour, Server, Setup, Upstream, client::chat_body, eventually};

/// Streams cut by the client in [`streams_cut_at_random_points_leave_no_lease_and_count_what_was_seen`].
const STREAMS: u64 = 1_000;

/// Streams open at once.
const AT_ONCE: u64 = 50;

/// Events of a whole stream; the client leaves before the last.
const EVENTS: u64 = 40;

/// Tokens of an event, which has six bytes of text, where nobody reports them.
const TOKENS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn streams_cut_at_random_points_leave_no_lease_and_count_what_was_seen() {
    let pause = Duration::from_millis(2);
    let upstream = Upstream::start(Behaviour::Slow { input: 10, output: EVENTS, pause }).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("cutter", &["--rpm", "1000000", "--tpm", "100000000"]));
    // Frames that were read, by the request's id.
    let mut read: HashMap<String, u64> = HashMap::new();
    for batch in 0..STREAMS / AT_ONCE {
        let cuts: Vec<_> = (0..AT_ONCE)
            .map(|place| {
                let client = client.clone();
                // Spread over the whole stream and repeatable: no two runs differ in where they cut.
                let frames = (batch * AT_ONCE + place) * 7 % EVENTS;
                tokio::spawn(async move {
                    let answer = client.chat_stream("gpt-test").await;
                    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
                    let mut body = answer.into_body();
                    for _ in 0..frames {
                        body.frame().await.unwrap().unwrap();
                    }
                    (id, frames)
                })
            })
            .collect();
        for cut in cuts {
            let (id, frames) = cut.await.unwrap();
            read.insert(id, frames);
        }
    }
    eventually("every lease is settled", || async {
        (server.metric("tollgate_leases_open").await == 0.0).then_some(())
    })
    .await;
    logged(&server, STREAMS).await;
    let aborted = server.count("SELECT count(*) FROM request_logs WHERE status_code = 499");
    assert!(aborted > STREAMS / 2, "only {aborted} of {STREAMS} were seen as cut");
    let unseen = server.count("SELECT count(*) FROM request_logs WHERE input_tokens = 0");
    assert_eq!(unseen, 0, "the prompt of a cut stream is counted");
    let rows = server.sql("SELECT id, output_tokens FROM request_logs WHERE status_code = 499");
    let mut beyond = 0;
    for row in &rows {
        let (frames, counted): (u64, u64) = (read[&row[0]], row[1].parse().unwrap());
        assert!(counted >= TOKENS * frames, "{frames} events were read, and {counted} tokens counted");
        beyond += counted - TOKENS * frames;
    }
    // What was under way to a client that had left counts too. Counted whole, it would be half of all.
    let most = rows.len() as u64 * TOKENS * EVENTS / 4;
    assert!(beyond < most, "{beyond} tokens are counted that nobody read, of {most} at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_as_the_upstream_sent_it() {
    let upstream = Upstream::start(Behaviour::Answer { input: 10, output: 5 }).await;
    let server = Setup::with(&upstream).start();
    let key = server.key("reader", &[]);
    let through =
        server.client(&key).chat_stream("gpt-test").await.into_body().collect().await.unwrap().to_bytes();
    let direct = crate::support::Client::new(upstream.url(), "upstream-main");
    let direct = direct.chat_stream("gpt-test").await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&through), String::from_utf8_lossy(&direct));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_that_the_gateway_alone_asked_for_is_counted_and_the_client_does_not_see_it() {
    // The text of an event would be counted as two tokens.
    let upstream = Upstream::start(Behaviour::Answer { input: 10, output: 5 }).await;
    let server = Setup::demo().start();
    let create = ["account", "create", "--name", "a", "--base-url", upstream.url(), "--no-api-key"];
    server.cli_ok(&[&create[..], &["--stream-usage"]].concat());
    let through = server.client(&server.key("reader", &[]));
    let direct = crate::support::Client::new(upstream.url(), "");
    let mut asking = chat_body("gpt-test", true);
    asking["stream_options"] = json!({ "include_usage": true });
    for (body, has_usage) in [(chat_body("gpt-test", true), false), (asking, true)] {
        let got = through.post("/v1/chat/completions", &body).await.text();
        assert_eq!(got, direct.post("/v1/chat/completions", &body).await.text());
        assert_eq!(got.contains("usage"), has_usage, "{got}");
    }
    server.cli_ok(&["account", "update", "a", "--clear", "stream-usage"]);
    through.post("/v1/chat/completions", &chat_body("gpt-test", true)).await;
    logged(&server, 3).await;
    let rows = server.sql("SELECT output_tokens, token_source FROM request_logs ORDER BY sequence");
    let rows: Vec<_> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    assert_eq!(rows, [("5", "reported"), ("5", "reported"), ("10", "counted")]);
}

/// Waits until `rows` requests are in the log.
async fn logged(server: &Server, rows: u64) {
    eventually("the log has every request", || async {
        (server.count("SELECT count(*) FROM request_logs") == rows).then_some(())
    })
    .await;
}
