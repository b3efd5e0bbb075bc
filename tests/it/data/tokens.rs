//! Data tokens: what they open, and that they open nothing else.

use http::{Method, StatusCode};
use serde_json::json;

use super::{client, start};
use crate::support::server::ADMIN_TOKEN;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_listed_without_itself_and_refused_from_its_revocation_on() {
    let mut server = start();
    let arguments = ["token", "create", "--name", "app", "--kv", "notes:read-write", "--prefix", "a/"];
    let token = server.cli_ok(&arguments);
    let app = server.client(&token);
    assert_eq!(app.call(Method::PUT, "/api/kv/notes/a/1", &[], "x").await.status, StatusCode::OK);
    let list = server.cli_ok(&["token", "list"]);
    assert!(list.contains("app") && list.contains("notes") && !list.contains(&token), "{list}");
    assert!(!server.cli(&arguments).status.success(), "a name twice");
    assert!(!server.log().contains(&token));

    server.crash_and_restart();
    let app = server.client(&token);
    assert_eq!(app.get("/api/kv/notes/a/1").await.text(), "x");
    assert_eq!(server.cli_ok(&["token", "revoke", "app"]), "revoked app");
    let refused = app.get("/api/kv/notes/a/1").await;
    assert_eq!(refused.error(), (401, "unauthorized".to_owned()));
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    server.crash_and_restart();
    assert_eq!(server.client(&token).get("/api/kv/notes/a/1").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_data_tokens_open_the_data_api_and_they_open_nothing_else() {
    let server = start();
    let key = server.key("client", &[]);
    for wrong in ["", "x", &key, ADMIN_TOKEN, &format!("tgd-{}", "a".repeat(43))] {
        assert_eq!(
            server.client(wrong).get("/api/kv/notes/k").await.status,
            StatusCode::UNAUTHORIZED,
            "{wrong}"
        );
        assert_eq!(
            server.client(wrong).get("/api/nothing").await.status,
            StatusCode::UNAUTHORIZED,
            "{wrong}"
        );
    }
    let app = client(&server, &["--kv", "notes:read"]);
    for path in ["/admin/v1/keys", "/admin/v1/kv/notes", "/v1/models"] {
        assert_eq!(app.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(app.get("/api/nothing").await.error(), (404, "not_found".to_owned()));
    let answer = app.call(Method::PATCH, "/api/kv/notes/k", &[], "").await;
    assert_eq!(answer.error(), (405, "method_not_allowed".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scope_does_not_cover_is_refused_with_the_scope_that_is_missing() {
    let server = start();
    let app = client(
        &server,
        &[
            "--kv",
            "notes:read",
            "--blob",
            "images:read",
            "--sql",
            "reports:read",
            "--vector",
            "captions:read",
            "--prefix",
            "a/",
        ],
    );
    let refused = async |method: Method, path: &str, body: String, scope: &str| {
        let answer = app.call(method.clone(), path, &[], body).await;
        let (status, code) = answer.error();
        assert_eq!((status, code.as_str()), (403, "scope_missing"), "{method} {path}: {}", answer.text());
        assert!(answer.text().contains(scope), "{method} {path}: {}", answer.text());
    };
    let write = "kv notes:read-write";
    refused(Method::PUT, "/api/kv/notes/a/1", "x".into(), write).await;
    refused(Method::DELETE, "/api/kv/notes/a/1", String::new(), write).await;
    refused(Method::POST, "/api/kv/notes/a/1", json!({"increment": 1}).to_string(), write).await;
    refused(Method::POST, "/api/kv/notes", json!({"set": {"entries": []}}).to_string(), write).await;
    refused(Method::POST, "/api/kv/notes", json!({"delete": ["a/1"]}).to_string(), write).await;
    refused(Method::GET, "/api/kv/other/a/1", String::new(), "kv other:read").await;
    refused(Method::GET, "/api/kv/nowhere/a/1", String::new(), "kv nowhere:read").await;
    // The key decides as it is stored, not as it is written in the path.
    for key in ["b/1", "a", "a%252F1", "%2Fa/1", "b%2F..%2Fa/1", "../a/1", "A/1"] {
        refused(Method::GET, &format!("/api/kv/notes/{key}"), String::new(), "start with `a/`").await;
    }
    refused(Method::GET, "/api/kv/notes?prefix=b", String::new(), "start with `a/`").await;
    refused(Method::POST, "/api/kv/notes", json!({"get": ["a/1", "b/1"]}).to_string(), "start with `a/`")
        .await;
    refused(Method::PUT, "/api/blob/images/a/1", "x".into(), "blob images:read-write").await;
    refused(Method::DELETE, "/api/blob/images/a/1", String::new(), "blob images:read-write").await;
    refused(Method::POST, "/api/blob/images/a/1", String::new(), "blob images:read-write").await;
    refused(Method::GET, "/api/blob/images/b", String::new(), "start with `a/`").await;
    refused(Method::GET, "/api/blob/images?prefix=", String::new(), "start with `a/`").await;
    refused(Method::GET, "/api/blob/notes/a/1", String::new(), "blob notes:read").await;
    let create = json!({"sql": "create table t (x)"}).to_string();
    refused(Method::POST, "/api/sql/reports", create, "sql reports:read-write").await;
    refused(Method::POST, "/api/sql/gateway", json!({"sql": "select 1"}).to_string(), "sql gateway:read")
        .await;
    for write in ["upsert", "insert", "delete"] {
        let body = json!({ write: [] }).to_string();
        refused(Method::POST, "/api/vector/captions", body, "vector captions:read-write").await;
    }
    refused(Method::GET, "/api/vector/notes", String::new(), "vector notes:read").await;
    let allowed = app.call(Method::GET, "/api/kv/notes/%61%2Fnothing", &[], "").await;
    assert_eq!(allowed.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_what_there_is_not_is_not_made() {
    let server = start();
    for (arguments, reason) in [
        (["--kv", "nowhere:read"], "there are: blacklist"),
        (["--kv", "host/tokens:read"], "there is none of that name"),
        (["--blob", "images/parts:read"], "there is none of that name"),
        (["--sql", "gateway:read-write"], "name the tables"),
        (["--vector", "nowhere:read"], "there are: captions"),
        (["--vector", "captions:read:t"], "only --sql names tables"),
        (["--kv", "notes:read:t"], "only --sql names tables"),
    ] {
        let mut all = vec!["token", "create", "--name", "n"];
        all.extend(arguments);
        let output = server.cli(&all);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{arguments:?}: {said}");
    }
}
