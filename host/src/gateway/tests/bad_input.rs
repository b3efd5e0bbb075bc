//! Whatever a client sends.

use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::{Upstream, World, json_response, whole};
use crate::{
    gateway::{Settings, limits::PROBLEM_BYTES},
    keys::{KeyError, NewKey, Settings as KeySettings},
    limit_set::LimitSet,
};

async fn world(settings: Settings) -> (Upstream, World) {
    let upstream = Upstream::start(|_| Some(json_response(200, "{}"))).await;
    let world = World::with(vec![upstream.account("main")], settings).await;
    (upstream, world)
}

/// Sends bytes as they are, and returns the status and body of the answer.
async fn raw(world: &World, bytes: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(world.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4_096];
    while !text.ends_with(b"}") {
        let read = stream.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn head(world: &World, more: &str) -> Vec<u8> {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{more}\r\n",
        world.key
    )
    .into()
}

#[tokio::test]
async fn a_bad_body_is_refused_and_recorded_and_never_sent() {
    let (upstream, world) = world(Settings::default()).await;
    let bodies =
        ["", "{", "[]", "null", r#"{"model":7}"#, r#"{"messages":[]}"#, r#"{"model":"m","stream":1}"#];
    for body in bodies {
        let answer = world.chat(body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    let events = world.events(bodies.len()).await;
    assert!(
        events.iter().all(|event| event.status_code == 400 && event.has_error && event.response_size > 0)
    );
    assert_eq!((upstream.seen().len(), world.gateway.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_refusal_does_not_repeat_megabytes_of_the_body() {
    let (_upstream, world) = world(Settings::default()).await;
    let body = format!(r#"{{"model":"m","max_tokens":"{}"}}"#, "é".repeat(1_000_000));
    let answer = whole(world.send_as(&world.key, Method::POST, "/v1/chat/completions", body).await).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("the request body is not a valid request: invalid type: string"),
        "{message}"
    );
    assert!(message.len() <= PROBLEM_BYTES, "{} bytes", message.len());
}

#[tokio::test]
async fn an_unknown_model_and_one_the_key_may_not_use_are_not_found_alike() {
    let (upstream, world) = world(Settings::default()).await;
    let new = NewKey::for_models("narrow", &["other"]);
    let narrow = world.keys.create(new).await.unwrap();
    let unknown = world.chat(r#"{"model":"x"}"#).await;
    let body = r#"{"model":"m"}"#;
    let forbidden = whole(world.send_as(&narrow, Method::POST, "/v1/chat/completions", body).await).await;
    for (answer, model) in [(unknown, "x"), (forbidden, "m")] {
        assert_eq!(answer.status, 404);
        let message = format!("the model `{model}` does not exist or you do not have access to it");
        let error = json!({ "message": message, "type": "invalid_request_error", "param": "model", "code": "model_not_found" });
        assert_eq!(answer.json(), json!({ "error": error }));
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test]
async fn strangers_are_refused_and_not_recorded() {
    let (_, world) = world(Settings::default()).await;
    let revoked = world.keys.create(NewKey { name: "gone".to_owned(), ..NewKey::default() }).await.unwrap();
    assert_eq!(
        world.send_as(&revoked, Method::POST, "/v1/chat/completions", r#"{"model":"m"}"#).await.status(),
        200
    );
    world.keys.revoke("gone").await.unwrap();
    for key in ["", "sk-1", "tg-wrong", revoked.as_str(), &format!("tg-{}", "a".repeat(43))] {
        let answer =
            whole(world.send_as(key, Method::POST, "/v1/chat/completions", r#"{"model":"m"}"#).await).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (401, &json!("invalid_api_key")),
            "{key}"
        );
    }
    assert_eq!(world.events(1).await.len(), 1);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_openais_shape() {
    let (_, world) = world(Settings::default()).await;
    for (method, path, status) in [
        (Method::GET, "/v1/none", 404),
        (Method::POST, "/", 404),
        (Method::GET, "/v1/chat/completions", 405),
        (Method::DELETE, "/v1/models", 405),
        (Method::GET, "/v1/models/none", 404),
        (Method::GET, "/v1/models/%ff", 400),
    ] {
        let answer = whole(world.send(method, path, "").await).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_it_says_its_length_or_not() {
    let settings = Settings { body_bytes: 1_000, ..Settings::default() };
    let (upstream, world) = world(settings).await;
    let body = "x".repeat(3_000_000);
    let mut announced = head(&world, &format!("content-length: {}\r\n", body.len()));
    announced.extend_from_slice(body.as_bytes());
    let mut chunked = head(&world, "transfer-encoding: chunked\r\n");
    chunked.extend_from_slice(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes());
    for request in [announced, chunked] {
        let (status, body) = raw(&world, &request).await;
        assert_eq!((status, &body["error"]["code"]), (413, &json!("request_too_large")));
    }
    let exact = format!("{{\"model\":\"m\",\"x\":\"{}\"}}", "x".repeat(1_000 - 20));
    assert_eq!(exact.len(), 1_000);
    assert_eq!(world.send(Method::POST, "/v1/chat/completions", exact).await.status(), 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let settings = Settings { body_timeout: Duration::from_millis(50), ..Settings::default() };
    let (_, world) = world(settings).await;
    let mut request = head(&world, "content-length: 100\r\n");
    request.extend_from_slice(b"{\"model\":");
    let (status, body) = raw(&world, &request).await;
    assert_eq!((status, &body["error"]["code"]), (408, &json!("request_timeout")));
    assert_eq!(world.event().await.status_code, 408);
}

#[tokio::test]
async fn headers_that_are_not_utf8_are_refused() {
    let (_, world) = world(Settings::default()).await;
    let key = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(raw(&world, key).await.0, 401);
    let mut other = head(&world, "content-length: 13\r\nx-other: \u{1}");
    let at = other.iter().position(|byte| *byte == 1).unwrap();
    other.splice(at..=at, *b"\xff\r\n");
    other.extend_from_slice(br#"{"model":"m"}"#);
    let (status, body) = raw(&world, &other).await;
    assert_eq!((status, &body["error"]["type"]), (400, &json!("invalid_request_error")));
    assert_eq!(body["error"]["message"], "a header is not UTF-8");
    let fine = Request::post(format!("{}/v1/chat/completions", world.url))
        .header("authorization", format!("bearer {}", world.key))
        .header("x-other", "ünïcode")
        .body(Full::from(r#"{"model":"m"}"#))
        .unwrap();
    assert_eq!(world.request(fine).await.status(), 200);
}

#[tokio::test]
async fn keys_are_listed_without_themselves_and_names_are_unique_while_active() {
    let (_, world) = world(Settings::default()).await;
    let limits = LimitSet { rpm: Some(3), tpm: Some(1), ..LimitSet::default() };
    let settings = KeySettings { limits, ..KeySettings::default() };
    let new = || NewKey { name: "a".to_owned(), settings: settings.clone() };
    let key = world.keys.create(new()).await.unwrap();
    assert_eq!(key.len(), 46);
    assert!(matches!(world.keys.create(new()).await, Err(KeyError::NameTaken(name)) if name == "a"));
    let found = world.keys.lookup(&key).await.unwrap().unwrap();
    assert_eq!(
        (found.subject.limits.rpm, found.subject.limits.tpm, found.subject.limits.rpd),
        (Some(3), Some(1), None)
    );
    world.keys.revoke("a").await.unwrap();
    assert!(world.keys.lookup(&key).await.unwrap().is_none());
    assert!(matches!(world.keys.revoke("a").await, Err(KeyError::NoSuchKey(_))));
    let again = world.keys.create(new()).await.unwrap();
    let names: Vec<_> =
        world.keys.list().await.unwrap().into_iter().map(|key| (key.name, key.active)).collect();
    assert_eq!(names, [("user".to_owned(), true), ("a".to_owned(), false), ("a".to_owned(), true)]);
    assert!(!format!("{:?}", world.keys.list().await.unwrap()).contains(&again[3..]));
    let settings = KeySettings { expires_ms: Some(1), ..KeySettings::default() };
    let expired = NewKey { name: "old".to_owned(), settings };
    let expired = world.keys.create(expired).await.unwrap();
    assert!(world.keys.lookup(&expired).await.unwrap().is_none());
}
