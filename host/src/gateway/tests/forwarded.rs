//! Requests that go well.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

use super::support::{Upstream, World, json_response, streaming_upstream, whole};
use crate::{gateway::AccountSpec, keys::NewKey};

const CHAT: &str = r#"{"model": "m",  "messages":[{"role":"user","content":"123456"}]}"#;
const ANSWER: &str =
    r#"{"id":"1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#;

#[tokio::test]
async fn a_plain_answer_passes_unchanged_and_is_recorded() {
    let upstream = Upstream::start(|_| Some(json_response(200, ANSWER))).await;
    let world = World::start(vec![upstream.account("main")]).await;
    let answer = world.chat(CHAT).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, ANSWER);
    let event = world.event().await;
    assert_eq!(answer.headers["x-request-id"], *event.request_id);
    assert_eq!((event.input_tokens, event.output_tokens), (7, 5));
    assert_eq!((event.status_code, event.has_error, event.error_message), (200, false, None));
    assert_eq!((event.model.as_str(), event.endpoint.as_str()), ("m", "/v1/chat/completions"));
    assert_eq!((event.client_name.as_str(), event.account_name.as_str()), ("user", "main"));
    assert_eq!((event.client_ip.as_str(), event.user_agent.as_str()), ("127.0.0.1", "a test"));
    assert_eq!((event.request_size, event.response_size), (CHAT.len() as u64, ANSWER.len() as u64));
    assert_eq!((event.time_ms, event.is_stream, event.client_type.as_str()), (1_000, false, "openai"));
    assert_eq!((event.client_key_hash.len(), event.api_key_hash.len()), (64, 64));
    assert_eq!(world.gateway.in_flight(), 0);
}

#[tokio::test]
async fn the_upstream_sees_the_accounts_key_and_the_very_body_but_nothing_of_the_clients() {
    let upstream = Upstream::start(|_| {
        let mut response = json_response(200, ANSWER);
        for (name, value) in
            [("set-cookie", "a=b"), ("openai-organization", "org"), ("x-mine", "1"), ("x-hop", "1")]
        {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        response.headers_mut().insert("connection", "x-hop".parse().unwrap());
        Some(response)
    })
    .await;
    let account = AccountSpec { base_url: format!("{}/below/v1", upstream.url), ..upstream.account("main") };
    let world = World::start(vec![account]).await;
    let request = Request::post(format!("{}/v1/chat/completions?a=b", world.url))
        .header("authorization", format!("Bearer {}", world.key))
        .header("cookie", "secret")
        .header("x-api-key", "theirs")
        .header("openai-organization", "theirs")
        .header("x-forwarded-for", "10.0.0.1")
        .header("accept-encoding", "gzip")
        .header("connection", "x-own-hop")
        .header("x-own-hop", "1")
        .header("x-kept", "yes")
        .header("content-type", "application/json")
        .body(Full::from(CHAT))
        .unwrap();
    let answer = whole(world.request(request).await).await;
    for absent in ["set-cookie", "openai-organization", "x-hop"] {
        assert!(!answer.headers.contains_key(absent), "{absent}");
    }
    assert_eq!(answer.headers["x-mine"], "1");
    let seen = upstream.seen().remove(0);
    assert_eq!((seen.path.as_str(), seen.key()), ("/below/v1/chat/completions?a=b", "main"));
    assert_eq!(seen.body, CHAT);
    for absent in
        ["cookie", "x-api-key", "openai-organization", "x-forwarded-for", "x-own-hop", "transfer-encoding"]
    {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert_eq!(seen.headers["x-kept"], "yes");
    assert_eq!(seen.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte_as_it_comes() {
    use http_body_util::BodyExt;
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    let body = r#"{"model":"m","stream":true,"messages":[{"content":"123456"}]}"#;
    feed.send("data: {\"choices\":[{\"delta\":{\"content\":\"abcdef\"}}]}\r\n\r\n").await.unwrap();
    let mut response = world.send(Method::POST, "/v1/chat/completions", body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    // The first event is here while the upstream has sent no other.
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "data: {\"choices\":[{\"delta\":{\"content\":\"abcdef\"}}]}\r\n\r\n");
    let rest = ": comment\n\ndata: [DONE]\n\n";
    feed.send(rest).await.unwrap();
    drop(feed);
    assert_eq!(whole(response).await.body, rest);
    let event = world.event().await;
    assert_eq!((event.input_tokens, event.output_tokens), (2, 2), "counted from what was seen");
    assert_eq!((event.is_stream, event.status_code, event.has_error), (true, 200, false));
    assert_eq!(event.response_size, (first.len() + rest.len()) as u64);
}

#[tokio::test]
async fn every_endpoint_reads_its_own_usage() {
    let answer = r#"{"object":"x","usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}"#;
    let upstream = Upstream::start(move |received| {
        let embeddings = r#"{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}"#;
        Some(json_response(200, if received.path.ends_with("embeddings") { embeddings } else { answer }))
    })
    .await;
    let world = World::start(vec![upstream.account("main")]).await;
    for path in ["/v1/completions", "/v1/embeddings", "/v1/responses"] {
        let body = r#"{"model":"m","input":"abc","prompt":"abc"}"#;
        assert_eq!(world.send(Method::POST, path, body).await.status(), 200);
    }
    let used: Vec<_> =
        world.events(3).await.iter().map(|event| (event.input_tokens, event.output_tokens)).collect();
    assert_eq!(used, [(3, 4), (9, 0), (3, 4)]);
}

#[tokio::test]
async fn the_models_are_those_of_the_accounts_that_the_key_may_use() {
    let listed = r#"{"object":"list","data":[{"id":"open-1"},{"id":"m"}]}"#;
    let upstream = Upstream::start(move |_| Some(json_response(200, listed))).await;
    let open = AccountSpec { models: Vec::new(), ..upstream.account("open") };
    let world = World::start(vec![upstream.account("main"), open]).await;
    let ids = |answer: serde_json::Value| {
        answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let all = whole(world.send(Method::GET, "/v1/models", "").await).await;
    assert_eq!(ids(all.json()), ["m", "open-1"]);
    let new = NewKey::for_models("narrow", &["m"]);
    let narrow = world.keys.create(new).await.unwrap();
    let few = whole(world.send_as(&narrow, Method::GET, "/v1/models", "").await).await;
    assert_eq!(ids(few.json()), ["m"]);
    let one = whole(world.send(Method::GET, "/v1/models/open-1", "").await).await;
    assert_eq!((one.status.as_u16(), &one.json()["id"]), (200, &json!("open-1")));
    let hidden = whole(world.send_as(&narrow, Method::GET, "/v1/models/open-1", "").await).await;
    assert_eq!((hidden.status.as_u16(), &hidden.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(upstream.seen().len(), 1, "the upstream's list is kept");
    assert_eq!(world.events(4).await[3].status_code, 404);
}

#[tokio::test]
async fn requests_in_flight_end_well_after_the_order_to_stop() {
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    let response = world.send(Method::POST, "/v1/chat/completions", r#"{"model":"m","stream":true}"#).await;
    world.stop.cancel();
    feed.send("data: [DONE]\n\n").await.unwrap();
    drop(feed);
    assert_eq!(whole(response).await.body, "data: [DONE]\n\n");
    assert_eq!(world.event().await.status_code, 200);
}

#[tokio::test]
async fn an_upstream_that_could_not_list_its_models_is_soon_asked_again() {
    let down = Arc::new(AtomicBool::new(true));
    let state = down.clone();
    let upstream = Upstream::start(move |_| {
        Some(match state.load(Ordering::Relaxed) {
            true => json_response(500, "{}"),
            false => json_response(200, r#"{"data":[{"id":"open-1"}]}"#),
        })
    })
    .await;
    let account = AccountSpec { models: Vec::new(), ..upstream.account("open") };
    let world = World::start(vec![account]).await;
    let models = async || {
        let listed = whole(world.send(Method::GET, "/v1/models", "").await).await.json();
        listed["data"].as_array().unwrap().len()
    };
    assert_eq!(models().await, 0);
    down.store(false, Ordering::Relaxed);
    assert_eq!((models().await, upstream.seen().len()), (0, 1), "it is not asked at once");
    // As time does, long before a list that was given is forgotten.
    world.gateway.0.listings.failed.invalidate_all();
    assert_eq!(models().await, 1);
}
