//! Nobody races a limit: not with many tasks at once, not over several accounts, not in tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::{Behaviour, Client, Server, Setup, Upstream, server::ADMIN_TOKEN};

/// Sends `requests` chat requests from `tasks` tasks at once; how many were admitted and refused.
async fn storm(client: &Client, requests: u64, tasks: u64) -> (u64, u64) {
    storm_of(client, &["gpt-test"], requests, tasks).await
}

/// The same with each of some models in turn.
async fn storm_of(client: &Client, models: &'static [&str], requests: u64, tasks: u64) -> (u64, u64) {
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (client, next) = (client.clone(), next.clone());
            tokio::spawn(async move {
                let (mut admitted, mut refused) = (0, 0);
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= requests {
                        return (admitted, refused);
                    }
                    let answer = client.chat(models[number as usize % models.len()]).await;
                    match answer.status.as_u16() {
                        200 => admitted += 1,
                        429 => refused += 1,
                        other => panic!("neither admitted nor over the limit: {other} {}", answer.text()),
                    }
                }
            })
        })
        .collect();
    let (mut admitted, mut refused) = (0, 0);
    for worker in workers {
        let (more_admitted, more_refused) = worker.await.unwrap();
        admitted += more_admitted;
        refused += more_refused;
    }
    (admitted, refused)
}

async fn server_with_upstream(behaviour: Behaviour) -> (Upstream, Server) {
    let upstream = Upstream::start(behaviour).await;
    let server = Setup::with(&upstream).start();
    (upstream, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_from_64_tasks_pass_a_limit_of_60_exactly_60_times() {
    let (upstream, server) = server_with_upstream(Behaviour::Answer { input: 5, output: 2 }).await;
    let client = server.client(&server.key("sixty", &["--rpm", "60"]));
    assert_eq!(storm(&client, 500, 64).await, (60, 440));
    assert_eq!(upstream.seen(), 60, "the upstream saw what was admitted and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_limit_holds_under_the_same_storm() {
    let (upstream, server) = server_with_upstream(Behaviour::Answer { input: 5, output: 2 }).await;
    let client = server.client(&server.key("day", &["--rpd", "25"]));
    assert_eq!(storm(&client, 200, 64).await, (25, 175));
    assert_eq!(upstream.seen(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_charged_in_a_storm_never_exceed_the_limit() {
    // Each request really uses 20 tokens: what its estimate reserved beyond that comes back when it settles.
    let (upstream, server) = server_with_upstream(Behaviour::Answer { input: 8, output: 12 }).await;
    let client = server.client(&server.key("tokens", &["--tpm", "1000"]));
    let (admitted, refused) = storm(&client, 500, 64).await;
    assert!(admitted > 0 && refused > 0, "{admitted} admitted, {refused} refused");
    assert_eq!(upstream.seen(), admitted);
    assert!(admitted * 20 <= 1000, "{admitted} requests of 20 tokens exceed 1000");
    assert!(admitted * 20 > 900, "only {admitted} requests of 20 tokens were let through a limit of 1000");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_keep_their_own_limits_and_the_second_takes_what_the_first_may_not() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::default()
        .account("first", &upstream, "rpm = 20\npriority = 1")
        .account("second", &upstream, "rpm = 30\npriority = 2")
        .start();
    let client = server.client(&server.key("free", &[]));
    assert_eq!(storm(&client, 300, 64).await, (50, 250));
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (20, 30));
    let denied = client.chat("gpt-test").await;
    assert!(
        !denied.text().contains("first"),
        "a client learns nothing of single accounts: {}",
        denied.text()
    );
    let id = denied.headers["x-request-id"].to_str().unwrap();
    let told = crate::support::eventually("the refusal is in the log", || async {
        server.sql(&format!("SELECT error_message FROM request_logs WHERE id = '{id}'")).pop()
    });
    let told = told.await.remove(0);
    assert!(told.ends_with("first: rpm 20 of 20; second: rpm 30 of 30"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_limit_is_over_all_its_models_in_a_storm() {
    let (upstream, server) = server_with_upstream(Behaviour::Answer { input: 5, output: 2 }).await;
    let client = server.client(&server.key("both", &["--rpm", "30"]));
    assert_eq!(storm_of(&client, &["gpt-test", "gpt-other", "gpt-third"], 200, 64).await, (30, 170));
    assert_eq!(upstream.seen(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_day_and_tokens_hold_under_the_same_storm() {
    let upstream = Upstream::start(Behaviour::Answer { input: 8, output: 12 }).await;
    let server = Setup::default()
        .account("day", &upstream, "rpd = 15\nmodels = [\"gpt-day\"]")
        .account("tokens", &upstream, "tpm = 1000\nmodels = [\"gpt-tokens\"]")
        .start();
    let client = server.client(&server.key("free", &[]));
    assert_eq!(storm_of(&client, &["gpt-day"], 200, 64).await, (15, 185));
    assert_eq!(upstream.seen_from("day"), 15);
    let (admitted, refused) = storm_of(&client, &["gpt-tokens"], 500, 64).await;
    assert!(admitted > 0 && refused > 0, "{admitted} admitted, {refused} refused");
    assert_eq!(upstream.seen_from("tokens"), admitted);
    assert!(admitted * 20 <= 1000, "{admitted} requests of 20 tokens exceed 1000");
}

/// Of a million tokens, so that a request of a thousand costs a thousandth.
const PRICES: &str = "[[price]]\nmodel = \"gpt-*\"\ninput = 1\noutput = 1\n";

/// A chat that must be answered, and whose settlement has reached the policies.
async fn chat(server: &Server, client: &Client, model: &str) {
    assert_eq!(client.chat(model).await.status, 200);
    settled(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_has_spent_its_budget_leaves_requests_to_the_next_and_keeps_its_usage_when_it_is_edited()
 {
    let upstream = Upstream::start(Behaviour::Answer { input: 900, output: 100 }).await;
    let server = Setup::default().account("second", &upstream, "priority = 2").config(PRICES).start();
    let body = serde_json::json!({
        "name": "first", "base_url": upstream.url(), "api_key": "upstream-first", "priority": 1,
        "limits": { "cost_per_day": 0.0025 },
    });
    assert_eq!(server.client(ADMIN_TOKEN).post("/admin/v1/accounts", &body).await.status, 201);
    let client = server.client(&server.key("free", &[]));
    chat(&server, &client, "unpriced").await;
    assert_eq!(upstream.seen_from("first"), 0, "what has no price is not free for who has a budget of money");
    for _ in 0..5 {
        chat(&server, &client, "gpt-test").await;
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (3, 3));
    server.cli_ok(&["account", "update", "first", "--cost-per-day", "0.0045"]);
    for _ in 0..3 {
        chat(&server, &client, "gpt-test").await;
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (5, 4));
    assert!(server.cli_ok(&["account", "list"]).contains("cost_per_day=0.0045"));
    server.cli_ok(&["account", "update", "first", "--clear", "cost-per-day"]);
    chat(&server, &client, "gpt-test").await;
    assert_eq!(upstream.seen_from("first"), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_an_account_over_some_models_leaves_the_others_alone() {
    let upstream = Upstream::start(Behaviour::Answer { input: 50, output: 30 }).await;
    let limits =
        "priority = 1\nmodel_limits = { \"gpt-4*\" = { rpm = 2 }, \"gpt-3\" = { tokens_total = 60 } }";
    let server = Setup::default()
        .account("first", &upstream, limits)
        .account("second", &upstream, "priority = 2\nmodels = [\"gpt-4\", \"gpt-4.1\"]")
        .start();
    let client = server.client(&server.key("free", &[]));
    for model in ["gpt-4", "gpt-4.1", "gpt-4", "gpt-3", "gpt-5"] {
        chat(&server, &client, model).await;
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (4, 1));
    let denied = client.chat("gpt-3").await;
    let error = &denied.json()["error"];
    assert_eq!((denied.status.as_u16(), &error["code"]), (429, &"insufficient_quota".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_request_does_not_count() {
    let (upstream, server) = server_with_upstream(Behaviour::Refuse { status: 400, retry_after: None }).await;
    let client = server.client(&server.key("three", &["--rpm", "3"]));
    for _ in 0..5 {
        assert_eq!(client.chat("gpt-test").await.status, 400);
        settled(&server).await;
    }
    upstream.behave(Behaviour::Answer { input: 5, output: 2 });
    assert_eq!(storm(&client, 10, 1).await, (3, 7));
}

/// Waits until the settlement of every admitted request has reached the policies.
async fn settled(server: &Server) {
    crate::support::eventually("all leases are settled", || async {
        (server.metric("tollgate_leases_open").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_says_which_limit_and_when_to_come_back() {
    let (_upstream, server) = server_with_upstream(Behaviour::Answer { input: 5, output: 2 }).await;
    let client = server.client(&server.key("one", &["--rpm", "1"]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    let denied = client.chat("gpt-test").await;
    assert_eq!(denied.status, 429);
    let seconds: u64 = denied.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds), "retry-after of {seconds} s");
    let error = &denied.json()["error"];
    assert_eq!(error["code"], "rate_limit_exceeded");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("rpm") || message.contains("requests per minute"), "{message}");
}
