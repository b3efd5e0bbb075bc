//! Accounts that are asked whether they answer.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use super::support::{Upstream, World, json_response, two};
use crate::gateway::health;

const CHAT: &str = r#"{"model":"m","messages":[]}"#;

#[tokio::test]
async fn an_account_that_does_not_answer_is_passed_over_until_it_does() {
    let status = Arc::new(AtomicU16::new(200));
    let told = status.clone();
    let upstream = Upstream::start(move |received| {
        let is_first = received.key() == "first";
        // Requests themselves always go well, so that only the question can tell.
        Some(match received.path.as_str() {
            "/v1/models" if is_first => json_response(told.load(Ordering::Relaxed), "{}"),
            _ => json_response(200, "{}"),
        })
    })
    .await;
    let world = World::start(two(&upstream)).await;
    let asked = async || {
        health::check(&world.gateway.0.accounts).await;
        assert_eq!(world.chat(CHAT).await.status, 200);
        upstream.seen().last().unwrap().key().to_owned()
    };
    for (answer, account) in
        [(200, "first"), (503, "second"), (401, "second"), (404, "first"), (500, "second"), (429, "first")]
    {
        status.store(answer, Ordering::Relaxed);
        assert_eq!(asked().await, account, "{answer}");
    }
}

#[tokio::test]
async fn when_no_account_answers_they_are_tried_all_the_same() {
    let upstream = Upstream::start(|received| {
        let is_question = received.path == "/v1/models";
        Some(json_response(if is_question { 503 } else { 200 }, "{}"))
    })
    .await;
    let mut accounts = two(&upstream);
    // Nothing listens on port 1.
    accounts[1].base_url = "http://127.0.0.1:1".to_owned();
    let world = World::start(accounts).await;
    health::check(&world.gateway.0.accounts).await;
    assert_eq!(world.chat(CHAT).await.status, 200);
}
