//! Logs and the audit log: what can be found again of a request, and of who tried to get in.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Behaviour, Client, Guest, Server, Setup, Upstream, eventually};

/// The lines of a log in JSON.
fn lines(server: &Server) -> Vec<Value> {
    server.log().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_about_a_request_has_the_id_that_its_client_was_told() {
    let upstream = Upstream::start(Behaviour::Refuse { status: 500, retry_after: None }).await;
    let server =
        Setup::with(&upstream).environment("TOLLGATE_LOG_FORMAT", "json").log("tollgate=debug").start();
    let client = server.client(&server.key("user", &[]));
    let mut told = BTreeSet::new();
    let failed = client.call(Method::POST, "/v1/chat/completions", &[("x-request-id", "mine")], chat()).await;
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
    told.insert(failed.header("x-request-id").to_owned());

    // A policy that answers about more subjects than it was asked.
    let (wasm, manifest) = (server.home().join("miscounts.wasm"), server.home().join("miscounts.toml"));
    std::fs::write(&wasm, Guest::new().admit("(call $allow (i32.const 3))").build()).unwrap();
    std::fs::write(&manifest, "name = \"miscounts\"\norder = 1\n").unwrap();
    server.cli_ok(&["plugin", "push", wasm.to_str().unwrap(), "--manifest", manifest.to_str().unwrap()]);
    let refused = client.chat("m").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    told.insert(refused.header("x-request-id").to_owned());
    let about = ["attempt failed", "admission failed", "a plugin failed"];
    let found: Vec<_> = lines(&server)
        .into_iter()
        .filter(|line| about.contains(&line["fields"]["message"].as_str().unwrap_or_default()))
        .collect();
    let messages: BTreeSet<_> =
        found.iter().map(|line| line["fields"]["message"].as_str().unwrap()).collect();
    assert_eq!(messages, BTreeSet::from(about), "{}", server.log());
    let ids: BTreeSet<_> = found
        .iter()
        .map(|line| line["fields"]["request_id"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(ids, told);
    assert!(!ids.contains("mine"), "a client cannot choose its id");
}

fn chat() -> String {
    crate::support::client::chat_body("m", false).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_admin_and_the_data_api_have_ids_of_their_own() {
    let server = Setup::demo().start();
    let stranger = Client::new(server.url(), "nobody");
    let mut ids = BTreeSet::new();
    for answer in [
        server.get("/admin/v1/health").await,
        server.get("/admin/v1/nothing").await,
        stranger.get("/admin/v1/health").await,
        stranger.get("/api/kv/notes/x").await,
        stranger.get("/v1/models").await,
    ] {
        let id = answer.header("x-request-id");
        assert!(id.starts_with("req_"), "{id}");
        ids.insert(id.to_owned());
    }
    assert_eq!(ids.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_admin_tokens_and_whole_exports_stand_in_the_audit_log_and_no_token_does() {
    let server = Setup::demo().config("[sql.reports]").start();
    for number in 0..50 {
        let guess = format!("guessed-secret-{number}");
        let refused = Client::new(server.url(), &guess).get("/admin/v1/keys").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    let audit = eventually("the refusal is written down", async || {
        let audit = server.cli_ok(&["audit", "list", "--action", "admin token"]);
        audit.contains("unauthorized").then_some(audit)
    })
    .await;
    assert_eq!(audit.matches("stranger\tadmin token\t127.0.0.1\tfalse\tunauthorized").count(), 1, "{audit}");
    assert_eq!(server.metric("tollgate_admin_refused_total").await, 50.0);
    assert!(!server.log().contains("guessed-secret") && !audit.contains("guessed-secret"));

    let file = server.home().join("reports.sqlite");
    server.cli_ok(&["sql", "export", "reports", file.to_str().unwrap()]);
    let audit = server.cli_ok(&["audit", "list"]);
    assert!(audit.contains("admin token\tsql export\treports\ttrue"), "{audit}");
}
