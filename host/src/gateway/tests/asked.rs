//! What an upstream is asked for that its client does not ask for: usage, where the account says so.

use std::collections::BTreeMap;

use http::Method;

use super::support::{Upstream, World, json_response};
use crate::gateway::AccountSpec;

const PLAIN: &str = r#"{"model":"m","stream":true, "messages":[]}"#;

/// Sends to an account, and returns the body that its upstream saw.
async fn sent(account: impl FnOnce(AccountSpec) -> AccountSpec, path: &str, body: &'static str) -> String {
    let upstream = Upstream::start(|_| Some(json_response(200, "{}"))).await;
    let world = World::start(vec![account(upstream.account("main"))]).await;
    assert_eq!(world.send(Method::POST, path, body).await.status(), 200, "{path} {body}");
    let seen = upstream.seen().remove(0);
    assert_eq!(seen.headers["content-length"], *seen.body.len().to_string());
    String::from_utf8(seen.body.into()).unwrap()
}

fn with(account: AccountSpec) -> AccountSpec {
    let aliases = BTreeMap::from([("fast".to_owned(), "own-1".to_owned())]);
    AccountSpec { stream_usage: true, aliases, ..account }
}

#[tokio::test]
async fn usage_is_asked_for_in_streams_that_do_not_under_an_alias_too() {
    let (chat, completions) = ("/v1/chat/completions", "/v1/completions");
    for (path, body, expected) in [
        (
            chat,
            PLAIN,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true, "messages":[]}"#,
        ),
        (
            completions,
            r#"{"model":"fast","stream":true,"stream_options":{ "include_usage":false}}"#,
            r#"{"model":"own-1","stream":true,"stream_options":{ "include_usage":true}}"#,
        ),
        (
            chat,
            r#"{"model":"fast","stream":true,"stream_options":null}"#,
            r#"{"model":"own-1","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        assert_eq!(sent(with, path, body).await, expected);
    }
}

#[tokio::test]
async fn what_is_no_stream_or_asks_itself_or_needs_not_ask_stays_as_it_is() {
    for (path, body) in [
        ("/v1/chat/completions", r#"{"model":"m","messages":[]}"#),
        ("/v1/chat/completions", r#"{"model":"m","stream":false,"stream_options":null}"#),
        ("/v1/chat/completions", r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#),
        ("/v1/responses", r#"{"model":"m","stream":true,"input":"a"}"#),
        ("/v1/embeddings", r#"{"model":"m","input":"a"}"#),
    ] {
        assert_eq!(sent(with, path, body).await, body);
    }
    assert_eq!(sent(|account| account, "/v1/chat/completions", PLAIN).await, PLAIN, "without the setting");
}
