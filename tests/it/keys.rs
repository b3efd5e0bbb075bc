//! What an operator gives a client with a key: budgets, limits over some models, and another secret in time.

use std::time::Duration;

use crate::support::client::Answer;
use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

const PRICES: &str = "[[price]]\nmodel = \"gpt-*\"\ninput = 1\noutput = 1\n";

/// Requests that use a thousand tokens, and cost a thousandth.
async fn priced() -> (Upstream, Server) {
    let upstream = Upstream::start(Behaviour::Answer { input: 900, output: 100 }).await;
    let server = Setup::with(&upstream).config(PRICES).start();
    (upstream, server)
}

/// A chat whose settlement has reached the policies.
async fn settled_chat(server: &Server, key: &str, model: &str) -> Answer {
    let answer = server.client(key).chat(model).await;
    eventually("all leases are settled", || async {
        (server.metric("tollgate_leases_open").await == 0.0).then_some(())
    })
    .await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_money_is_charged_by_what_was_used_and_keeps_its_usage_when_it_is_edited() {
    let (upstream, server) = priced().await;
    let key = server.key("thrifty", &["--cost-per-day", "0.0025", "--tokens-total", "100000"]);
    for _ in 0..3 {
        assert_eq!(settled_chat(&server, &key, "gpt-test").await.status, 200);
    }
    let denied = settled_chat(&server, &key, "gpt-test").await;
    assert_eq!(
        (denied.status.as_u16(), &denied.json()["error"]["code"]),
        (429, &"insufficient_quota".into())
    );
    let message = denied.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("0.003 of 0.0025 cost per day are used"), "{message}");
    let seconds: u64 = denied.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds <= 86_400, "it begins anew at midnight, not in {seconds} s");
    server.cli_ok(&["key", "update", "thrifty", "--cost-per-day", "0.0045"]);
    assert_eq!(settled_chat(&server, &key, "gpt-test").await.status, 200);
    assert_eq!(settled_chat(&server, &key, "gpt-test").await.status, 200);
    assert_eq!(settled_chat(&server, &key, "gpt-test").await.status, 429);
    server.cli_ok(&["key", "update", "thrifty", "--clear", "cost-per-day"]);
    assert_eq!(settled_chat(&server, &key, "gpt-test").await.status, 200);
    assert_eq!(upstream.seen(), 6);
    let shown: serde_json::Value = serde_json::from_str(&server.cli_ok(&["key", "show", "thrifty"])).unwrap();
    assert_eq!(shown["limits"], serde_json::json!({ "tokens_total": 100_000 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_price_is_not_free_for_whoever_has_a_budget_of_money() {
    let (upstream, server) = priced().await;
    let key = server.key("thrifty", &["--cost-total", "5"]);
    let denied = server.client(&key).chat("unpriced").await;
    assert_eq!(denied.status, 403);
    assert!(denied.text().contains("has no price"), "{}", denied.text());
    assert_eq!(server.client(&server.key("free", &[])).chat("unpriced").await.status, 200);
    assert_eq!(upstream.seen(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_over_some_models_leaves_the_others_alone() {
    let (_upstream, server) = priced().await;
    let key = server.key("some", &["--limit", "gpt-4*:rpm=2", "--limit", "gpt-4o:tpm=1"]);
    let client = server.client(&key);
    assert_eq!(client.chat("gpt-4").await.status, 200);
    assert_eq!(client.chat("gpt-4-turbo").await.status, 200);
    let denied = client.chat("gpt-4.1").await;
    assert_eq!(denied.status, 429);
    assert!(denied.text().contains("2 of 2 requests per minute are used (of gpt-4*)"), "{}", denied.text());
    assert_eq!(client.chat("gpt-3").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_are_limited_and_a_place_comes_back_with_its_stream() {
    let pause = Duration::from_millis(20);
    let upstream = Upstream::start(Behaviour::Slow { input: 5, output: 5_000, pause }).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("two", &["--concurrency", "2"]));
    let (first, second) = (client.chat_stream("m").await, client.chat_stream("m").await);
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let denied = client.chat_stream("m").await;
    assert_eq!(denied.status(), 429);
    drop(first);
    let again = eventually("a place is free", || async {
        let answer = client.chat_stream("m").await;
        (answer.status() == 200).then_some(answer)
    })
    .await;
    assert_eq!(client.chat_stream("m").await.status(), 429);
    drop((second, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_under_load_without_a_refusal_and_its_limits_and_history_stay() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::with(&upstream).start();
    let first = server.key("rolling", &["--rpd", "40"]);
    let load = |key: &str| {
        let client = server.client(key);
        tokio::spawn(async move {
            for _ in 0..15 {
                assert_eq!(client.chat("m").await.status, 200, "refused during the rotation");
            }
        })
    };
    let before = load(&first);
    let second = server.cli_ok(&["key", "rotate", "rolling"]);
    let after = load(&second);
    before.await.unwrap();
    after.await.unwrap();
    for key in [&first, &second].into_iter().cycle().take(10) {
        assert_eq!(server.client(key).chat("m").await.status, 200);
    }
    assert_eq!(server.client(&second).chat("m").await.status, 429, "both count against one limit");
    let third = server.cli_ok(&["key", "rotate", "rolling", "--overlap", "0s"]);
    assert_eq!(server.client(&first).chat("m").await.status, 401);
    assert_eq!(server.client(&second).chat("m").await.status, 401);
    assert_eq!(server.client(&third).chat("m").await.status, 429);
    eventually("all is in the log, under one id", || async {
        let query = "SELECT count(*), count(DISTINCT client_key_hash) FROM request_logs WHERE client_name = 'rolling'";
        (server.sql(query) == [["42", "1"]]).then_some(())
    })
    .await;
    let shown: serde_json::Value = serde_json::from_str(&server.cli_ok(&["key", "show", "rolling"])).unwrap();
    assert_eq!((&shown["totals"]["requests"], &shown["totals"]["failed_requests"]), (&42.into(), &2.into()));
    assert_eq!(shown["totals"]["input_tokens"], 200);
    assert!(!shown.to_string().contains(&third[3..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_switched_off_and_on_at_once() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("paused", &[]));
    assert_eq!(client.chat("m").await.status, 200);
    server.cli_ok(&["key", "disable", "paused"]);
    assert_eq!(client.chat("m").await.status, 401);
    assert!(server.cli_ok(&["key", "list"]).contains("\tdisabled\t"));
    server.cli_ok(&["key", "enable", "paused"]);
    assert_eq!(client.chat("m").await.status, 200);
}
