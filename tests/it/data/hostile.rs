//! Clients of the data API that mean harm.

use std::io::Write as _;

use http::{Method, StatusCode};

use super::stream::{head, request};
use super::{client, start, token};
use crate::support::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_stand_still_take_all_places_but_not_those_of_others() {
    let server = start();
    let token = token(&server, &["--blob", "images:read-write", "--kv", "notes:read-write"]);
    let app = server.client(&token);
    let mut held: Vec<_> =
        (0..16).map(|n| request(&server, &token, &format!("PUT /api/blob/images/{n}"), 1_000)).collect();
    held.iter_mut().for_each(|upload| upload.write_all(b"x").unwrap());
    let waits = async {
        // Whoever comes while a place is not yet taken just writes.
        loop {
            let answer = app.call(Method::PUT, "/api/blob/images/late", &[], "x").await;
            if answer.status != StatusCode::OK {
                return answer;
            }
        }
    };
    let answer = waits.await;
    assert_eq!((answer.error(), answer.header("retry-after")), ((503, "unavailable".to_owned()), "1"));
    assert_eq!(app.call(Method::PUT, "/api/kv/notes/k", &[], "x").await.status, StatusCode::OK);
    held.pop();
    assert_eq!(app.call(Method::PUT, "/api/blob/images/late", &[], "x").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_all_places_and_give_them_back() {
    let server = Setup::demo().config("[blob.images]").start();
    let token = token(&server, &["--blob", "images:read-write"]);
    let app = server.client(&token);
    // Larger than what sockets and the server hold of it.
    app.call(Method::PUT, "/api/blob/images/large", &[], vec![7; 20 << 20]).await;
    app.call(Method::PUT, "/api/blob/images/small", &[], "x").await;
    let mut held: Vec<_> =
        (0..256).map(|_| request(&server, &token, "GET /api/blob/images/large", 0)).collect();
    for download in &mut held {
        assert_eq!(head(download).0, 200);
    }
    let mut late = request(&server, &token, "GET /api/blob/images/large", 0);
    assert_eq!(head(&mut late).0, 503);
    assert_eq!(app.get("/api/blob/images/small").await.text(), "x");
    drop(held);
    assert_eq!(app.get("/api/blob/images/large").await.body.len(), 20 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_announced_and_not_sent_keep_nobody_else_out() {
    let server = start();
    let token = token(&server, &["--kv", "notes:read-write", "--sql", "reports:read"]);
    let held: Vec<_> = (0..200)
        .flat_map(|_| ["POST /api/kv/notes", "POST /api/sql/reports", "PUT /api/kv/notes/k"])
        .map(|line| request(&server, &token, line, 1 << 20))
        .collect();
    let app = server.client(&token);
    let large = serde_json::json!({ "get": vec!["k".repeat(500); 1000] }).to_string();
    assert_eq!(app.call(Method::POST, "/api/kv/notes", &[], large).await.status, StatusCode::OK);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_more_in_memory_than_on_the_wire_is_bounded() {
    let server = start();
    let app = client(&server, &["--sql", "reports:read"]);
    let before = server.peak_kib();
    let params = vec!["0"; 1_990_000].join(",");
    let body = format!("{{\"sql\": \"select 1\", \"params\": [{params}]}}");
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let (app, body) = (app.clone(), body.clone());
        asking.spawn(async move { app.call(Method::POST, "/api/sql/reports", &[], body).await.status });
    }
    for status in asking.join_all().await {
        assert!([400, 413, 503].contains(&status.as_u16()), "{status}");
    }
    let more = server.peak_kib() - before;
    assert!(more < 600 * 1024, "{more} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_wrong_are_refused_by_name() {
    let server = start();
    let app = client(&server, &["--blob", "images:read-write"]);
    let long = "x".repeat(3_000);
    let tags = vec!["\"x\""; 17].join(",");
    for (name, value, status) in [
        ("if-match", "x", 400),
        ("if-none-match", "\"x", 400),
        ("if-match", &tags, 413),
        ("content-range", "bytes 0-1/2", 400),
        ("content-encoding", "gzip", 415),
        ("content-type", &long, 413),
        ("cache-control", " ", 400),
        ("tollgate-meta-UPPER_CASE", "x", 400),
        ("tollgate-meta-", "x", 400),
        ("tollgate-meta-long", &long, 413),
    ] {
        let name: &'static str = Box::leak(name.to_ascii_lowercase().into_boxed_str());
        let answer = app.call(Method::PUT, "/api/blob/images/k", &[(name, value)], "x").await;
        assert_eq!(answer.status.as_u16(), status, "{name}: {}", answer.text());
    }
    assert_eq!(app.get("/api/blob/images/k").await.status, StatusCode::NOT_FOUND);
}

#[test]
#[ignore = "waits for half a minute; .ci/run runs it"]
fn an_upload_that_drips_is_ended() {
    let server = start();
    let token = token(&server, &["--blob", "images:read-write"]);
    let mut upload = request(&server, &token, "PUT /api/blob/images/k", 100_000);
    let dripping = std::thread::spawn({
        let mut upload = upload.try_clone().unwrap();
        move || {
            while upload.write_all(b"x").is_ok() {
                std::thread::sleep(std::time::Duration::from_secs(1))
            }
        }
    });
    assert_eq!(head(&mut upload).0, 408);
    drop(upload);
    dripping.join().unwrap();
}
