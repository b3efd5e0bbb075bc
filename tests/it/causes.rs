//! What goes wrong upstream is told by its cause, and counts for the account that it is about.

use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::accounting::{days_that_differ, logged};
use crate::support::{Behaviour, Client, Server, Setup, Upstream, eventually};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

async fn two_accounts(first: Behaviour) -> (Upstream, Server) {
    let upstream = Upstream::start(FINE).await;
    upstream.behave_for("first", first);
    let server = Setup::default()
        .account("first", &upstream, "priority = 1")
        .account("second", &upstream, "priority = 2")
        .start();
    (upstream, server)
}

/// OpenAI's words for a limit that is reached.
fn limited(message: &str, kind: &str, code: &str) -> Behaviour {
    let body = json!({ "error": { "message": message, "type": kind, "param": null, "code": code } });
    Behaviour::Say { status: 429, headers: Vec::new(), body }
}

/// The first entry of the blacklist, when there is one.
async fn blacklisted(server: &Server) -> Value {
    eventually("an account is on the blacklist", || async {
        let listed: Value = serde_json::from_str(&server.cli_ok(&["blacklist", "list", "--json"])).unwrap();
        listed["entries"].get(0).cloned()
    })
    .await
}

/// Milliseconds for which an entry holds.
fn held_ms(entry: &Value) -> u64 {
    let time = |name: &str| entry["entry"][name].as_u64().unwrap();
    time("until_ms") - time("created_ms")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_another_account_made_good_counts_for_the_account_that_failed() {
    let (_, server) = two_accounts(Behaviour::Refuse { status: 401, retry_after: None }).await;
    let client = server.client(&server.key("user", &[]));
    let answer = client.chat("gpt-test").await;
    assert_eq!(answer.status, 200);
    let id = answer.headers["x-request-id"].to_str().unwrap();
    logged(&server, 1).await;
    let failed = "SELECT attempt, error_type, status_code, message, request_id, json_extract(context, '$.account_name')
        FROM error_logs";
    let said = "the upstream answered 401: told to refuse";
    assert_eq!(server.sql(failed), [["1", "upstream_auth", "401", said, id, "first"]]);
    let metrics =
        "SELECT total_requests, failed_requests, consecutive_failures, last_failure > 0, total_tokens
        FROM api_key_metrics ORDER BY total_tokens";
    assert_eq!(server.sql(metrics), [["1", "1", "1", "1", "0"], ["1", "0", "0", "\\N", "7"]]);
    let by_account = server.cli_ok(&["usage", "--by", "account"]);
    let rows: Vec<Vec<&str>> = by_account.lines().skip(1).map(|row| row.split('\t').collect()).collect();
    let told = |name: &str| rows.iter().find(|row| row.contains(&name)).map(|row| [row[2], row[3]]);
    assert_eq!((told("first"), told("second")), (Some(["1", "1"]), Some(["1", "0"])), "{by_account}");
    // The client made one request, which went well.
    assert_eq!(server.count("SELECT sum(requests) FROM usage_daily WHERE kind = 'key'"), 1);
    assert_eq!(server.count("SELECT sum(failed_requests) FROM system_stats"), 0);
    assert_eq!(server.count("SELECT active_accounts FROM system_stats"), 2);
    assert_eq!(days_that_differ(&server), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_quota_keeps_its_account_for_other_models() {
    let message = "Rate limit reached for big in organization org-x on requests per day (RPD): Limit 200, Used 200, \
        Requested 1. Please try again in 7m12s.";
    let (upstream, server) = two_accounts(limited(message, "requests", "rate_limit_exceeded")).await;
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("big").await.status, 200);
    let entry = blacklisted(&server).await;
    assert_eq!((&entry["entry"]["model"], &entry["limit"]), (&json!("big"), &json!("rpd")), "{entry}");
    assert_eq!(held_ms(&entry), 432_000, "{entry}");
    upstream.behave_for("first", FINE);
    assert_eq!(client.chat("big").await.status, 200);
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 2));
    assert_eq!(client.chat("small").await.status, 200);
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whom_all_accounts_refuse_is_told_the_shortest_wait() {
    let (upstream, server) = two_accounts(Behaviour::Refuse { status: 429, retry_after: Some(34) }).await;
    upstream.behave_for("second", Behaviour::Refuse { status: 429, retry_after: Some(900) });
    let answer = server.client(&server.key("user", &[])).chat("gpt-test").await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.headers["retry-after"], "34");
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_credit_is_kept_out_whole_though_it_says_so_as_a_limit() {
    let message = "You exceeded your current quota, please check your plan and billing details.";
    let (upstream, server) = two_accounts(limited(message, "insufficient_quota", "insufficient_quota")).await;
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("big").await.status, 200);
    let entry = &blacklisted(&server).await["entry"];
    assert_eq!((&entry["model"], &entry["reason"]), (&Value::Null, &json!("upstream answered 402")));
    upstream.behave_for("first", FINE);
    assert_eq!(client.chat("small").await.status, 200);
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 2));
    logged(&server, 2).await;
    let said = format!("the upstream answered 429: {message}");
    let row = ["upstream_payment", "429", said.as_str()];
    assert_eq!(server.sql("SELECT error_type, status_code, message FROM error_logs"), [row]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_until_a_date_is_waited_for() {
    let at = std::time::SystemTime::now() + std::time::Duration::from_secs(600);
    let headers = vec![("retry-after", httpdate::fmt_http_date(at))];
    let (_, server) = two_accounts(Behaviour::Say { status: 429, headers, body: json!({}) }).await;
    assert_eq!(server.client(&server.key("user", &[])).chat("gpt-test").await.status, 200);
    let entry = blacklisted(&server).await;
    assert!((580_000..=601_000).contains(&held_ms(&entry)), "{entry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_charged_what_came_of_it_and_counts_as_no_request() {
    let upstream = Upstream::start(Behaviour::BreakOff { events: 20 }).await;
    let server = Setup::with(&upstream).start();
    let key = server.key("user", &["--tokens-per-day", "50", "--rpm", "1"]);
    let client = server.client(&key);
    let answer = client.chat_stream("gpt-test").await;
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.expect_err("it breaks off");
    logged(&server, 1).await;
    let row = server.sql("SELECT error_type, output_tokens, total_tokens FROM request_logs").remove(0);
    assert_eq!((row[0].as_str(), row[1].as_str()), ("stream", "40"), "two tokens an event");
    let refused = client.chat("gpt-test").await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("(tokens-per-day: {} of 50)", row[2])), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_by_whose_fault_they_are() {
    let upstream = Upstream::start(FINE).await;
    let mut setup = Setup::default().config("[gateway]\nanswer_timeout_ms = 300");
    let slow = Behaviour::Slow { input: 1, output: 1, pause: std::time::Duration::from_secs(600) };
    for (name, behaviour) in [
        ("refused", Behaviour::Refuse { status: 401, retry_after: None }),
        ("full", Behaviour::Refuse { status: 429, retry_after: Some(60) }),
        ("slow", slow),
        ("wrong", Behaviour::Refuse { status: 400, retry_after: None }),
        ("fine", FINE),
    ] {
        upstream.behave_for(name, behaviour);
        setup = setup.account(name, &upstream, &format!("models = [\"{name}\"]"));
    }
    let server = setup.start();
    let client = |name: &str, limits: &[&str]| server.client(&server.key(name, limits));
    let (user, limited) = (client("user", &[]), client("limited", &["--rpm", "1"]));
    let stranger = client("stranger", &["--clients", "codex"]);
    let mut told = Vec::new();
    let cases: [(&Client, &str, u16, &str); 8] = [
        (&user, "fine", 200, ""),
        (&user, "refused", 502, "upstream_auth"),
        (&user, "full", 429, "upstream_rate_limit"),
        (&user, "slow", 504, "upstream_timeout"),
        (&user, "wrong", 400, "invalid_request"),
        (&limited, "fine", 200, ""),
        (&limited, "fine", 429, "rate_limit"),
        (&stranger, "fine", 403, "auth"),
    ];
    for (client, model, status, error_type) in cases {
        let answer = client.chat(model).await;
        assert_eq!(answer.status, status, "{model}: {}", answer.text());
        told.push([status.to_string(), error_type.to_owned()]);
    }
    // The account is kept out by now.
    eventually("a refused account is not asked again", || async {
        (user.chat("refused").await.status == 503).then_some(())
    })
    .await;
    let rows = || server.sql("SELECT status_code, error_type FROM request_logs ORDER BY sequence");
    let last = eventually("the refusal is in the log", || async {
        rows().pop().filter(|row| row[0] == "503").map(|row| row[1].clone())
    })
    .await;
    assert_eq!(last, "unavailable");
    assert_eq!(rows()[..told.len()], told);
    let stats = "SELECT timeouts, rate_limits, auth_errors FROM system_stats";
    let seen = server.count("SELECT count(*) FROM request_logs WHERE error_type = 'upstream_auth'");
    assert_eq!(server.sql(stats), [["1".to_owned(), "2".to_owned(), (1 + seen).to_string()]]);
    let is_same = "SELECT count(*) FROM error_logs JOIN request_logs USING (sequence, error_type)";
    assert_eq!(server.count(is_same), server.count("SELECT count(*) FROM error_logs"));
    assert_eq!(days_that_differ(&server), 0);
}
