//! Accounts in trouble.

use std::time::Duration;

use axum::{body::Body, response::Response};
use futures_util::stream;
use serde_json::json;

use super::support::{Upstream, World, json_response, two};
use crate::gateway::{AccountSpec, Settings};

const CHAT: &str = r#"{"model":"m","messages":[]}"#;
const GOOD: &str = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;

fn trouble(status: u16) -> Response {
    let mut response = json_response(status, r#"{"error":{"message":"org-secret is in trouble"}}"#);
    response.headers_mut().insert("retry-after", "7".parse().unwrap());
    response
}

/// A connection that ends before an answer.
fn broken() -> Response {
    let frames = stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("told to break")) });
    Response::builder().header("content-length", "10").body(Body::from_stream(frames)).unwrap()
}

#[tokio::test]
async fn an_account_in_trouble_is_passed_over_before_the_first_byte() {
    for status in [0, 101, 401, 402, 403, 408, 429, 500, 503] {
        let upstream = Upstream::start(move |received| {
            Some(match received.key() {
                "first" if status == 0 => broken(),
                "first" => trouble(status),
                _ => json_response(200, GOOD),
            })
        })
        .await;
        let world = World::start(two(&upstream)).await;
        let answer = world.chat(CHAT).await;
        assert_eq!((answer.status.as_u16(), answer.body), (200, GOOD.into()), "{status}");
        let seen = upstream.seen();
        assert_eq!(
            seen.iter().map(|received| received.key()).collect::<Vec<_>>(),
            ["first", "second"],
            "{status}"
        );
        assert_eq!(seen[1].body, CHAT);
        let event = world.event().await;
        assert_eq!((event.account_name.as_str(), event.status_code, event.input_tokens), ("second", 200, 1));
        assert_eq!((event.has_error, event.error_type.as_str()), (false, ""));
        let [attempt] = &event.attempts[..] else { panic!("{:?}", event.attempts) };
        let error_type = match status {
            401 | 403 => "upstream_auth",
            402 => "upstream_payment",
            408 => "upstream_timeout",
            429 => "upstream_rate_limit",
            _ => "upstream",
        };
        assert_eq!((attempt.account_name.as_str(), attempt.model.as_str()), ("first", "m"));
        assert_eq!((attempt.error_type.as_str(), attempt.status_code), (error_type, u32::from(status)));
        assert_ne!(attempt.api_key_hash, event.api_key_hash);
        let said = match status {
            0 => "the upstream broke off",
            // It has no body.
            101 => "the upstream answered 101",
            _ => "org-secret is in trouble",
        };
        assert!(attempt.message.contains(said), "{attempt:?}");
    }
}

#[tokio::test]
async fn an_account_that_cannot_be_reached_is_passed_over() {
    let upstream = Upstream::start(|_| Some(json_response(200, GOOD))).await;
    let mut accounts = two(&upstream);
    // Nothing listens on port 1.
    accounts[0].base_url = "http://127.0.0.1:1".to_owned();
    let world = World::start(accounts).await;
    assert_eq!(world.chat(CHAT).await.status, 200);
}

#[tokio::test]
async fn an_account_that_does_not_answer_in_time_is_passed_over() {
    let upstream =
        Upstream::start(|received| (received.key() == "second").then(|| json_response(200, GOOD))).await;
    let settings = Settings { answer_timeout: Duration::from_millis(100), ..Settings::default() };
    let world = World::with(two(&upstream), settings.clone()).await;
    assert_eq!(world.chat(CHAT).await.status, 200);
    let silent = World::with(vec![upstream.account("first")], settings).await;
    let answer = silent.chat(CHAT).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (504, &json!("upstream_timeout")));
    let event = silent.event().await;
    assert_eq!((event.status_code, event.input_tokens, event.output_tokens), (504, 0, 0));
    assert_eq!(event.error_type, "upstream_timeout");
}

#[tokio::test]
async fn when_all_fail_the_client_gets_the_last_error_in_its_own_shape() {
    for (status, mapped, code, error_type) in [
        (0, 502, "upstream_error", "upstream"),
        (401, 502, "upstream_error", "upstream_auth"),
        (429, 429, "rate_limit_exceeded", "upstream_rate_limit"),
        (500, 502, "upstream_error", "upstream"),
        (503, 503, "service_unavailable", "upstream"),
        (504, 504, "upstream_timeout", "upstream_timeout"),
    ] {
        let upstream =
            Upstream::start(move |_| Some(if status == 0 { broken() } else { trouble(status) })).await;
        let world = World::start(two(&upstream)).await;
        let answer = world.chat(CHAT).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status.as_u16(), &error["code"]), (mapped, &json!(code)), "{status}");
        let told = error["message"].as_str().unwrap().contains("org-secret");
        assert_eq!(told, status >= 500, "what is about the account is kept from the client: {status}");
        if matches!(status, 429 | 503) {
            assert_eq!(answer.headers["retry-after"], "7");
        }
        let event = world.event().await;
        assert_eq!((event.status_code, event.has_error, event.input_tokens), (u32::from(mapped), true, 0));
        assert_eq!((event.account_name.as_str(), event.error_type.as_str()), ("second", error_type));
        // The last attempt is the event's own.
        let failed: Vec<&str> = event.attempts.iter().map(|attempt| attempt.account_name.as_str()).collect();
        assert_eq!(failed, ["first"]);
    }
}

#[tokio::test]
async fn no_request_is_sent_more_than_three_times() {
    let upstream = Upstream::start(|_| Some(trouble(500))).await;
    let account = |number: u32| AccountSpec { priority: number, ..upstream.account(&format!("a{number}")) };
    let world = World::start((0..6).map(account).collect()).await;
    assert_eq!(world.chat(CHAT).await.status, 502);
    assert_eq!(upstream.seen().len(), 3);
    assert_eq!(world.event().await.attempts.len(), 2);
}

#[tokio::test]
async fn an_error_of_the_clients_own_making_passes_unchanged_and_is_not_retried() {
    let body = r#"{"error":{"message":"bad temperature","type":"invalid_request_error"}}"#;
    for status in [400, 404, 422] {
        let upstream = Upstream::start(move |_| Some(json_response(status, body))).await;
        let world = World::start(two(&upstream)).await;
        let answer = world.chat(CHAT).await;
        assert_eq!((answer.status.as_u16(), answer.body), (status, body.into()));
        assert_eq!(upstream.seen().len(), 1);
        let event = world.event().await;
        assert_eq!((event.status_code, event.has_error, event.input_tokens), (u32::from(status), true, 0));
        assert_eq!(event.error_message.as_deref(), Some("bad temperature"));
        assert_eq!(event.error_type, "invalid_request");
    }
}

#[tokio::test]
async fn the_time_for_a_request_bounds_all_attempts_together() {
    let settings = Settings { total_timeout: Duration::from_millis(50), ..Settings::default() };
    let upstream = Upstream::start(|_| None).await;
    let world = World::with(two(&upstream), settings).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), world.chat(CHAT)).await.expect("in time");
    assert_eq!(answer.status, 504);
    assert_eq!(upstream.seen().len(), 1, "there is no time for a second attempt");
    assert_eq!(world.event().await.status_code, 504);
}
