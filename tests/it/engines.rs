//! Stores whose engine the configuration chooses: the file, or memory that a restart forgets.

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::Setup;

const STORES: &str = "[kv.notes]\n[kv.blacklist]\nengine = \"memory\"\n[kv.brief]\nengine = \"memory\"
[sql.brief]\nengine = \"memory\"\n[blob.brief]\nengine = \"memory\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_works_as_any_other_until_the_server_stops() {
    let mut server = Setup::demo().config(STORES).start();
    let arguments =
        ["token", "create", "--name", "app", "--kv", "brief:read-write", "--kv", "notes:read-write"];
    let more = ["--sql", "brief:read-write", "--blob", "brief:read-write"];
    let token = server.cli_ok(&[&arguments[..], &more].concat());
    let app = server.client(&token);
    let statements =
        json!({ "batch": [{ "sql": "CREATE TABLE t (n)" }, { "sql": "INSERT INTO t VALUES (1)" }] });
    for (method, path, body) in [
        (Method::PUT, "/api/kv/notes/a", "x".to_owned()),
        (Method::PUT, "/api/kv/brief/a", "x".to_owned()),
        (Method::PUT, "/api/kv/brief/b", "x".to_owned()),
        (Method::PUT, "/api/blob/brief/a", "x".repeat(200_000)),
        (Method::POST, "/api/sql/brief", statements.to_string()),
    ] {
        let answer = app.call(method, path, &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    }
    let tag = app.get("/api/kv/brief/b").await.header("etag").to_owned();
    let removed = app.call(Method::DELETE, "/api/kv/brief/b", &[("if-match", &tag)], "").await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT, "{}", removed.text());
    assert_eq!(app.get("/api/blob/brief/a").await.body.len(), 200_000);
    let count = json!({ "sql": "SELECT count(*) FROM t" });
    assert_eq!(app.post("/api/sql/brief", &count).await.json()["rows"], json!([[1]]));

    // A plugin works on memory too, here the one that bans.
    let key = server.key("banned", &[]);
    let ban = json!({ "client": "banned", "reason": "a test" });
    let admin = server.client(crate::support::server::ADMIN_TOKEN);
    assert_eq!(admin.post("/admin/v1/blacklist", &ban).await.status, StatusCode::CREATED);
    assert_ne!(server.client(&key).chat("demo").await.status, StatusCode::OK);

    server.crash_and_restart();
    let app = server.client(&token);
    assert_eq!(app.get("/api/kv/notes/a").await.text(), "x");
    assert_eq!(app.get("/api/kv/brief/a").await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get("/api/blob/brief/a").await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.post("/api/sql/brief", &count).await.error(), (400, "invalid".to_owned()));
    assert_eq!(server.client(&key).chat("demo").await.status, StatusCode::OK);
}
