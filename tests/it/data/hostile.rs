//! Clients of the data API that mean harm.

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::stream::{head, request};
use super::{client, start, token};
use crate::support::{Setup, eventually};

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
async fn bodies_that_stand_still_keep_nobody_else_out() {
    let server = start();
    let token = token(&server, &["--kv", "notes:read-write"]);
    // As values these would be 250 MiB.
    let held: Vec<_> = (0..40)
        .map(|_| {
            let mut body = request(&server, &token, "POST /api/kv/notes", 4 << 20);
            body.write_all(&[b' '; 400_000]).unwrap();
            body
        })
        .collect();
    let app = server.client(&token);
    let large = serde_json::json!({ "get": vec!["k".repeat(500); 1000] }).to_string();
    for _ in 0..20 {
        assert_eq!(app.call(Method::POST, "/api/kv/notes", &[], large.clone()).await.status, StatusCode::OK);
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_more_in_memory_than_on_the_wire_is_bounded() {
    let server = start();
    let app = client(&server, &["--sql", "reports:read", "--kv", "notes:read-write"]);
    let before = server.peak_kib();
    let times = |item: &str| vec![item; 4_190_000 / (item.len() + 1)].join(",");
    let params = |item: &str| format!("{{\"sql\": \"select 1\", \"params\": [{}]}}", times(item));
    let value = |item: &str| {
        format!("{{\"set\": {{\"entries\": [{{\"key\": \"k\", \"value\": [{}]}}]}}}}", times(item))
    };
    for (path, body) in [
        ("/api/sql/reports", params("0")),
        ("/api/sql/reports", params("{\"\":0}")),
        ("/api/sql/reports", format!("{{\"batch\": [{}]}}", times("{\"sql\":\"\",\"params\":[0]}"))),
        ("/api/kv/notes", value("[]")),
        ("/api/kv/notes", format!("{{\"delete\": [{}]}}", times("\"\""))),
    ] {
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..24 {
            let (app, body) = (app.clone(), body.clone());
            asking.spawn(async move { app.call(Method::POST, path, &[], body).await.status });
        }
        for status in asking.join_all().await {
            assert!([400, 403, 413, 503].contains(&status.as_u16()), "{status}");
        }
        let more = server.peak_kib() - before;
        assert!(more < 600 * 1024, "{more} KiB after {:.60}", body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_no_more_memory_than_there_is_for_them() {
    let server = start();
    let token = token(&server, &["--kv", "notes:read-write"]);
    let app = server.client(&token);
    for key in 0..8 {
        // In JSON each byte is six.
        let put = app.call(Method::PUT, &format!("/api/kv/notes/{key}"), &[], vec![1; 1 << 20]).await;
        assert_eq!(put.status, StatusCode::OK);
    }
    let before = server.peak_kib();
    let stream = TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    // Streams on which the server may send nothing but heads.
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let get = |keys: Vec<&str>| serde_json::json!({ "get": keys }).to_string();
    let all = vec!["0", "1", "2", "3", "4", "5", "6", "7"];
    let mut held = Vec::new();
    for _ in 0..24 {
        let request = http::Request::post(format!("{}/api/kv/notes", server.url()))
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from(get(all.clone()))))
            .unwrap();
        held.push(sender.send_request(request).await.unwrap());
    }
    let refused = held.iter().filter(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE).count();
    assert_eq!((held[0].status(), refused), (StatusCode::OK, 22));
    let more = server.peak_kib() - before;
    assert!(more < 400 * 1024, "{more} KiB");
    // An answer that is not large needs no room.
    assert_eq!(app.get("/api/kv/notes").await.status, StatusCode::OK);
    drop(held);
    connection.abort();
    eventually("there is room again", async || {
        let answer = app.call(Method::POST, "/api/kv/notes", &[], get(all.clone())).await;
        (answer.status == StatusCode::OK && answer.json()["entries"].as_array().unwrap().len() == 8)
            .then_some(())
    })
    .await;
    assert_eq!(app.get("/api/kv/notes/0").await.body, vec![1; 1 << 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_statements_leave_readers_to_those_who_look_up_keys() {
    let mut server = start();
    let token = token(&server, &["--sql", "gateway:read:request_logs"]);
    let keys: Vec<_> = (0..10).map(|number| server.key(&format!("key {number}"), &[])).collect();
    // No key is remembered.
    server.crash_and_restart();
    let app = server.client(&token);
    let sql = "with recursive n (x) as (select 1 union all select x + 1 from n) select count(*) from n";
    let body = serde_json::json!({ "sql": sql }).to_string();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (app, body) = (app.clone(), body.clone());
        asking.spawn(async move { app.call(Method::POST, "/api/sql/gateway", &[], body).await.error() });
    }
    // From the first end on others are under way.
    let unavailable = (503, "unavailable".to_owned());
    assert_eq!(asking.join_next().await.unwrap().unwrap(), unavailable);
    let began = Instant::now();
    for key in keys {
        assert_eq!(server.client(&key).chat("gpt-test").await.status, StatusCode::OK);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(asking.join_all().await.iter().all(|error| *error == unavailable));
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
