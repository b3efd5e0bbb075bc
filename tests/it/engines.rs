//! Stores whose engine the configuration chooses: the file, memory that a restart forgets, or files beside it.

use std::path::Path;

use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{Setup, eventually};

const STORES: &str = "[kv.notes]\n[kv.blacklist]\nengine = \"memory\"\n[kv.brief]\nengine = \"memory\"
[sql.brief]\nengine = \"memory\"\n[blob.brief]\nengine = \"memory\"
[vector.brief]\nengine = \"memory\"\ndimensions = 2";

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_memory_works_as_any_other_until_the_server_stops() {
    let mut server = Setup::demo().config(STORES).start();
    let arguments =
        ["token", "create", "--name", "app", "--kv", "brief:read-write", "--kv", "notes:read-write"];
    let more = ["--sql", "brief:read-write", "--blob", "brief:read-write", "--vector", "brief:read-write"];
    let token = server.cli_ok(&[&arguments[..], &more].concat());
    let app = server.client(&token);
    let statements =
        json!({ "batch": [{ "sql": "CREATE TABLE t (n)" }, { "sql": "INSERT INTO t VALUES (1)" }] });
    let vectors = json!({ "upsert": [{ "id": "a", "values": [1, 0] }] });
    for (method, path, body) in [
        (Method::PUT, "/api/kv/notes/a", "x".to_owned()),
        (Method::PUT, "/api/kv/brief/a", "x".to_owned()),
        (Method::PUT, "/api/kv/brief/b", "x".to_owned()),
        (Method::PUT, "/api/blob/brief/a", "x".repeat(200_000)),
        (Method::POST, "/api/sql/brief", statements.to_string()),
        (Method::POST, "/api/vector/brief", vectors.to_string()),
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

    let nearest = json!({ "query": { "values": [1, 1] } });
    let found = app.post("/api/vector/brief", &nearest).await.json();
    assert_eq!(found["matches"][0]["id"], "a", "{found}");

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
    assert_eq!(app.get("/api/vector/brief").await.json()["vectors"], 0);
    assert_eq!(server.client(&key).chat("demo").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_memory_that_is_full_says_so_and_goes_on_answering() {
    let config = "[storage]\nengine = \"memory\"\nmemory_bytes = 33554432\n[blob.images]\n[kv.notes]";
    let mut server = Setup::demo().config(config).start();
    let key = server.key("one", &[]);
    assert_eq!(server.client(&key).chat("demo").await.status, StatusCode::OK);
    let arguments = ["token", "create", "--name", "app", "--blob", "images:read-write"];
    let token = server.cli_ok(&[&arguments[..], &["--kv", "notes:read-write"]].concat());
    let app = server.client(&token);
    // A kv store meets its own limit, by itself a quarter of the memory, before.
    let mut answers = Vec::new();
    for number in 0..9 {
        let path = format!("/api/kv/notes/{number}");
        answers.push(app.call(Method::PUT, &path, &[], noise(number, 1_000_000)).await);
    }
    assert!(answers[..8].iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(answers[8].error(), (507, "full".to_owned()));
    let mut refused = None;
    for number in 0..64 {
        let path = format!("/api/blob/images/{number}");
        let answer = app.call(Method::PUT, &path, &[], noise(number, 1_000_000)).await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    assert_eq!(refused.expect("it takes more than it has").status, StatusCode::SERVICE_UNAVAILABLE);
    // No request is taken that could not be recorded, and everybody is told.
    assert_eq!(server.client(&key).chat("demo").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.get("/healthz").await.status, StatusCode::OK);
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.text().contains("at most 33554432 bytes"), "{}", ready.text());
    assert_eq!(server.metric("tollgate_store_poisoned").await, 1.0);
    assert!(server.log().contains("the store takes no more writes"), "{}", server.log());

    server.crash_and_restart();
    assert_eq!(server.client(&key).chat("demo").await.status, StatusCode::UNAUTHORIZED);
    let key = server.key("one", &[]);
    assert_eq!(server.client(&key).chat("demo").await.status, StatusCode::OK);
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_files_keeps_plain_files_beside_the_store() {
    let mut server = Setup::demo().config("[blob.images]\nengine = \"files\"").start();
    let token = server.cli_ok(&["token", "create", "--name", "app", "--blob", "images:read-write"]);
    let app = server.client(&token);
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| (number / 7) as u8).collect();
    let sent = app.call(Method::PUT, "/api/blob/images/raw/cat", &[], bytes.clone()).await;
    assert_eq!(sent.status, StatusCode::OK, "{}", sent.text());
    let begun = app.call(Method::POST, "/api/blob/images/raw/dog", &[], "").await.json();
    let upload = format!("/api/blob/images/raw/dog?upload={}", begun["upload"].as_str().unwrap());
    let part = app.call(Method::PUT, &format!("{upload}&part=1"), &[], "a dog").await.json();
    let done = app.post(&upload, &json!({ "parts": [part["etag"]] })).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());

    server.crash_and_restart();
    let app = server.client(&token);
    let got = app.get("/api/blob/images/raw/cat").await;
    assert!(got.body == bytes);
    let tag = got.header("etag").to_owned();
    let same = app.call(Method::GET, "/api/blob/images/raw/cat", &[("if-none-match", &tag)], "").await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let range = [("range", "bytes=4000000-4000009")];
    let part = app.call(Method::GET, "/api/blob/images/raw/cat", &range, "").await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &bytes[4_000_000..4_000_010]));
    assert_eq!(app.get("/api/blob/images/raw/dog").await.text(), "a dog");
    let list = app.get("/api/blob/images?delimiter=/").await.json();
    assert_eq!(list["prefixes"], json!(["raw/"]));
    server.cli_ok(&["store", "check"]);
    let folder = server.home().join("data/blobs");
    assert!(files(&folder).contains(&bytes));
    for key in ["cat", "dog"] {
        app.call(Method::DELETE, &format!("/api/blob/images/raw/{key}"), &[], "").await;
    }
    eventually("the files have gone", async || files(&folder).is_empty().then_some(())).await;
}

/// The files of a folder from which some may be going.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    std::fs::read_dir(folder).unwrap().filter_map(|entry| std::fs::read(entry.unwrap().path()).ok()).collect()
}
