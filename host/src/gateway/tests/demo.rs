//! The demo upstream through the gateway, as an SDK uses it.

use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::{Answer, World, whole};
use crate::gateway::demo;

async fn world() -> World {
    World::start(demo::accounts(demo::start(CancellationToken::new()).await.unwrap())).await
}

async fn post(world: &World, path: &str, body: Value) -> Answer {
    let answer = whole(world.send(Method::POST, path, body.to_string()).await).await;
    assert_eq!(answer.status, 200, "{path} {:?}", answer.body);
    answer
}

fn events(answer: &Answer) -> Vec<Value> {
    let text = std::str::from_utf8(&answer.body).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn it_chats_plainly_and_in_streams_with_exact_usage() {
    let world = world().await;
    let mut body =
        json!({ "model": "demo-chat", "messages": [{ "role": "user", "content": "one two three" }] });
    let plain = post(&world, "/v1/chat/completions", body.clone()).await.json();
    assert_eq!(plain["choices"][0]["message"]["content"], "You said: one two three");
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let stream = post(&world, "/v1/chat/completions", body).await;
    let events = events(&stream);
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "You said: one two three");
    assert_eq!(events.last().unwrap()["usage"], plain["usage"]);
    let (input, output) =
        (plain["usage"]["prompt_tokens"].as_u64(), plain["usage"]["completion_tokens"].as_u64());
    for event in world.events(2).await {
        assert_eq!((Some(event.input_tokens), Some(event.output_tokens)), (input, output));
        assert_eq!(event.account_name, "demo");
    }
}

#[tokio::test]
async fn it_embeds_in_both_encodings() {
    let world = world().await;
    let body = |format: &str| json!({ "model": "demo-embedding", "input": ["one", "two"], "encoding_format": format });
    let floats = post(&world, "/v1/embeddings", body("float")).await.json();
    let encoded = post(&world, "/v1/embeddings", body("base64")).await.json();
    assert_eq!(floats["data"][1]["embedding"].as_array().unwrap().len(), 64);
    assert_eq!(encoded["data"][1]["embedding"].as_str().unwrap().len(), (64_usize * 4).div_ceil(3) * 4);
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 2, "total_tokens": 2 }));
}

#[tokio::test]
async fn it_completes_and_responds() {
    let world = world().await;
    let body = json!({ "model": "demo-chat", "prompt": "hello", "input": "hello", "max_output_tokens": 2 });
    let completion = post(&world, "/v1/completions", body.clone()).await.json();
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
    let mut body = json!({ "model": "demo-chat", "input": [{ "role": "user", "content": "hello" }] });
    let response = post(&world, "/v1/responses", body.clone()).await.json();
    assert_eq!(response["output"][0]["content"][0]["text"], "You said: hello");
    body["stream"] = json!(true);
    let stream = events(&post(&world, "/v1/responses", body).await);
    assert_eq!(stream.last().unwrap()["response"], response);
    let logged = world.events(3).await;
    assert_eq!(
        (logged[2].input_tokens, logged[2].output_tokens),
        (logged[1].input_tokens, logged[1].output_tokens)
    );
}

#[tokio::test]
async fn it_answers_messages_plainly_in_streams_and_with_tools() {
    let world = world().await;
    let mut body = json!({
        "model": "demo-chat", "max_tokens": 100, "system": "Be brief.",
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": "one two three" }] }],
    });
    let plain = post(&world, "/v1/messages", body.clone()).await.json();
    assert_eq!(plain["content"], json!([{ "type": "text", "text": "You said: one two three" }]));
    assert_eq!(plain["stop_reason"], "end_turn");
    let counted = post(&world, "/v1/messages/count_tokens", body.clone()).await.json();
    assert_eq!(counted["input_tokens"], plain["usage"]["input_tokens"]);
    body["stream"] = json!(true);
    let events = events(&post(&world, "/v1/messages", body.clone()).await);
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(text, "You said: one two three");
    body["tools"] = json!([{ "name": "weather", "input_schema": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } }]);
    body["stream"] = json!(false);
    let called = post(&world, "/v1/messages", body).await.json();
    assert_eq!(called["content"][0]["input"], json!({ "city": "one two three" }));
    assert_eq!(called["stop_reason"], "tool_use");
    let logged = world.events(4).await;
    let used = |index: usize| (logged[index].input_tokens, logged[index].output_tokens);
    let told = |name: &str| plain["usage"][name].as_u64().unwrap();
    assert_eq!(used(0), (told("input_tokens"), told("output_tokens")));
    assert_eq!((used(1), used(2)), ((0, 0), used(0)));
    assert!(logged.iter().all(|event| event.client_type == "claude" && event.account_name == "demo"));
}

#[tokio::test]
async fn its_models_are_listed() {
    let world = world().await;
    let listed = whole(world.send(Method::GET, "/v1/models", "").await).await.json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, demo::MODELS);
}
