//! Vector indexes over the data API.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{client, start};
use crate::support::Client;
use crate::support::client::Answer;

const CAPTIONS: &str = "/api/vector/captions";

async fn call(app: &Client, body: Value) -> Answer {
    app.call(Method::POST, CAPTIONS, &[], body.to_string()).await
}

async fn done(app: &Client, body: Value) -> Value {
    let answer = call(app, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["matches"].as_array().unwrap().iter().map(|found| found["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_written_found_read_and_removed() {
    let mut server = start();
    let scope = ["--vector", "captions:read-write"];
    let app = client(&server, &scope);
    let cat = json!({ "id": "cat", "values": [1, 0.5, 0], "namespace": "pets",
        "metadata": { "kind": "image", "caption": "a \"cat\"", "size": { "width": 640 } } });
    let dog = json!({ "id": "dog", "values": [0.9, 0.75, 0], "metadata": { "kind": "text" } });
    let car = json!({ "id": "car", "values": [0, 0, -2] });
    assert_eq!(done(&app, json!({ "upsert": [cat, dog, car] })).await, json!({ "written": 3 }));
    let found = done(&app, json!({ "query": { "values": [1, 0.5, 0], "top_k": 2 } })).await;
    assert_eq!(ids(&found), ["cat", "dog"]);
    assert!((found["matches"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{found}");
    assert_eq!(found["matches"][1].as_object().unwrap().len(), 2, "only what was asked: {found}");

    let images = json!({ "query": { "id": "car", "filter": { "kind": "image" }, "return_metadata": "indexed",
        "return_values": true } });
    let found = done(&app, images).await;
    let score = found["matches"][0]["score"].clone();
    let expected = json!({ "id": "cat", "score": score, "namespace": "pets", "values": [1.0, 0.5, 0.0],
        "metadata": { "kind": "image" } });
    assert_eq!(found, json!({ "matches": [expected] }));
    let pets = json!({ "query": { "values": [0, 0, 1], "namespace": "pets", "return_metadata": "all" } });
    assert_eq!(done(&app, pets).await["matches"][0]["metadata"], cat["metadata"]);

    server.crash_and_restart();
    let app = client(&server, &scope);
    let read = done(&app, json!({ "get": ["dog", "none", "cat"] })).await;
    assert_eq!(read["vectors"][0]["values"], json!([0.9, 0.75, 0.0]));
    assert_eq!(read["vectors"][1]["metadata"], cat["metadata"]);
    assert_eq!(read["vectors"].as_array().unwrap().len(), 2);
    // What was read can be written again as it is.
    assert_eq!(done(&app, json!({ "upsert": read["vectors"] })).await, json!({ "written": 2 }));
    let taken = call(&app, json!({ "insert": [{ "id": "new", "values": [1, 1, 1] }, car] })).await;
    assert_eq!(taken.error(), (409, "conflict".to_owned()));
    assert_eq!(done(&app, json!({ "get": ["new"] })).await, json!({ "vectors": [] }), "all or nothing");
    assert_eq!(done(&app, json!({ "delete": ["car", "none"] })).await, json!({ "deleted": 1 }));
    let info = app.get(CAPTIONS).await.json();
    assert_eq!((&info["vectors"], &info["dimensions"]), (&json!(2), &json!(3)));
    assert_eq!((&info["metric"], &info["indexed"]), (&json!("cosine"), &json!(["kind"])));
    let gone = call(&app, json!({ "query": { "id": "car" } })).await;
    assert_eq!(gone.error(), (404, "not_found".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_vector_or_query_is_refused_with_its_place() {
    let server = start();
    let app = client(&server, &["--vector", "captions:read-write"]);
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let vector =
        |values: &str, rest: &str| format!("{{\"upsert\": [{{\"id\": \"a\", \"values\": {values}{rest}}}]}}");
    let query = |rest: &str| format!("{{\"query\": {{\"values\": [1, 0, 0]{rest}}}}}");
    for (body, status, reason) in [
        (String::new(), 400, "EOF"),
        (deep.clone(), 400, "the body"),
        (vector(&deep, ""), 400, "values[0]"),
        (vector("[1, 0, 0]", &format!(", \"metadata\": {deep}")), 413, "metadata"),
        (vector("[1, 0, 0]", ", \"metadata\": [1]"), 400, "metadata"),
        (
            vector(
                "[1, 0, 0]",
                &format!(", \"metadata\": {{\"a\": {}1{}}}", "[".repeat(500), "]".repeat(500)),
            ),
            400,
            "recursion",
        ),
        (vector("[1, 0]", ""), 400, "has 2 values, and the index 3 dimensions"),
        (vector("[1, NaN, 0]", ""), 400, "values[1]"),
        (vector("[1, 1e39, 0]", ""), 400, "is not a finite number"),
        (vector("[1, 1e999, 0]", ""), 400, "values[1]"),
        (vector("[1, null, 0]", ""), 400, "values[1]"),
        (vector("[1, \"1\", 0]", ""), 400, "values[1]"),
        (vector("[1, 0, 0]", ", \"colour\": 1"), 400, "unknown field `colour`"),
        (vector("[1, 0, 0]", &format!(", \"namespace\": \"{}\"", "n".repeat(65))), 413, "namespace"),
        (vector(&format!("[{}0]", "0,".repeat(2_000_000)), ""), 400, "has 4097 values"),
        ("{\"upsert\": [{\"id\": \"\", \"values\": [1, 0, 0]}]}".to_owned(), 400, "an id must not be empty"),
        (json!({ "delete": vec!["x"; 1_001] }).to_string(), 413, "at most 1000 ids"),
        (json!({ "get": vec!["x"; 101] }).to_string(), 413, "at most 100 ids"),
        (
            format!("{{\"insert\": [{}]}}", vec!["{\"id\":\"a\",\"values\":[]}"; 1_001].join(",")),
            413,
            "at most 1000 vectors",
        ),
        (query(", \"top_k\": 0"), 400, "top-k is 1 to 100"),
        (query(", \"top_k\": 4000000000"), 400, "top-k is 1 to 100"),
        (query(", \"top_k\": 18446744073709551615"), 400, "u32"),
        (query(", \"id\": \"a\""), 400, "either `values` or `id`"),
        ("{\"query\": {}}".to_owned(), 400, "either `values` or `id`"),
        (query(", \"filter\": {}"), 400, "it is empty"),
        (query(", \"filter\": {\"size\": 1}"), 400, "is not indexed"),
        (query(&format!(", \"filter\": {{\"kind\": {deep}}}")), 400, "a filter has at most"),
        (query(", \"return_metadata\": \"some\""), 400, "unknown variant `some`"),
        ("{\"query\": {\"id\": \"a\"}, \"get\": []}".to_owned(), 400, "expected"),
    ] {
        let shown = body.get(..80.min(body.len())).unwrap().to_owned();
        let answer = app.call(Method::POST, CAPTIONS, &[], body).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.text());
        assert!(answer.text().contains(reason), "{shown}: {}", answer.text());
    }
    assert_eq!(app.get(CAPTIONS).await.json()["vectors"], 0);
    let whole = app.call(Method::POST, CAPTIONS, &[], vec![b' '; (4 << 20) + 1]).await;
    assert_eq!(whole.error(), (413, "too_large".to_owned()));
}
