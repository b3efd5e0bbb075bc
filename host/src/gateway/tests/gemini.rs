//! Gemini's dialect through the gateway: where models, methods and keys stand, and what upstreams say only in bodies.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::support::{Answer, Upstream, World, json_response, two, whole};
use crate::{
    gateway::{AccountSpec, Dialect, demo},
    keys::NewKey,
};

const BODY: &str = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
const ANSWER: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hello"}]},"finishReason":"STOP"}],
    "usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4,"thoughtsTokenCount":5,"totalTokenCount":12}}"#;
const PATH: &str = "/v1beta/models/m:generateContent";
const BAD_KEY: &str = r#"{"error":{"code":400,"message":"API key not valid: account-secret","status":"INVALID_ARGUMENT",
    "details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#;

fn speaking(account: AccountSpec) -> AccountSpec {
    AccountSpec { dialect: Dialect::Gemini, ..account }
}

/// One account for any model at an upstream that always gives this answer.
async fn world(status: u16, answer: &'static str) -> (Upstream, World) {
    let upstream = Upstream::start(move |_| Some(json_response(status, answer))).await;
    let account = AccountSpec { models: Vec::new(), ..speaking(upstream.account("account-secret")) };
    let world = World::start(vec![account]).await;
    (upstream, world)
}

async fn ask(world: &World, method: Method, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("{}{target}", world.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    whole(world.request(request.body(Full::new(Bytes::from(BODY))).unwrap()).await).await
}

async fn post(world: &World, target: &str) -> Answer {
    ask(world, Method::POST, target, &[("x-goog-api-key", &world.key)]).await
}

fn error(answer: &Answer) -> (u16, Value) {
    let error = answer.json()["error"].take();
    assert_eq!(error["code"], answer.status.as_u16(), "{error}");
    (answer.status.as_u16(), error["status"].clone())
}

#[tokio::test]
async fn a_request_is_sent_as_it_came_but_for_the_key() {
    let (upstream, world) = world(200, ANSWER).await;
    for (target, sent) in [
        ("/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent"),
        ("/v1/models/m:generateContent?$alt=json", "/v1/models/m:generateContent"),
        ("/v1/models/meta/llama%203:countTokens", "/v1/models/meta/llama%203:countTokens"),
        ("/v1beta/models/a%2Fb:embedContent?quotaUser=x", "/v1beta/models/a%2Fb:embedContent"),
        (
            "/v1beta/models/llama3:8b:streamGenerateContent?alt=sse",
            "/v1beta/models/llama3:8b:streamGenerateContent?alt=sse",
        ),
    ] {
        let (about, not) = (("x-goog-api-client", "a-test"), ("x-goog-user-project", "my-project"));
        let headers =
            [("x-goog-api-key", world.key.as_str()), about, not, ("x-goog-fieldmask", "candidates")];
        let answer = ask(&world, Method::POST, target, &headers).await;
        assert_eq!((answer.status, answer.body), (StatusCode::OK, Bytes::from(ANSWER)), "{target}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!((seen.path.as_str(), &seen.body[..]), (sent, BODY.as_bytes()));
        assert_eq!(seen.headers["x-goog-api-key"], "account-secret");
        assert_eq!(seen.headers["x-goog-api-client"], "a-test");
        for gone in ["authorization", "x-goog-user-project", "x-goog-fieldmask"] {
            assert_eq!(seen.headers.get(gone), None);
        }
    }
    let events = world.events(5).await;
    let models: Vec<_> = events.iter().map(|event| event.model.as_str()).collect();
    assert_eq!(models, ["m", "m", "meta/llama 3", "a/b", "llama3:8b"]);
    let endpoints: Vec<_> = events.iter().map(|event| event.endpoint.as_str()).collect();
    assert_eq!(endpoints[0], "/v1beta/models/{model}:generateContent");
    assert_eq!(endpoints[2], "/v1/models/{model}:countTokens");
    let used: Vec<_> = events.iter().map(|event| (event.input_tokens, event.output_tokens)).collect();
    assert_eq!(used, [(3, 9), (3, 9), (0, 0), (3, 9), (3, 9)]);
    assert_eq!((events[4].is_stream, events[0].is_stream), (true, false));
    assert!(events.iter().all(|event| event.client_type == "gemini"));
}

#[tokio::test]
async fn a_key_may_stand_in_the_query_and_goes_no_further() {
    let (upstream, world) = world(200, ANSWER).await;
    let (key, with_key) = (world.key.clone(), format!("{PATH}?key={}&alt=sse", world.key));
    assert_eq!(ask(&world, Method::POST, &with_key, &[]).await.status, 200);
    // The header's comes first.
    let both = format!("{PATH}?key=tg-other");
    assert_eq!(ask(&world, Method::POST, &both, &[("x-goog-api-key", &key)]).await.status, 200);
    for (target, headers) in [
        (with_key.clone(), vec![("x-goog-api-key", "tg-other")]),
        (both, Vec::new()),
        (PATH.to_owned(), Vec::new()),
        (format!("{PATH}?key="), Vec::new()),
        (PATH.to_owned(), vec![("authorization", "Basic x")]),
    ] {
        let answer = ask(&world, Method::POST, &target, &headers).await;
        assert_eq!(error(&answer), (401, json!("UNAUTHENTICATED")), "{target}");
        assert_eq!(answer.json()["error"]["details"][0]["reason"], "API_KEY_INVALID");
        assert!(!String::from_utf8_lossy(&answer.body).contains("tg-"), "{:?}", answer.body);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for request in seen {
        assert!(!format!("{request:?}").contains(&key) && !format!("{request:?}").contains("tg-other"));
    }
    for event in world.events(2).await {
        assert!(!serde_json::to_string(&event).unwrap().contains(&key));
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused_in_googles_shape_and_never_sent() {
    let (upstream, world) = world(200, ANSWER).await;
    let header = [("x-goog-api-key", world.key.as_str())];
    for (method, target, code, status) in [
        (Method::POST, "/v1beta/models/m:foo", 404, "NOT_FOUND"),
        (Method::POST, "/v1beta/models/m:", 404, "NOT_FOUND"),
        (Method::POST, "/v1/models/m:predict", 404, "NOT_FOUND"),
        (Method::POST, "/v1beta/models/m%3AgenerateContent:foo", 404, "NOT_FOUND"),
        (Method::POST, "/v1beta/tunedModels/m:generateContent", 404, "NOT_FOUND"),
        (Method::GET, "/v1beta/files", 404, "NOT_FOUND"),
        (Method::GET, PATH, 405, "UNIMPLEMENTED"),
        (Method::POST, "/v1beta/models", 405, "UNIMPLEMENTED"),
        (Method::POST, "/v1beta/models/m", 405, "UNIMPLEMENTED"),
        (Method::POST, "/v1beta/models/:generateContent", 400, "INVALID_ARGUMENT"),
        (Method::POST, "/v1beta/models/%FF:generateContent", 400, "INVALID_ARGUMENT"),
        (Method::POST, "/v1beta/models/..%2FtunedModels%2Fm:generateContent", 404, "NOT_FOUND"),
        (Method::POST, "/v1beta/models/../tunedModels/m:generateContent", 404, "NOT_FOUND"),
        (Method::POST, "/v1beta/models/a//b:generateContent", 404, "NOT_FOUND"),
        (Method::GET, "/v1beta/models/nobodys", 404, "NOT_FOUND"),
        (Method::GET, "/v1/models/nobodys", 404, "NOT_FOUND"),
    ] {
        let answer = ask(&world, method, target, &header).await;
        assert_eq!(error(&answer), (code, json!(status)), "{target}");
    }
    // The last two asked the upstream for its models.
    assert!(upstream.seen().iter().all(|request| request.path.starts_with("/v1beta/models?")));
}

#[tokio::test]
async fn a_key_for_some_models_reads_their_names_decoded() {
    let (_, world) = world(200, ANSWER).await;
    let key = world.keys.create(NewKey::for_models("some", &["meta/llama 3"])).await.unwrap();
    for (model, status) in [
        ("meta/llama%203", 200),
        ("meta%2Fllama%203", 200),
        ("meta/llama%25203", 404),
        ("meta/llama", 404),
        ("m", 404),
    ] {
        let target = format!("/v1beta/models/{model}:generateContent");
        let answer = ask(&world, Method::POST, &target, &[("x-goog-api-key", &key)]).await;
        assert_eq!(answer.status, status, "{model}");
    }
}

#[tokio::test]
async fn models_are_listed_in_the_dialect_that_the_key_speaks() {
    let world = World::start(demo::accounts(demo::start(CancellationToken::new()).await.unwrap())).await;
    let key = world.key.as_str();
    let bearer = format!("Bearer {key}");
    for (target, header, gemini) in [
        ("/v1beta/models", ("x-goog-api-key", key), true),
        ("/v1/models", ("x-goog-api-key", key), true),
        ("/v1/models", ("authorization", bearer.as_str()), false),
    ] {
        let list = ask(&world, Method::GET, target, &[header]).await.json();
        assert_eq!((list["models"].is_array(), list["data"].is_array()), (gemini, !gemini), "{target}");
    }
    let in_query = format!("/v1/models?key={key}&pageSize=1");
    let list = ask(&world, Method::GET, &in_query, &[]).await.json();
    assert_eq!(list["models"][0]["name"], "models/demo-chat");
    assert_eq!(list["nextPageToken"], "demo-chat");
    let one = ask(&world, Method::GET, &format!("/v1beta/models/demo-chat?key={key}"), &[]).await.json();
    assert_eq!(one["name"], "models/demo-chat");
}

#[tokio::test]
async fn an_account_whose_key_is_refused_is_followed_by_another() {
    let upstream = Upstream::start(|request| match request.headers["x-goog-api-key"].to_str() {
        Ok("second") => Some(json_response(200, ANSWER)),
        _ => Some(json_response(400, BAD_KEY)),
    })
    .await;
    let world = World::start(two(&upstream).into_iter().map(speaking).collect()).await;
    assert_eq!(post(&world, PATH).await.status, 200);
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(world.event().await.account_name, "second");
}

#[tokio::test]
async fn a_refused_account_is_not_the_clients_fault_and_its_words_are_not_for_the_client() {
    let (_, world) = world(400, BAD_KEY).await;
    let answer = post(&world, PATH).await;
    assert_eq!(error(&answer), (502, json!("UNAVAILABLE")));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    let event = world.event().await;
    assert_eq!(event.status_code, 502);
    assert!(event.error_message.unwrap().contains("API key not valid"));
}

#[tokio::test]
async fn an_upstreams_other_errors_are_passed_on_however_long() {
    let long =
        format!(r#"{{"error":{{"code":400,"message":"bad contents","x":"{}"}}}}"#, "x".repeat(200_000));
    let long: &'static str = long.leak();
    for body in [r#"{"error":{"code":400,"message":"bad contents"}}"#, "", "<html>", long] {
        let (_, world) = world(400, body).await;
        let answer = post(&world, PATH).await;
        assert_eq!((answer.status, answer.body), (StatusCode::BAD_REQUEST, Bytes::from(body)));
        let event = world.event().await;
        assert_eq!((event.status_code, event.input_tokens), (400, 0));
        assert_eq!(event.response_size, body.len() as u64);
    }
}

#[tokio::test]
async fn the_wait_in_an_upstreams_body_is_told_to_the_client() {
    let (_, world) = world(
        429,
        r#"[{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"38.6012s"}]}}]"#,
    )
    .await;
    let answer = post(&world, PATH).await;
    assert_eq!(error(&answer), (429, json!("RESOURCE_EXHAUSTED")));
    assert_eq!(answer.headers["retry-after"], "39");
    assert_eq!(answer.json()["error"]["details"][0]["retryDelay"], "38.602s");
}

#[tokio::test]
async fn the_demo_says_the_same_plainly_as_events_and_as_an_array() {
    let world = World::start(demo::accounts(demo::start(CancellationToken::new()).await.unwrap())).await;
    let plain = post(&world, "/v1beta/models/demo-chat:generateContent").await.json();
    let events = post(&world, "/v1beta/models/demo-chat:streamGenerateContent?alt=sse").await;
    let array = post(&world, "/v1/models/demo-chat:streamGenerateContent").await.json();
    let text = std::str::from_utf8(&events.body).unwrap();
    let events: Vec<Value> = text
        .split_terminator("\r\n\r\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    assert_eq!(Value::Array(events.clone()), array);
    let said: String = events
        .iter()
        .filter_map(|event| event.pointer("/candidates/0/content/parts/0/text")?.as_str())
        .collect();
    assert_eq!(said, "You said: hi");
    assert_eq!(plain.pointer("/candidates/0/content/parts/0/text"), Some(&json!(said)));
    let last = events.last().unwrap();
    assert_eq!(last["usageMetadata"], plain["usageMetadata"]);
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    let count = post(&world, "/v1beta/models/demo-chat:countTokens").await.json();
    assert_eq!(count["totalTokens"], plain["usageMetadata"]["promptTokenCount"]);
    for event in &world.events(4).await[..3] {
        assert_eq!(Some(event.input_tokens), plain["usageMetadata"]["promptTokenCount"].as_u64());
        assert_eq!(Some(event.output_tokens), plain["usageMetadata"]["candidatesTokenCount"].as_u64());
    }
}
