//! What an operator gives a client with a key: budgets, limits over some models, and another secret in time.

use std::time::Duration;

use crate::support::client::Answer;
use crate::support::{Behaviour, Server, Setup, Upstream, eventually, server::ADMIN_TOKEN};

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
async fn a_key_and_an_account_tell_what_they_have_used_of_late_and_of_each_limit() {
    let upstream = Upstream::start(Behaviour::Answer { input: 900, output: 100 }).await;
    let account = "rpd = 9\ntokens_total = 50000\nconcurrency = 5";
    let server = Setup::default().account("main", &upstream, account).config(PRICES).start();
    let key = server.key("asked", &["--rpm", "5", "--cost-per-month", "2", "--limit", "gpt-4*:tpm=5000"]);
    for model in ["gpt-4", "gpt-4o", "gpt-3"] {
        assert_eq!(settled_chat(&server, &key, model).await.status, 200);
    }
    upstream.behave(Behaviour::Refuse { status: 400, retry_after: None });
    assert_eq!(settled_chat(&server, &key, "gpt-3").await.status, 400);
    let usage = eventually("all is in the log", || async {
        let usage: serde_json::Value =
            serde_json::from_str(&server.cli_ok(&["key", "usage", "asked", "--json"])).unwrap();
        (usage["minute"]["requests"] == 4).then_some(usage)
    })
    .await;
    assert_eq!(usage["minute"], usage["day"]);
    assert_eq!((&usage["day"]["counted_requests"], &usage["day"]["failed_requests"]), (&3.into(), &1.into()));
    assert_eq!(usage["day"]["cost"], 0.003);
    let limits: Vec<_> = usage["limits"].as_array().unwrap().iter().collect();
    let told = |limit: &serde_json::Value| {
        (limit["limit"].clone(), limit["models"].clone(), limit["used"].clone(), limit["most"].clone())
    };
    let null = serde_json::Value::Null;
    assert_eq!(told(limits[0]), ("rpm".into(), null.clone(), 3.into(), 5.into()));
    assert_eq!(told(limits[1]), ("cost_per_month".into(), null, 0.003.into(), 2.0.into()));
    assert_eq!(told(limits[2]), ("tpm".into(), "gpt-4*".into(), 2_000.into(), 5_000.into()));
    assert!(limits.iter().all(|limit| limit["frees_ms"].is_u64()), "{limits:?}");
    let of_account = server.cli_ok(&["account", "usage", "main", "--models"]);
    for line in [
        "24 h\tgpt-3\t2\t1\t1\t",
        "\nrpd\t\\N\t3\t9\t",
        "concurrency\t\\N\t0\t5\t",
        "tokens_total\t\\N\t3000\t",
    ] {
        assert!(of_account.contains(line), "{line:?} is not in {of_account}");
    }
    assert_eq!(server.cli(&["key", "usage", "nobody"]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_deleted_with_its_records_over_a_crash_and_what_is_summed_over_everybody_stays() {
    let (_upstream, mut server) = priced().await;
    let gone = server.key("gone", &["--tokens-total", "100000"]);
    let other = server.key("other", &[]);
    for key in [&gone, &gone, &gone, &other, &other] {
        assert_eq!(settled_chat(&server, key, "gpt-test").await.status, 200);
    }
    let log = "SELECT count(*) FROM request_logs WHERE client_name = ";
    eventually("all is in the log", || async {
        (server.count(&format!("{log}'gone'")) == 3 && server.count(&format!("{log}'other'")) == 2)
            .then_some(())
    })
    .await;
    assert_eq!(
        server.cli(&["key", "delete", "gone", "--records"]).status.code(),
        Some(2),
        "nobody can be asked"
    );
    let path = "/admin/v1/keys/gone?records=true";
    let answer = server.client(ADMIN_TOKEN).send(http::Method::DELETE, path, String::new().into()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(server.client(&gone).chat("gpt-test").await.status, 401, "it is refused at once");
    server.crash_and_restart();
    eventually("the records are gone", || async {
        let left = server.count(&format!("{log}'gone'"))
            + server.count("SELECT count(*) FROM api_keys WHERE name = 'gone'")
            + server.count("SELECT count(*) FROM usage_daily WHERE kind = 'key'")
            - 1;
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(server.count(&format!("{log}'other'")), 2);
    assert_eq!(server.count("SELECT sum(total_requests) FROM system_stats"), 5);
    assert_eq!(server.count("SELECT sum(total_requests) FROM api_key_metrics"), 5);
    let deleted = server.cli_ok(&["key", "delete", "other", "--records", "--yes"]);
    // Two rows of the log, one of a day's usage, and that of a day's clients.
    assert!(deleted.starts_with("deleted other and 4 rows"), "{deleted}");
    let deletions = server.get("/admin/v1/deletions?id=0").await.json();
    assert_eq!(deletions, serde_json::json!({ "deletions": [] }));
    let deletions = server.get("/admin/v1/deletions").await.json();
    assert_eq!(
        (&deletions["deletions"][0]["name"], &deletions["deletions"][0]["done"]),
        (&"other".into(), &true.into())
    );
    let audit = server.cli_ok(&["audit", "list", "--action", "key delete"]);
    assert!(audit.contains("\tgone\t") && audit.contains("\tother\t"), "{audit}");
    assert!(!server.cli_ok(&["kv", "list", "quota"]).contains("client:"), "a policy still keeps something");
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
