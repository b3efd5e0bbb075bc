//! What a key may be used for: models, dialects and kinds of client.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::support::{Answer, Upstream, World, json_response, whole};
use crate::gateway::{AccountSpec, Dialect};
use crate::keys::{NewKey, Settings};

const ANSWER: &str = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

async fn world() -> (Upstream, World) {
    let upstream = Upstream::start(|_| Some(json_response(200, ANSWER))).await;
    let models = ["gpt-4o", "gpt-4o-mini", "o1", "o1-pro"].map(str::to_owned).to_vec();
    let accounts = vec![
        AccountSpec { models: models.clone(), ..upstream.account("main") },
        AccountSpec { dialect: Dialect::Anthropic, ..upstream.account("claude") },
    ];
    let world = World::start(accounts).await;
    (upstream, world)
}

async fn key(world: &World, settings: Value) -> String {
    let settings = Settings::default().patched(&settings).unwrap();
    world.keys.create(NewKey { name: "some".to_owned(), settings }).await.unwrap()
}

async fn post(world: &World, key: &str, path: &str, agent: &str, model: &str) -> Answer {
    let body = json!({ "model": model, "max_tokens": 1, "messages": [] }).to_string();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}{path}", world.url))
        .header("authorization", format!("Bearer {key}"))
        .header("user-agent", agent)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    whole(world.request(request).await).await
}

#[tokio::test]
async fn patterns_say_which_models_a_key_may_use_and_see() {
    let (upstream, world) = world().await;
    let key =
        key(&world, json!({ "models": ["gpt-4*", "o1*"], "forbidden_models": ["*-pro", "gpt-4o"] })).await;
    for (model, status) in [("gpt-4o-mini", 200), ("o1", 200), ("gpt-4o", 404), ("o1-pro", 404), ("x", 404)] {
        let answer = post(&world, &key, "/v1/chat/completions", "a test", model).await;
        assert_eq!(answer.status, status, "{model}");
        if status == 404 {
            assert_eq!(answer.json()["error"]["code"], "model_not_found");
        }
    }
    assert_eq!(upstream.seen().len(), 2);
    let listed = whole(world.send_as(&key, Method::GET, "/v1/models", "").await).await.json();
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["gpt-4o-mini", "o1"]);
}

#[tokio::test]
async fn a_key_for_one_kind_of_client_is_refused_to_others_in_their_own_shape_and_recorded() {
    let (upstream, world) = world().await;
    let key = key(&world, json!({ "clients": ["claude-code"] })).await;
    let coder = post(&world, &key, "/v1/messages", "claude-cli/2.0.14 (external, cli)", "m").await;
    assert_eq!(coder.status, 200);
    let other = post(&world, &key, "/v1/messages", "curl/8.5.0", "m").await;
    assert_eq!((other.status.as_u16(), &other.json()["error"]["type"]), (403, &json!("permission_error")));
    let message = "the api key may not be used by this kind of client (other)";
    assert_eq!(other.json()["error"]["message"], message);
    let listed = whole(world.send_as(&key, Method::GET, "/v1/models", "").await).await;
    assert_eq!(listed.status, 403);
    assert_eq!(upstream.seen().len(), 1);
    let events = world.events(3).await;
    assert_eq!((events[1].status_code, events[1].error_message.as_deref()), (403, Some(message)));
}

#[tokio::test]
async fn a_key_for_one_dialect_is_refused_in_others() {
    let (upstream, world) = world().await;
    let key = key(&world, json!({ "permissions": ["anthropic"] })).await;
    assert_eq!(post(&world, &key, "/v1/messages", "a test", "m").await.status, 200);
    let answer = post(&world, &key, "/v1/chat/completions", "a test", "gpt-4o").await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json()["error"]["message"], "the api key may not be used in the dialect openai");
    assert_eq!(upstream.seen().len(), 1);
}
