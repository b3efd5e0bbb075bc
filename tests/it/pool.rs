//! An account in trouble is passed over, and comes back when its time is up; one that is full is waited for.

use std::time::Duration;

use serde_json::json;

use crate::support::{Behaviour, Server, Setup, Upstream, eventually, server::ADMIN_TOKEN};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

async fn two_accounts() -> (Upstream, Server) {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::default()
        .account("first", &upstream, "priority = 1")
        .account("second", &upstream, "priority = 2")
        .start();
    (upstream, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_on_one_account_is_answered_by_another() {
    for trouble in [Behaviour::Refuse { status: 500, retry_after: None }, Behaviour::Break] {
        let (upstream, server) = two_accounts().await;
        upstream.behave_for("first", trouble);
        let client = server.client(&server.key("user", &[]));
        assert_eq!(client.chat("gpt-test").await.status, 200);
        assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_blacklisted_and_not_asked_again() {
    let (upstream, server) = two_accounts().await;
    upstream.behave_for("first", Behaviour::Refuse { status: 401, retry_after: None });
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    eventually("the first account is blacklisted", || async {
        server.cli_ok(&["kv", "list", "blacklist"]).contains("account:").then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client.chat("gpt-test").await.status, 200);
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_out_of_quota_comes_back_after_its_own_retry_after() {
    let (upstream, server) = two_accounts().await;
    upstream.behave_for("first", Behaviour::Refuse { status: 429, retry_after: Some(1) });
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    upstream.behave_for("first", FINE);
    eventually("the first account serves again", || async {
        client.chat("gpt-test").await;
        (upstream.seen_from("first") > 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_account_fails_the_client_gets_the_last_error_and_is_not_charged() {
    let (upstream, server) = two_accounts().await;
    upstream.behave(Behaviour::Refuse { status: 500, retry_after: None });
    let client = server.client(&server.key("user", &["--rpm", "1"]));
    let failed = client.chat("gpt-test").await;
    assert!(failed.status.is_server_error(), "{}", failed.status);
    assert!(failed.json()["error"]["message"].is_string());
    eventually("the failed request is not counted", || async {
        server.cli_ok(&["sql", "gateway", "SELECT count(*) FROM request_logs"]).ends_with('1').then_some(())
    })
    .await;
    // A limit of one would refuse now if the failed request had been charged; blacklisted accounts answer otherwise.
    assert_ne!(client.chat("gpt-test").await.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_has_the_name_that_its_account_gives_it_and_costs_what_that_name_costs() {
    let upstream = Upstream::start(FINE).await;
    let price = "[[price]]\nmodel = \"fast\"\ninput = 1000000\noutput = 0";
    let extra = "models = [\"m\"]\naliases = { fast = \"own\" }";
    let server = Setup::default().account("main", &upstream, extra).config(price).start();
    let client = server.client(&server.key("user", &["--cost-total", "10000"]));
    let answer = client.chat("fast").await;
    assert_eq!((answer.status.as_u16(), answer.json()["model"].as_str()), (200, Some("own")));
    // What has no price is refused to whoever has a budget: the name counts, not what stands behind it.
    let denied = client.chat("m").await;
    assert_eq!(denied.status, 403);
    assert!(denied.text().contains("has no price"), "{}", denied.text());
    eventually("both names are in the log", || async {
        let rows = server.sql("SELECT original_model, model FROM request_logs WHERE status_code = 200");
        (rows == [["fast", "own"]]).then_some(())
    })
    .await;
}

fn slow(pause_ms: u64, output: u64) -> Behaviour {
    Behaviour::Slow { input: 5, output, pause: Duration::from_millis(pause_ms) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_account_has_more_requests_at_once_than_it_may_and_all_are_answered() {
    let upstream = Upstream::start(slow(5, 2)).await;
    let server = Setup::default()
        .account("first", &upstream, "priority = 1\nconcurrency = 2")
        .account("second", &upstream, "priority = 2\nconcurrency = 3")
        .start();
    let client = server.client(&server.key("user", &[]));
    let tasks = (0..20).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            for _ in 0..10 {
                let answer = client.chat("m").await;
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(upstream.seen(), 200);
    assert_eq!((upstream.most_at_once_from("first"), upstream.most_at_once_from("second")), (2, 3));
    assert_eq!(server.metric("tollgate_queue_requests").await, 0.0);
    assert!(server.metric_with("tollgate_queue_seconds_count", &["end=\"place\""]).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_many_requests_an_account_takes_at_once_can_be_changed_while_it_runs() {
    let upstream = Upstream::start(slow(20, 2_000)).await;
    let mut server = Setup::demo().config("[gateway]\nqueue_timeout_ms = 1").start();
    let body =
        json!({ "name": "main", "base_url": upstream.url(), "api_key": "k", "limits": { "concurrency": 1 } });
    assert_eq!(server.client(ADMIN_TOKEN).post("/admin/v1/accounts", &body).await.status, 201);
    let client = server.client(&server.key("user", &[]));
    let _running = client.chat_stream("m").await;
    let full = client.chat("m").await;
    assert_eq!((full.error(), full.header("retry-after")), ((503, "service_unavailable".to_owned()), "1"));
    server.cli_ok(&["account", "update", "main", "--concurrency", "2"]);
    assert_eq!(client.chat("m").await.status, 200);
    server.cli_ok(&["account", "update", "main", "--concurrency", "1"]);
    assert_eq!(client.chat("m").await.status, 503, "the stream that runs still counts");
    server.crash_and_restart();
    let shown = server.get("/admin/v1/accounts/main").await.json();
    assert_eq!(shown["limits"]["concurrency"], 1);
    server.cli_ok(&["account", "update", "main", "--clear", "concurrency"]);
    assert_eq!(server.get("/admin/v1/accounts/main").await.json()["limits"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_account_counts_among_the_requests_of_its_key() {
    let upstream = Upstream::start(slow(20, 2_000)).await;
    let server = Setup::default().account("main", &upstream, "concurrency = 1").start();
    let client = server.client(&server.key("user", &["--concurrency", "2"]));
    let running = client.chat_stream("m").await;
    let waits = {
        let client = client.clone();
        tokio::spawn(async move { client.chat("m").await })
    };
    eventually("the second waits", || async {
        (server.metric("tollgate_queue_requests").await == 1.0).then_some(())
    })
    .await;
    let refused = client.chat("m").await;
    assert_eq!(refused.error(), (429, "rate_limit_exceeded".to_owned()));
    assert!(refused.text().contains("concurrency"), "{}", refused.text());
    drop(running);
    assert_eq!(waits.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_does_not_answer_is_found_out_before_a_request_is_lost_on_it() {
    let upstream = Upstream::start(FINE).await;
    // Nothing listens on port 1.
    let dead = "[[account]]\nname = \"dead\"\nbase_url = \"http://127.0.0.1:1\"\napi_key = \"k\"";
    let server = Setup::default()
        .account("alive", &upstream, "priority = 1")
        .config(&format!("[gateway]\nhealth_interval_ms = 1000\n{dead}"))
        .start();
    eventually("both have been asked", || async {
        let told = server.get("/metrics").await.text();
        let is_told = |row: &str| told.lines().any(|line| line == row);
        let (dead, alive) =
            ("tollgate_account_up{account=\"dead\"} 0", "tollgate_account_up{account=\"alive\"} 1");
        (is_told(dead) && is_told(alive)).then_some(())
    })
    .await;
    assert_eq!(server.client(&server.key("user", &[])).chat("m").await.status, 200);
    assert_eq!(server.metric("tollgate_retries_total").await, 0.0);
    assert!(server.log().contains("the account's health has changed"), "{}", server.log());
}
