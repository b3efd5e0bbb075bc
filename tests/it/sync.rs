//! The shipped `sync` plugin keeps the database and the stores in step.

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::server::ADMIN_TOKEN;
use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

/// Runs a job of the plugin now.
async fn run_job(server: &Server, job: &str) -> (StatusCode, Value) {
    let path = format!("/admin/v1/plugins/sync/jobs/{job}");
    let response = server.client(ADMIN_TOKEN).send(Method::POST, &path, Bytes::new()).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn blacklist(server: &Server, entry: Value) {
    let answer = server.client(ADMIN_TOKEN).post("/admin/v1/blacklist", &entry).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// Name and health of each account that has metrics.
fn health(server: &Server) -> Vec<Vec<String>> {
    server.sql(
        "SELECT account_name, is_healthy, total_requests FROM api_key_metrics
            JOIN (SELECT DISTINCT api_key_hash, account_name FROM request_logs) USING (api_key_hash) ORDER BY 1",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blacklisted_account_becomes_unhealthy_and_keeps_its_other_metrics() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::default()
        .account("bad", &upstream, "models = [\"a\"]")
        .account("good", &upstream, "models = [\"b\"]")
        .start();
    let client = server.client(&server.key("user", &[]));
    for model in ["a", "a", "b"] {
        assert_eq!(client.chat(model).await.status, 200);
    }
    let healthy = [["bad", "1", "2"], ["good", "1", "1"]];
    eventually("the requests are counted", || async { (health(&server) == healthy).then_some(()) }).await;

    blacklist(&server, json!({ "account": "bad", "reason": "stolen" })).await;
    // Kept from one model only, it stays healthy.
    blacklist(&server, json!({ "account": "good", "model": "c", "reason": "no such model" })).await;
    // Not on any row yet.
    blacklist(&server, json!({ "account": "f".repeat(64), "reason": "left the configuration" })).await;
    let (status, report) = run_job(&server, "blacklist-to-database").await;
    assert_eq!((status, &report["changed"]), (StatusCode::OK, &json!(2)), "{report}");
    assert_eq!(health(&server), [["bad", "0", "2"], ["good", "1", "1"]]);
    assert_eq!(server.count("SELECT count(*) FROM api_key_metrics WHERE is_healthy = 0"), 2);
    assert_eq!(run_job(&server, "blacklist-to-database").await.1["changed"], 0, "nothing is new");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_accounts_are_copied_where_they_are_fast_to_read() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::default()
        .account("busy", &upstream, "models = [\"a\"]")
        .account("idle", &upstream, "models = [\"b\"]")
        .start();
    let client = server.client(&server.key("user", &[]));
    for _ in 0..101 {
        assert_eq!(client.chat("a").await.status, 200);
    }
    assert_eq!(client.chat("b").await.status, 200);
    eventually("the requests are counted", || async {
        (server.count("SELECT coalesce(sum(total_requests), 0) FROM api_key_metrics") == 102).then_some(())
    })
    .await;
    let (status, report) = run_job(&server, "hot-keys").await;
    assert_eq!((status, &report["changed"]), (StatusCode::OK, &json!(1)), "{report}");
    let key = server.cli_ok(&["kv", "list", "hot-keys"]);
    let entry: Value = serde_json::from_str(&server.cli_ok(&["kv", "get", "hot-keys", &key])).unwrap();
    assert_eq!((&entry["api_key_hash"], &entry["total_requests"]), (&json!(key), &json!(101)));
    assert_eq!((&entry["successful_requests"], &entry["is_healthy"]), (&json!(101), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_there_is_not_found() {
    let server = Setup::demo().start();
    let (status, answer) = run_job(&server, "no-such-job").await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
}
