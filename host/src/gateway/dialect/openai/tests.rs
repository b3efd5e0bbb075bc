use super::*;
use crate::gateway::{limits::ESTIMATE_MAX, usage::Reported};

fn seen(events: &[&str]) -> Seen {
    let mut seen = Seen::default();
    events.iter().for_each(|event| read_event(event.as_bytes(), &mut seen));
    seen
}

#[test]
fn text_is_counted_in_the_deltas_of_every_endpoint() {
    for (event, bytes) in [
        (r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"héllo"}}],"usage":null}"#, 6),
        (r#"{"choices":[{"delta":{"content":null}},{"delta":{"content":"ab"}}]}"#, 2),
        (r#"{"choices":[{"delta":{"tool_calls":[{"id":"call_1","function":{"arguments":"{\"a\""}}]}}]}"#, 4),
        (r#"{"choices":[{"text":"abc","logprobs":null}]}"#, 3),
        (r#"{"type":"response.output_text.delta","delta":"abcd"}"#, 4),
        ("[DONE]", 0),
        ("{", 0),
    ] {
        assert_eq!(seen(&[event]).text_bytes, bytes, "{event}");
    }
}

#[test]
fn usage_is_read_wherever_an_endpoint_puts_it() {
    let used = |input, output| Reported { input: Some(input), output: Some(output), ..Reported::default() };
    for (event, reported) in [
        (r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#, used(7, 5)),
        (
            r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,
                "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0,"cache_write_tokens":2},
                "completion_tokens_details":{"reasoning_tokens":3}}}"#,
            Reported { cache_read: 4, cache_write: 2, reasoning: 3, ..used(7, 5) },
        ),
        (
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4,
                "input_tokens_details":{"cached_tokens":1},"output_tokens_details":{"reasoning_tokens":2}}}}"#,
            Reported { cache_read: 1, reasoning: 2, ..used(3, 4) },
        ),
        (r#"{"usage":{"prompt_tokens":8,"total_tokens":8,"prompt_tokens_details":null}}"#, used(8, 0)),
    ] {
        assert_eq!(seen(&[event]).reported, reported, "{event}");
    }
}

#[test]
fn an_error_in_mid_stream_is_noticed() {
    let seen = seen(&[r#"{"error":{"message":"overloaded","type":"server_error"}}"#]);
    assert_eq!(seen.failure.as_deref(), Some("overloaded"));
}

#[tokio::test]
async fn errors_have_openais_shape() {
    for (class, status, kind, code) in [
        (Class::Invalid, 400, "invalid_request_error", None),
        (Class::Key, 401, "invalid_request_error", Some("invalid_api_key")),
        (Class::Model, 404, "invalid_request_error", Some("model_not_found")),
        (Class::TooLarge, 413, "invalid_request_error", Some("request_too_large")),
        (Class::RequestLimit, 429, "requests", Some("rate_limit_exceeded")),
        (Class::TokenLimit, 429, "tokens", Some("rate_limit_exceeded")),
        (Class::Budget, 429, "insufficient_quota", Some("insufficient_quota")),
        (Class::Upstream, 502, "server_error", Some("upstream_error")),
        (Class::Unavailable, 503, "server_error", Some("service_unavailable")),
        (Class::UpstreamTimeout, 504, "server_error", Some("upstream_timeout")),
    ] {
        let response = refuse(&Problem::of(class, "model", "no").after(Some(1_200)));
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["retry-after-ms"], "1200");
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = serde_json::json!({ "message": "no", "type": kind, "param": "model", "code": code });
        assert_eq!(body, serde_json::json!({ "error": error }));
    }
}

const CHAT: &str = "/v1/chat/completions";

fn estimate(path: &str, body: &str) -> u64 {
    let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.path == path).unwrap();
    (endpoint.outline)(body.as_bytes(), None).unwrap().estimated_tokens
}

#[test]
fn the_estimate_is_a_third_of_the_text_and_the_answers_bound() {
    for (path, body, tokens) in [
        (CHAT, r#"{"model":"m","messages":[{"role":"user","content":"1234567"}],"max_tokens":10}"#, 13),
        (CHAT, r#"{"model":"m","messages":[{"role":"user","content":"123"}]}"#, 1 + 1_024),
        (CHAT, r#"{"model":"m","messages":[],"max_completion_tokens":5,"n":3}"#, 15),
        (CHAT, r#"{"model":"m","max_tokens":null,"n":null,"stream":null}"#, 1_024),
        (
            CHAT,
            r#"{"model":"m","max_tokens":0,"messages":[{"content":[{"type":"text","text":"123456"},
               {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAA"}}]}]}"#,
            2,
        ),
        ("/v1/completions", r#"{"model":"m","prompt":["abc","def"],"max_tokens":1,"best_of":2}"#, 4),
        ("/v1/completions", r#"{"model":"m","prompt":[1,2,3],"max_tokens":1}"#, 4),
        ("/v1/embeddings", r#"{"model":"m","input":["abc","d"]}"#, 2),
        ("/v1/responses", r#"{"model":"m","input":"abc","instructions":"def","max_output_tokens":7}"#, 9),
        (
            "/v1/responses",
            r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"abc"}]}],"max_output_tokens":0}"#,
            1,
        ),
        (CHAT, r#"{"model":"m","max_tokens":18446744073709551615,"n":9}"#, ESTIMATE_MAX),
    ] {
        assert_eq!(estimate(path, body), tokens, "{body}");
    }
}

#[test]
fn the_fields_are_read_whatever_stands_around_them() {
    let read = outline(br#" {"x":{"model":"no"},"stream":true,"model":"a\u0062"} "#, None).unwrap();
    assert_eq!((read.model.as_str(), read.streaming), ("ab", true));
}

#[test]
fn a_bad_body_is_invalid_and_the_message_says_where() {
    for (body, message) in [
        (&b""[..], "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[\"m\"]", "not a JSON object"),
        (b"{", "line 1 column 1"),
        (b"{\"model\":\"m\"} x", "line 1 column 15"),
        (b"{\"model\":7}", "column 10"),
        (b"{\"model\":\"m\",\"max_tokens\":-1}", "column 28"),
        (b"{\"model\":\"m\",\"stream\":\"yes\"}", "expected a boolean"),
        (b"{\"model\":\"m\",\"model\":\"n\"}", "duplicate field `model`"),
        (b"{\"model\":\"\xff\"}", "not UTF-8 at byte 10"),
        (b"{}", "must provide a model"),
        (b"{\"model\":null}", "must provide a model"),
        (b"{\"model\":\"\"}", "must provide a model"),
    ] {
        let problem = outline(body, None).unwrap_err();
        assert_eq!(problem.class, Class::Invalid);
        assert!(problem.message.contains(message), "{} lacks {message}", problem.message);
    }
    let deep = format!("{{\"model\":\"m\",\"messages\":{}", "[".repeat(100_000));
    assert_eq!(outline(deep.as_bytes(), None).unwrap_err().class, Class::Invalid);
    let long = format!("{{\"model\":\"{}\"}}", "m".repeat(300));
    assert_eq!(outline(long.as_bytes(), None).unwrap_err().class, Class::Model);
}
