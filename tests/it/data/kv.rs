//! kv stores over the data API.

use http::{Method, StatusCode};
use serde_json::json;

use super::{client, start};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_any_bytes_goes_in_and_comes_out_with_its_version() {
    let server = start();
    let app = client(&server, &["--kv", "notes:read-write"]);
    let bytes: Vec<u8> = (0..=255).collect();
    let put = app.call(Method::PUT, "/api/kv/notes/k", &[], bytes.clone()).await;
    assert_eq!(put.status, StatusCode::OK);
    let version = put.json()["version"].as_u64().unwrap();
    assert_eq!(put.header("etag"), format!("\"{version}\""));
    let got = app.get("/api/kv/notes/k").await;
    assert_eq!((got.status, &*got.body, got.header("etag")), (StatusCode::OK, &*bytes, put.header("etag")));
    assert_eq!(got.header("content-type"), "application/octet-stream");
    assert!(got.headers.get("tollgate-expires-ms").is_none());
    let head = app.call(Method::HEAD, "/api/kv/notes/k", &[], "").await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (StatusCode::OK, 0, "256"));
    assert_eq!(app.call(Method::PUT, "/api/kv/notes/empty", &[], "").await.status, StatusCode::OK);
    assert_eq!(app.get("/api/kv/notes/empty").await.body.len(), 0);
    for _ in 0..2 {
        assert_eq!(app.call(Method::DELETE, "/api/kv/notes/k", &[], "").await.status, StatusCode::NO_CONTENT);
        assert_eq!(app.get("/api/kv/notes/k").await.error(), (404, "not_found".to_owned()));
        assert_eq!(app.call(Method::HEAD, "/api/kv/notes/k", &[], "").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_decoded_exactly_once() {
    let server = start();
    let app = client(&server, &["--kv", "notes:read-write", "--blob", "images:read-write"]);
    for (path, key) in [
        ("a/b", "a/b"),
        ("a%2Fc", "a/c"),
        ("a%252Fd", "a%2Fd"),
        ("../up", "../up"),
        ("x/../y/./z", "x/../y/./z"),
        ("%2E%2E/dots", "../dots"),
        ("/leading//double/", "/leading//double/"),
        ("%C3%BCn%C3%AF/%F0%9F%94%91", "ünï/🔑"),
        ("with%20space+plus", "with space+plus"),
        ("q%3Fm%23h%25", "q?m#h%"),
        ("%00%0A", "\0\n"),
    ] {
        for (kind, store) in [("kv", "notes"), ("blob", "images")] {
            let path = format!("/api/{kind}/{store}/{path}");
            let put = app.call(Method::PUT, &path, &[], key.to_owned()).await;
            assert_eq!((put.status, &put.json()["key"]), (StatusCode::OK, &json!(key)), "{path}");
            assert_eq!(app.get(&path).await.text(), key, "{path}");
        }
    }
    let listed = app.get("/api/kv/notes?limit=1000").await.json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 11);
    for path in ["/api/kv/notes/%FF", "/api/kv/%FF/k", "/api/blob/images/%C3"] {
        assert_eq!(app.call(Method::PUT, path, &[], "x").await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    let long = "k".repeat(513);
    let answer = app.call(Method::PUT, &format!("/api/kv/notes/{long}"), &[], "x").await;
    assert_eq!(answer.error(), (413, "too_large".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_who_writes() {
    let server = start();
    let app = client(&server, &["--kv", "notes:read-write"]);
    let call = async |method: Method, headers: &[(&'static str, &str)], body: &'static str| {
        app.call(method, "/api/kv/notes/k", headers, body).await
    };
    assert_eq!(
        call(Method::PUT, &[("if-match", "*")], "no").await.error(),
        (412, "precondition_failed".to_owned())
    );
    let first = call(Method::PUT, &[("if-none-match", "*")], "1").await;
    let tag = first.header("etag").to_owned();
    assert_eq!(
        call(Method::PUT, &[("if-none-match", "*")], "no").await.status,
        StatusCode::PRECONDITION_FAILED
    );
    assert_eq!(call(Method::GET, &[("if-none-match", &tag)], "").await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(call(Method::GET, &[("if-match", "\"7\"")], "").await.status, StatusCode::PRECONDITION_FAILED);
    let second = call(Method::PUT, &[("if-match", &tag)], "2").await;
    assert_eq!(second.status, StatusCode::OK);
    assert_ne!(second.header("etag"), tag);
    assert_eq!(call(Method::PUT, &[("if-match", &tag)], "no").await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(call(Method::DELETE, &[("if-match", &tag)], "").await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(call(Method::GET, &[("if-none-match", &tag)], "").await.text(), "2");
    assert_eq!(call(Method::PUT, &[("if-match", "7")], "no").await.error(), (400, "invalid".to_owned()));
    let both = format!("\"7\", {}", second.header("etag"));
    assert_eq!(call(Method::DELETE, &[("if-match", &both)], "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(call(Method::GET, &[], "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_with_one_version_one_wins_and_increments_add_up() {
    let server = start();
    let app = client(&server, &["--kv", "notes:read-write"]);
    let tag = app.call(Method::PUT, "/api/kv/notes/k", &[], "0").await.header("etag").to_owned();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (app, tag) = (app.clone(), tag.clone());
        writers.spawn(async move {
            let headers = [("if-match", tag.as_str())];
            let method = if number % 2 == 0 { Method::PUT } else { Method::DELETE };
            let status = app.call(method, "/api/kv/notes/k", &headers, "x").await.status;
            let body = json!({ "increment": number, "ttl_ms": 60_000 }).to_string();
            assert_eq!(app.call(Method::POST, "/api/kv/notes/sum", &[], body).await.status, StatusCode::OK);
            status.is_success()
        });
    }
    let won = writers.join_all().await;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let body = json!({ "increment": -120 }).to_string();
    assert_eq!(
        app.call(Method::POST, "/api/kv/notes/sum", &[], body).await.json(),
        json!({"key": "sum", "value": 0})
    );
    assert!(app.get("/api/kv/notes/sum").await.headers.contains_key("tollgate-expires-ms"));
    app.call(Method::PUT, "/api/kv/notes/text", &[], "abc").await;
    let body = json!({ "increment": 1 }).to_string();
    assert_eq!(
        app.call(Method::POST, "/api/kv/notes/text", &[], body).await.error(),
        (400, "invalid".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_in_pages_within_the_scope() {
    let server = start();
    let all = client(&server, &["--kv", "notes:read-write"]);
    let entries: Vec<_> = (0..25).map(|n| json!({ "key": format!("a/{n:02}"), "value": "x" })).collect();
    let set = json!({ "set": { "entries": entries } }).to_string();
    assert_eq!(all.call(Method::POST, "/api/kv/notes", &[], set).await.json(), json!({ "written": 25 }));
    all.call(Method::PUT, "/api/kv/notes/b", &[], "x").await;
    let some = client(&server, &["--kv", "notes:read", "--prefix", "a/"]);
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = some.get(&format!("/api/kv/notes?limit=10{cursor}")).await.json();
        keys.extend(page["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()));
        match page["cursor"].as_str() {
            Some(at) => cursor = format!("&cursor={}", at.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(keys, (0..25).map(|n| format!("a/{n:02}")).collect::<Vec<_>>());
    assert_eq!(some.get("/api/kv/notes?prefix=a/2").await.json()["keys"].as_array().unwrap().len(), 5);
    for wrong in ["limit=0", "limit=1001", "limit=x", "order=desc"] {
        assert_eq!(
            some.get(&format!("/api/kv/notes?{wrong}")).await.error(),
            (400, "invalid".to_owned()),
            "{wrong}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keys_are_read_written_and_removed_at_once() {
    let server = start();
    let app = client(&server, &["--kv", "notes:read-write"]);
    let many =
        async |body: serde_json::Value| app.call(Method::POST, "/api/kv/notes", &[], body.to_string()).await;
    let entries = json!([{ "key": "t", "value": "text" }, { "key": "b", "value": { "hex": "00ff" } }]);
    assert_eq!(
        many(json!({ "set": { "entries": entries, "ttl_ms": 60_000 } })).await.json(),
        json!({ "written": 2 })
    );
    assert_eq!(&*app.get("/api/kv/notes/b").await.body, [0, 255]);
    let found = many(json!({ "get": ["b", "none", "t"] })).await.json();
    assert_eq!(
        (&found["entries"][0]["value"], &found["entries"][1]),
        (&json!({ "hex": "00ff" }), &json!(null))
    );
    assert_eq!(found["entries"][2]["value"], "text");
    assert!(found["entries"][2]["expires_ms"].as_u64() > Some(0) && found["entries"][2]["version"].is_u64());
    assert_eq!(many(json!({ "delete": ["b", "none"] })).await.json(), json!({ "deleted": 2 }));
    assert_eq!(many(json!({ "get": ["b"] })).await.json(), json!({ "entries": [null] }));
    for (wrong, field) in [
        (json!({}), "expected"),
        (json!({ "get": ["a"], "delete": ["a"] }), "expected"),
        (json!({ "got": [] }), "unknown variant `got`"),
        (json!({ "set": { "entries": [{ "key": "k", "value": { "hex": "0" } }] } }), "set.entries[0].value"),
        (json!({ "set": { "entries": [], "ttl_ms": 0 } }), "ttl_ms"),
        (json!({ "get": [""] }), "a key must not be empty"),
    ] {
        let answer = many(wrong).await;
        assert_eq!(answer.error(), (400, "invalid".to_owned()));
        assert!(answer.text().contains(field), "{}", answer.text());
    }
    let keys: Vec<_> = (0..1001).map(|key| key.to_string()).collect();
    assert_eq!(many(json!({ "get": keys })).await.error(), (413, "too_large".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_with_a_life_ends_with_it() {
    let server = start();
    let app = client(&server, &["--kv", "notes:read-write"]);
    for wrong in ["0", "3153600000001", "18446744073709551616", "-1"] {
        let answer = app.call(Method::PUT, &format!("/api/kv/notes/k?ttl_ms={wrong}"), &[], "x").await;
        assert_eq!(answer.error(), (400, "invalid".to_owned()), "{wrong}");
    }
    app.call(Method::PUT, "/api/kv/notes/k?ttl_ms=300", &[], "x").await;
    assert!(app.get("/api/kv/notes/k").await.header("tollgate-expires-ms").parse::<u64>().unwrap() > 0);
    eventually("the value is gone", async || {
        (app.get("/api/kv/notes/k").await.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
}
