//! Anthropic's dialect through the gateway.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

use super::support::{Answer, Received, Upstream, World, json_response, two, whole};
use crate::gateway::{AccountSpec, Dialect, tests::support::fed_stream};

const MESSAGE: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"123456"}]}"#;
const ANSWER: &str = r#"{"id":"msg_1","type":"message","content":[],"usage":{"input_tokens":3,
    "cache_creation_input_tokens":20,"cache_read_input_tokens":100,"output_tokens":5,
    "output_tokens_details":{"thinking_tokens":2}}}"#;

fn speaking(account: AccountSpec) -> AccountSpec {
    AccountSpec { dialect: Dialect::Anthropic, ..account }
}

async fn world(
    answer: impl Fn(&Received) -> Option<axum::response::Response> + Send + Sync + 'static,
) -> (Upstream, World) {
    let upstream = Upstream::start(answer).await;
    // The first account speaks another dialect and must never be asked.
    let accounts = vec![upstream.account("other"), speaking(upstream.account("main"))];
    let world = World::start(accounts).await;
    (upstream, world)
}

async fn ask(
    world: &World,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("{}{path}", world.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    whole(world.request(request.body(Full::from(body)).unwrap()).await).await
}

#[tokio::test]
async fn a_message_reaches_the_account_with_its_key_and_is_recorded_with_all_that_was_used() {
    let (upstream, world) = world(|_| {
        let mut response = json_response(200, ANSWER);
        for name in ["request-id", "anthropic-organization-id", "anthropic-ratelimit-tokens-limit"] {
            response.headers_mut().insert(name, "theirs".parse().unwrap());
        }
        Some(response)
    })
    .await;
    let headers = [
        ("x-api-key", world.key.as_str()),
        ("anthropic-version", "2030-01-01"),
        ("anthropic-beta", "a-feature"),
    ];
    let answer = ask(&world, Method::POST, "/v1/messages?beta=true", &headers, MESSAGE).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, ANSWER.as_bytes()));
    assert!(!answer.headers.contains_key("anthropic-organization-id"));
    assert!(!answer.headers.contains_key("anthropic-ratelimit-tokens-limit"));
    let seen = upstream.seen().remove(0);
    assert_eq!((seen.path.as_str(), &*seen.body), ("/v1/messages?beta=true", MESSAGE.as_bytes()));
    assert_eq!(
        (&seen.headers["x-api-key"], &seen.headers["anthropic-version"]),
        (&"main".parse().unwrap(), &"2030-01-01".parse().unwrap())
    );
    assert_eq!(seen.headers["anthropic-beta"], "a-feature");
    assert!(!seen.headers.contains_key("authorization"));
    let event = world.event().await;
    assert_eq!(
        (&answer.headers["request-id"], &answer.headers["x-request-id"]),
        (&event.request_id.parse().unwrap(), &event.request_id.parse().unwrap())
    );
    assert_eq!((event.client_type.as_str(), event.endpoint.as_str()), ("claude", "/v1/messages"));
    assert_eq!((event.input_tokens, event.output_tokens), (123, 5));
    assert_eq!((event.cache_read_tokens, event.cache_write_tokens, event.reasoning_tokens), (100, 20, 2));
}

#[tokio::test]
async fn a_bearer_token_does_as_well_and_a_version_is_added_where_there_is_none() {
    let (upstream, world) = world(|_| Some(json_response(200, ANSWER))).await;
    assert_eq!(world.send(Method::POST, "/v1/messages", MESSAGE).await.status(), 200);
    let seen = upstream.seen().remove(0);
    assert_eq!(seen.headers["anthropic-version"], "2023-06-01");
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn counting_tokens_is_forwarded_and_uses_none() {
    let (upstream, world) = world(|_| Some(json_response(200, r#"{"input_tokens":2095}"#))).await;
    let answer = whole(world.send(Method::POST, "/v1/messages/count_tokens", MESSAGE).await).await;
    assert_eq!(answer.json(), json!({ "input_tokens": 2095 }));
    assert_eq!(upstream.seen()[0].path, "/v1/messages/count_tokens");
    let event = world.event().await;
    assert_eq!((event.input_tokens, event.output_tokens, event.status_code), (0, 0, 200));
    assert_eq!((event.endpoint.as_str(), event.account_name.as_str()), ("/v1/messages/count_tokens", "main"));
}

#[tokio::test]
async fn a_stream_cut_after_its_start_counts_the_prompt_as_told_and_the_text_as_seen() {
    let (feed, response) = fed_stream();
    let response = std::sync::Mutex::new(Some(response));
    let (_, world) = world(move |_| response.lock().unwrap().take()).await;
    feed.send("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":40,\"output_tokens\":1}}}\n\n").await.unwrap();
    feed.send("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"123456\"}}\n\n").await.unwrap();
    feed.send("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n").await.unwrap();
    drop(feed);
    let body = r#"{"model":"m","stream":true,"messages":[]}"#;
    assert_eq!(whole(world.send(Method::POST, "/v1/messages", body).await).await.status, 200);
    let event = world.event().await;
    assert_eq!((event.input_tokens, event.output_tokens, event.is_stream), (40, 2, true));
    assert_eq!((event.has_error, event.error_message.as_deref()), (true, Some("Overloaded")));
}

#[tokio::test]
async fn refusals_have_anthropics_shape_and_the_requests_id() {
    let (upstream, world) = world(|_| Some(json_response(200, ANSWER))).await;
    let key = ("x-api-key", world.key.as_str());
    let version = ("anthropic-version", "2023-06-01");
    for (method, path, headers, body, status, kind) in [
        (Method::POST, "/v1/messages", vec![], MESSAGE, 401, "authentication_error"),
        (Method::POST, "/v1/messages", vec![("x-api-key", "tg-wrong")], MESSAGE, 401, "authentication_error"),
        (Method::POST, "/v1/messages", vec![key], "{", 400, "invalid_request_error"),
        (Method::POST, "/v1/messages", vec![key], r#"{"model":"x"}"#, 404, "not_found_error"),
        (Method::GET, "/v1/messages", vec![key], "", 405, "invalid_request_error"),
        (Method::GET, "/v1/messages/batches", vec![], "", 404, "not_found_error"),
        (Method::POST, "/v1/none", vec![version], "", 404, "not_found_error"),
        (Method::GET, "/v1/models", vec![version], "", 401, "authentication_error"),
        (Method::GET, "/v1/models/none", vec![key], "", 404, "not_found_error"),
        (Method::GET, "/v1/models/%ff", vec![key], "", 400, "invalid_request_error"),
    ] {
        let answer = ask(&world, method, path, &headers, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
        let id = answer.headers["request-id"].to_str().unwrap();
        let json = answer.json();
        assert_eq!((&json["type"], &json["error"]["type"]), (&json!("error"), &json!(kind)), "{path} {body}");
        assert_eq!(json["request_id"], id);
        assert!(json["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn an_overload_of_every_account_is_told_as_one() {
    let upstream = Upstream::start(|_| {
        let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        Some(json_response(529, body))
    })
    .await;
    let world = World::start(two(&upstream).into_iter().map(speaking).collect()).await;
    let answer = whole(world.send(Method::POST, "/v1/messages", MESSAGE).await).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (529, &json!("overloaded_error")));
    assert_eq!(upstream.seen().len(), 2);
    let event = world.event().await;
    assert_eq!(
        (event.status_code, event.error_message.as_deref()),
        (529, Some("the upstream answered 529: Overloaded"))
    );
}

#[tokio::test]
async fn an_account_without_credit_is_followed_by_another_and_a_wrong_request_by_none() {
    let unpaid = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#;
    let wrong =
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"}}"#;
    let is_paid = Arc::new(AtomicBool::new(false));
    let paid = is_paid.clone();
    let upstream = Upstream::start(move |received| {
        Some(match received.headers["x-api-key"] == "first" {
            true if paid.load(Ordering::SeqCst) => json_response(400, wrong),
            true => json_response(400, unpaid),
            false => json_response(200, ANSWER),
        })
    })
    .await;
    let world = World::start(two(&upstream).into_iter().map(speaking).collect()).await;
    let key = [("x-api-key", world.key.as_str())];
    let answer = ask(&world, Method::POST, "/v1/messages", &key, MESSAGE).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, ANSWER.as_bytes()));
    is_paid.store(true, Ordering::SeqCst);
    let answer = ask(&world, Method::POST, "/v1/messages", &key, MESSAGE).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (400, wrong.as_bytes()));
    let [made_good, refused] = &world.events(2).await[..] else { panic!("two requests") };
    let attempt = &made_good.attempts[0];
    assert_eq!((attempt.error_type.as_str(), attempt.status_code), ("upstream_payment", 400));
    assert_eq!((refused.error_type.as_str(), refused.account_name.as_str()), ("invalid_request", "first"));
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_who_asks_and_only_those_that_it_can_use() {
    let upstream = Upstream::start(|received| {
        let listed = r#"{"data":[{"type":"model","id":"claude-1"}],"has_more":false}"#;
        (received.path == "/v1/models?limit=1000").then(|| json_response(200, listed))
    })
    .await;
    let open = AccountSpec { models: Vec::new(), ..speaking(upstream.account("open")) };
    let world = World::start(vec![upstream.account("other"), open]).await;
    let key = ("x-api-key", world.key.as_str());
    let theirs = ask(&world, Method::GET, "/v1/models", &[key], "").await.json();
    let model = json!({ "type": "model", "id": "claude-1", "display_name": "claude-1", "created_at": "1970-01-01T00:00:00Z" });
    assert_eq!(
        theirs,
        json!({ "data": [model], "has_more": false, "first_id": "claude-1", "last_id": "claude-1" })
    );
    assert_eq!(ask(&world, Method::GET, "/v1/models/claude-1", &[key], "").await.json(), model);
    let ours = whole(world.send(Method::GET, "/v1/models", "").await).await.json();
    assert_eq!((&ours["object"], &ours["data"][0]["id"]), (&json!("list"), &json!("m")));
    assert_eq!(ours["data"].as_array().unwrap().len(), 1);
    let head = ask(&world, Method::HEAD, "/v1/models", &[key], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    let types: Vec<_> = world.events(4).await.into_iter().map(|event| event.client_type).collect();
    assert_eq!(types, ["claude", "claude", "openai", "claude"]);
}
