//! Uploads in parts.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{client, start};
use crate::support::Client;

const KEY: &str = "/api/blob/images/large%20one";

/// Begins an upload; its id.
async fn begin(app: &Client, headers: &[(&'static str, &str)]) -> String {
    let begun = app.call(Method::POST, KEY, headers, "").await;
    assert_eq!((begun.status, &begun.json()["key"]), (StatusCode::CREATED, &json!("large one")));
    begun.json()["upload"].as_str().unwrap().to_owned()
}

/// Sends a part; its tag.
async fn part(app: &Client, id: &str, number: u32, bytes: Vec<u8>) -> String {
    let sent = app.call(Method::PUT, &format!("{KEY}?upload={id}&part={number}"), &[], bytes).await;
    assert_eq!((sent.status, &sent.json()["part"]), (StatusCode::OK, &json!(number)), "{}", sent.text());
    sent.json()["etag"].as_str().unwrap().to_owned()
}

async fn complete(
    app: &Client,
    id: &str,
    parts: &[&str],
    headers: &[(&'static str, &str)],
) -> crate::support::client::Answer {
    app.call(Method::POST, &format!("{KEY}?upload={id}"), headers, json!({ "parts": parts }).to_string())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_in_any_order_make_one_object() {
    let mut server = start();
    let token = super::token(&server, &["--blob", "images:read-write"]);
    let app = server.client(&token);
    let id = begin(&app, &[("content-type", "image/png"), ("tollgate-meta-by", "me")]).await;
    let pieces: Vec<Vec<u8>> =
        [300_000, 1, 200_000].map(|length| vec![b'a' + (length % 7) as u8; length]).to_vec();
    let third = part(&app, &id, 3, pieces[2].clone()).await;
    part(&app, &id, 1, b"sent again later".to_vec()).await;
    let (first, second) =
        (part(&app, &id, 1, pieces[0].clone()).await, part(&app, &id, 2, pieces[1].clone()).await);
    assert_eq!(app.get(KEY).await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get("/api/blob/images").await.json()["objects"], json!([]));

    server.crash_and_restart();
    let app = server.client(&token);
    let come = app.get(&format!("{KEY}?upload={id}")).await.json();
    let tags: Vec<_> = come["parts"].as_array().unwrap().iter().map(|part| part["etag"].clone()).collect();
    assert_eq!(tags, [Value::from(first.as_str()), second.as_str().into(), third.as_str().into()]);
    let done = complete(&app, &id, &[&first, &second, &third], &[("if-none-match", "*")]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    let whole = pieces.concat();
    assert_eq!(done.json()["etag"], hex::encode(Sha256::digest(&whole)));
    let got = app.get(KEY).await;
    assert!(*got.body == *whole);
    assert_eq!((got.header("content-type"), got.header("tollgate-meta-by")), ("image/png", "me"));
    assert_eq!(app.get(&format!("{KEY}?upload={id}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_together_makes_no_object() {
    let server = start();
    let app = client(&server, &["--blob", "images:read-write"]);
    let id = begin(&app, &[]).await;
    let one = part(&app, &id, 1, vec![1; 1000]).await;
    let three = part(&app, &id, 3, vec![3; 1000]).await;
    for parts in
        [vec![], vec![one.as_str()], vec![&one, &three], vec![&three, &one], vec![&one, &one, &three]]
    {
        assert_eq!(complete(&app, &id, &parts, &[]).await.error(), (409, "conflict".to_owned()), "{parts:?}");
    }
    for (method, query, status) in [
        (Method::PUT, format!("upload={id}&part=0"), 400),
        (Method::PUT, format!("upload={id}&part=10001"), 400),
        (Method::PUT, format!("upload={id}"), 400),
        (Method::PUT, "part=1".to_owned(), 400),
        (Method::POST, format!("upload={id}&part=1"), 400),
        (Method::PUT, format!("upload={}&part=1", "0".repeat(32)), 404),
        (Method::PUT, "upload=..%2F..%2Fcats&part=1".to_owned(), 404),
        (Method::DELETE, "upload=x".to_owned(), 404),
        (Method::GET, "upload=".to_owned(), 404),
    ] {
        let answer = app.call(method.clone(), &format!("{KEY}?{query}"), &[], "x").await;
        assert_eq!(answer.status.as_u16(), status, "{method} {query}: {}", answer.text());
    }
    // An upload belongs to its key: another key's scope does not reach it.
    let other = app.call(Method::PUT, &format!("/api/blob/images/other?upload={id}&part=2"), &[], "x").await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let two = part(&app, &id, 2, vec![2; 4_000_000]).await;
    let large = complete(&app, &id, &[&one, &two, &three], &[]).await;
    assert_eq!(large.error(), (413, "too_large".to_owned()));
    part(&app, &id, 2, vec![2; 1000]).await;
    let give_up = app.call(Method::DELETE, &format!("{KEY}?upload={id}"), &[], "").await;
    assert_eq!(give_up.status, StatusCode::NO_CONTENT);
    assert_eq!(complete(&app, &id, &[&one], &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_completes_have_a_number_that_they_do_not_pass() {
    let server = start();
    let app = client(&server, &["--blob", "images:read-write"]);
    let first = begin(&app, &[]).await;
    for _ in 1..100 {
        begin(&app, &[]).await;
    }
    assert_eq!(app.call(Method::POST, KEY, &[], "").await.error(), (409, "conflict".to_owned()));
    app.call(Method::DELETE, &format!("{KEY}?upload={first}"), &[], "").await;
    begin(&app, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_uploads_are_listed_within_the_scope() {
    let server = start();
    let all = client(&server, &["--blob", "images:read-write"]);
    let mut begun = Vec::new();
    for key in ["a/1", "b/1", "a/2"] {
        let answer = all.call(Method::POST, &format!("/api/blob/images/{key}"), &[], "").await;
        begun.push((key.to_owned(), answer.json()["upload"].as_str().unwrap().to_owned()));
    }
    let list = async |app: &Client, query: &str| {
        let uploads = app.get(&format!("/api/uploads/images{query}")).await.json()["uploads"].clone();
        let uploads = uploads.as_array().unwrap().clone();
        assert!(uploads.iter().all(|upload| upload["begun_ms"].as_u64() > Some(1_500_000_000_000)));
        let text = |upload: &Value, field: &str| upload[field].as_str().unwrap().to_owned();
        let mut uploads: Vec<_> = uploads.iter().map(|one| (text(one, "key"), text(one, "upload"))).collect();
        uploads.sort();
        uploads
    };
    begun.sort();
    assert_eq!(list(&all, "").await, begun);
    assert_eq!(list(&all, "?prefix=b%2F").await, begun[2..]);
    let some = client(&server, &["--blob", "images:read", "--prefix", "a/"]);
    assert_eq!(list(&some, "").await, begun[..2]);
    assert_eq!(some.get("/api/uploads/images?prefix=b%2F").await.error(), (403, "scope_missing".to_owned()));
    assert_eq!(some.get("/api/uploads/other").await.error(), (403, "scope_missing".to_owned()));
    let (key, id) = &begun[0];
    all.call(Method::DELETE, &format!("/api/blob/images/{key}?upload={id}"), &[], "").await;
    assert_eq!(list(&all, "").await, begun[1..]);
}
