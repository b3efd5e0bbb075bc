//! Blob containers over the data API: what HTTP says of objects.

use http::{Method, StatusCode};

use super::{client, start};
use crate::support::Client;

const READ_WRITE: &[&str] = &["--blob", "images:read-write", "--blob", "other:read-write"];
const CAT: &str = "/api/blob/images/cats/1.png";

async fn call(
    app: &Client,
    method: Method,
    headers: &[(&'static str, &str)],
) -> crate::support::client::Answer {
    app.call(method, CAT, headers, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_served_as_browsers_and_caches_want_it() {
    let server = start();
    let app = client(&server, READ_WRITE);
    let headers = [("content-type", "image/png"), ("tollgate-meta-caption", "Kätzchen")];
    let put = app.call(Method::PUT, CAT, &headers, "0123456789").await;
    assert_eq!((put.status, put.json()["size"].as_u64()), (StatusCode::OK, Some(10)));
    let got = call(&app, Method::GET, &[]).await;
    assert_eq!((got.status, got.text().as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!(got.header("content-type"), "image/png");
    assert_eq!(got.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(got.header("accept-ranges"), "bytes");
    assert_eq!(got.header("etag"), put.header("etag"));
    assert_eq!(got.headers["tollgate-meta-caption"].as_bytes(), "Kätzchen".as_bytes());
    let (tag, date) = (got.header("etag"), got.header("last-modified"));

    let head = call(&app, Method::HEAD, &[]).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (StatusCode::OK, 0, "10"));
    assert_eq!((head.header("etag"), head.header("content-type")), (tag, "image/png"));
    for condition in [("if-none-match", tag), ("if-none-match", "*"), ("if-modified-since", date)] {
        for method in [Method::GET, Method::HEAD] {
            let answer = call(&app, method, &[condition]).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{condition:?}");
            assert_eq!(
                (answer.header("etag"), answer.header("cache-control")),
                (tag, got.header("cache-control"))
            );
        }
    }
    for condition in [("if-match", "\"x\""), ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")] {
        assert_eq!(
            call(&app, Method::GET, &[condition]).await.error(),
            (412, "precondition_failed".to_owned())
        );
    }
    assert_eq!(
        call(&app, Method::GET, &[("if-match", tag), ("if-none-match", "\"x\"")]).await.status,
        StatusCode::OK
    );
    let own = [("cache-control", "no-store"), ("content-type", "text/plain")];
    app.call(Method::PUT, CAT, &own, "x").await;
    assert_eq!(call(&app, Method::GET, &[]).await.header("cache-control"), "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_answered_as_the_standard_has_them() {
    let server = start();
    let app = client(&server, READ_WRITE);
    let tag = app.call(Method::PUT, CAT, &[], "0123456789").await.header("etag").to_owned();
    for (range, content, described) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=7-99999999999999999999", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
    ] {
        let got = call(&app, Method::GET, &[("range", range), ("if-range", &tag)]).await;
        assert_eq!((got.status, got.text().as_str()), (StatusCode::PARTIAL_CONTENT, content), "{range}");
        assert_eq!((got.header("content-range"), got.header("etag")), (described, tag.as_str()));
        assert_eq!(got.header("content-length"), content.len().to_string());
    }
    for range in ["bytes=10-", "bytes=99999999999999999999-", "bytes=-0"] {
        let got = call(&app, Method::GET, &[("range", range)]).await;
        assert_eq!(
            (got.error(), got.header("content-range")),
            ((416, "out_of_range".to_owned()), "bytes */10")
        );
    }
    for range in ["bytes=5-2", "bytes=0-1,5-6", "lines=1-2", "bytes", "bytes=a-"] {
        let got = call(&app, Method::GET, &[("range", range)]).await;
        assert_eq!((got.status, got.body.len()), (StatusCode::OK, 10), "{range}");
    }
    let changed = call(&app, Method::GET, &[("range", "bytes=0-0"), ("if-range", "\"old\"")]).await;
    assert_eq!((changed.status, changed.body.len()), (StatusCode::OK, 10));
    let kept = call(&app, Method::GET, &[("range", "bytes=0-0"), ("if-none-match", &tag)]).await;
    assert_eq!(kept.status, StatusCode::NOT_MODIFIED);
    let head = call(&app, Method::HEAD, &[("range", "bytes=0-0")]).await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "10"));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_who_writes_and_what_is_removed() {
    let server = start();
    let app = client(&server, READ_WRITE);
    let put = async |headers: &[(&'static str, &str)], body: &'static str| {
        app.call(Method::PUT, CAT, headers, body).await
    };
    assert_eq!(put(&[("if-match", "*")], "no").await.error(), (412, "precondition_failed".to_owned()));
    let tag = put(&[("if-none-match", "*")], "1").await.header("etag").to_owned();
    assert_eq!(put(&[("if-none-match", "*")], "no").await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(put(&[("if-match", &tag)], "2").await.status, StatusCode::OK);
    assert_eq!(put(&[("if-match", &tag)], "no").await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        call(&app, Method::DELETE, &[("if-match", &tag)]).await.status,
        StatusCode::PRECONDITION_FAILED
    );
    assert_eq!(call(&app, Method::GET, &[]).await.text(), "2");
    for _ in 0..2 {
        assert_eq!(call(&app, Method::DELETE, &[]).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(call(&app, Method::GET, &[]).await.error(), (404, "not_found".to_owned()));
    assert_eq!(call(&app, Method::GET, &[("if-match", "*")]).await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(call(&app, Method::HEAD, &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_listed_with_prefix_and_delimiter_within_the_scope() {
    let server = start();
    let app = client(&server, READ_WRITE);
    for key in ["cats/1", "cats/2", "dogs/1", "dogs/old/1", "top"] {
        app.call(Method::PUT, &format!("/api/blob/images/{key}"), &[], key).await;
    }
    let keys = |page: &serde_json::Value| {
        let objects = page["objects"].as_array().unwrap().iter();
        objects.map(|object| object["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let page = app.get("/api/blob/images?delimiter=/").await.json();
    assert_eq!(
        (keys(&page), &page["prefixes"]),
        (vec!["top".to_owned()], &serde_json::json!(["cats/", "dogs/"]))
    );
    let page = app.get("/api/blob/images?prefix=dogs/&delimiter=/").await.json();
    assert_eq!(
        (keys(&page), &page["prefixes"]),
        (vec!["dogs/1".to_owned()], &serde_json::json!(["dogs/old/"]))
    );
    let first = app.get("/api/blob/images?limit=2").await.json();
    assert_eq!(keys(&first), ["cats/1", "cats/2"]);
    let next = app.get("/api/blob/images?limit=1000&cursor=cats%2F2").await.json();
    assert_eq!(
        (first["cursor"].as_str(), keys(&next).len(), next["cursor"].is_null()),
        (Some("cats/2"), 3, true)
    );
    let dogs = client(&server, &["--blob", "images:read", "--prefix", "dogs/"]);
    assert_eq!(keys(&dogs.get("/api/blob/images").await.json()), ["dogs/1", "dogs/old/1"]);
    for wrong in ["limit=0", "delimiter=", "sort=x"] {
        assert_eq!(
            app.get(&format!("/api/blob/images?{wrong}")).await.status,
            StatusCode::BAD_REQUEST,
            "{wrong}"
        );
    }
}
