use http::Request;

use super::*;
use crate::gateway::usage::Reported;

fn seen(events: &[&str]) -> Seen {
    let mut seen = Seen::default();
    events.iter().for_each(|event| Anthropic.read_event(event.as_bytes(), &mut seen));
    seen
}

#[test]
fn text_is_counted_in_every_kind_of_delta() {
    for (event, bytes) in [
        (r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"héllo"}}"#, 6),
        (r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"so"}}"#, 2),
        (r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#, 5),
        (r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"EqQB"}}"#, 0),
        (r#"{"type":"content_block_start","content_block":{"type":"text","text":"ab"}}"#, 2),
        (
            r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"t","name":"n","input":{}}}"#,
            0,
        ),
        (r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null}}"#, 0),
        (r#"{"type": "ping"}"#, 0),
        ("{", 0),
    ] {
        assert_eq!(seen(&[event]).text_bytes, bytes, "{event}");
    }
}

#[test]
fn the_prompt_is_what_was_fresh_and_what_was_cached_and_the_last_count_of_the_answer_holds() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"cache_creation_input_tokens":20,
        "cache_read_input_tokens":300,"output_tokens":1}}}"#;
    let first = r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":8}}"#;
    let second = r#"{"type":"message_delta","delta":{},"usage":{"input_tokens":12,"output_tokens":25,
        "output_tokens_details":{"thinking_tokens":9},"cache_read_input_tokens":null}}"#;
    let begun = Reported { input: Some(330), cache_read: 300, cache_write: 20, ..Reported::default() };
    assert_eq!(seen(&[start]).reported, begun, "the answer has only begun");
    assert_eq!(seen(&[start, first]).reported, Reported { output: Some(8), ..begun });
    let ended = Reported { input: Some(332), output: Some(25), reasoning: 9, ..begun };
    assert_eq!(seen(&[start, first, second]).reported, ended);
    assert_eq!(seen(&[first]).reported, Reported { output: Some(8), ..Reported::default() });
}

#[test]
fn a_plain_answer_has_all_of_its_usage_in_one_place() {
    let mut seen = Seen::default();
    let usage =
        br#"{"input_tokens":3,"cache_read_input_tokens":4,"output_tokens":5,"service_tier":"standard"}"#;
    Anthropic.read_entry("usage", usage, &mut seen);
    let reported = Reported { input: Some(7), output: Some(5), cache_read: 4, ..Reported::default() };
    assert_eq!(seen.reported, reported);
}

#[test]
fn a_stream_ends_with_its_last_event_or_with_an_error() {
    assert!(!seen(&[r#"{"type":"message_delta","delta":{}}"#]).done);
    assert!(seen(&[r#"{"type":"message_stop"}"#]).done);
    let failed = seen(&[r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#]);
    assert_eq!((failed.done, failed.failure.as_deref()), (true, Some("Overloaded")));
    let bare = seen(&[r#"{"type":"error","error":{}}"#]);
    assert_eq!(bare.failure.as_deref(), Some("the upstream reported an error"));
}

#[test]
fn the_estimate_is_a_third_of_the_text_and_the_answers_bound() {
    for (body, tokens) in [
        (r#"{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"1234567"}]}"#, 13),
        (r#"{"model":"m","max_tokens":0,"system":"123","messages":[{"content":"456"}]}"#, 2),
        (
            r#"{"model":"m","max_tokens":0,"system":[{"type":"text","text":"123456","cache_control":{"type":"ephemeral"}}]}"#,
            2,
        ),
        (r#"{"model":"m","messages":[]}"#, 1_024),
        (r#"{"model":"m","max_tokens":0,"tools":[{"name":"a"}]}"#, 5),
        (
            r#"{"model":"m","max_tokens":0,"messages":[{"content":[{"type":"text","text":"123"},
            {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAAAAAAAAAA"}}]}]}"#,
            1,
        ),
        (
            r#"{"model":"m","max_tokens":0,"messages":[{"content":[{"type":"document","title":"123",
            "source":{"type":"text","media_type":"text/plain","data":"456789a"}}]}]}"#,
            4,
        ),
        (
            r#"{"model":"m","max_tokens":0,"messages":[{"content":[{"type":"document",
            "source":{"type":"content","content":[{"type":"text","text":"123"}]}}]}]}"#,
            1,
        ),
        (
            r#"{"model":"m","max_tokens":0,"messages":[{"content":[{"type":"search_result","source":"https://example.com",
            "title":"123","content":[{"type":"text","text":"456"}]}]}]}"#,
            2,
        ),
        (
            r#"{"model":"m","max_tokens":0,"messages":[{"content":[
            {"type":"tool_use","id":"toolu_1","name":"n","input":{"city":"Bonn","deep":[1,{"x":null}]}},
            {"type":"tool_result","tool_use_id":"toolu_1","content":"12345"}]}]}"#,
            14,
        ),
    ] {
        let read = outline(body.as_bytes(), None).unwrap();
        assert_eq!(read.estimated_tokens, tokens, "{body}");
    }
}

/// Parsed each by itself they once took the stack of the worker, and with it the server.
#[test]
fn sources_within_sources_are_read_as_deep_as_a_request_may_be() {
    let nested = |levels| {
        let (before, after) = (r#"{"source":{"content":"#.repeat(levels), "}}".repeat(levels));
        format!(r#"{{"model":"m","max_tokens":0,"messages":[{before}"123456"{after}]}}"#)
    };
    assert_eq!(outline(nested(50).as_bytes(), None).unwrap().estimated_tokens, 2);
    for levels in [70, 100_000] {
        assert_eq!(outline(nested(levels).as_bytes(), None).unwrap_err().class, Class::Invalid);
    }
    let plain =
        r#"{"model":"m","max_tokens":0,"messages":[{"source":{"data":"1234","media_type":"text\/plain"}}]}"#;
    assert_eq!(outline(plain.as_bytes(), None).unwrap().estimated_tokens, 2);
    for none in ["7", "-7", "0.5", "true", "null", "[1,[2]]", r#"{"media_type":7,"data":{}}"#] {
        let body = format!(r#"{{"model":"m","max_tokens":0,"messages":[{{"source":{none}}}]}}"#);
        assert_eq!(outline(body.as_bytes(), None).unwrap().estimated_tokens, 0, "{none}");
    }
}

#[test]
fn counting_tokens_costs_none() {
    let read =
        outline_count(br#"{"model":"m","stream":true,"messages":[{"content":"123456"}]}"#, None).unwrap();
    assert_eq!((read.prompt_tokens, read.estimated_tokens, read.streaming), (0, 0, false));
    assert_eq!(outline_count(b"{}", None).unwrap_err().class, Class::Invalid);
}

#[test]
fn the_key_comes_in_either_header() {
    let head = |headers: &[(&str, &str)]| {
        let mut request = Request::post("/v1/messages");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    };
    for (headers, key) in [
        (&[("x-api-key", "tg-1")][..], Some("tg-1")),
        (&[("authorization", "Bearer tg-2")], Some("tg-2")),
        (&[("authorization", "Bearer tg-2"), ("x-api-key", "tg-1")], Some("tg-1")),
        (&[("x-goog-api-key", "tg-3")], None),
    ] {
        assert_eq!(Anthropic.credentials(&head(headers)), key, "{headers:?}");
    }
}

#[tokio::test]
async fn errors_have_anthropics_shape() {
    for (class, status, kind) in [
        (Class::Invalid, 400, "invalid_request_error"),
        (Class::Key, 401, "authentication_error"),
        (Class::Forbidden, 403, "permission_error"),
        (Class::Model, 404, "not_found_error"),
        (Class::Path, 404, "not_found_error"),
        (Class::Method, 405, "invalid_request_error"),
        (Class::Slow, 408, "timeout_error"),
        (Class::TooLarge, 413, "request_too_large"),
        (Class::RequestLimit, 429, "rate_limit_error"),
        (Class::TokenLimit, 429, "rate_limit_error"),
        (Class::Budget, 429, "rate_limit_error"),
        (Class::Internal, 500, "api_error"),
        (Class::Upstream, 502, "api_error"),
        (Class::UpstreamTimeout, 504, "timeout_error"),
        (Class::Unavailable, 529, "overloaded_error"),
    ] {
        let response = Anthropic.refuse(&Problem::of(class, "model", "no").after(Some(1_200)), "req_1");
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["retry-after"], "2");
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = serde_json::json!({ "type": kind, "message": "no" });
        assert_eq!(body, serde_json::json!({ "type": "error", "error": error, "request_id": "req_1" }));
    }
}

#[test]
fn the_list_of_models_comes_in_pages() {
    let ids: Vec<String> = (0..50).map(|number| format!("m{number:02}")).collect();
    for (query, first, last, count, has_more) in [
        ("", "m00", "m19", 20, true),
        ("limit=1000", "m00", "m49", 50, false),
        ("limit=0", "m00", "m00", 1, true),
        ("limit=many", "m00", "m19", 20, true),
        ("after_id=m19", "m20", "m39", 20, true),
        ("limit=30&after_id=m%319", "m20", "m49", 30, false),
        ("limit=5&before_id=m20", "m15", "m19", 5, true),
        ("limit=5&before_id=m03", "m00", "m02", 3, false),
    ] {
        let list = ModelList::of(&ids, &Page::of(query));
        assert_eq!((list.first_id, list.last_id), (Some(first), Some(last)), "{query}");
        assert_eq!((list.data.len(), list.has_more), (count, has_more), "{query}");
    }
    for query in ["after_id=m49", "after_id=none", "after_id=m20&before_id=m10"] {
        let list = ModelList::of(&ids, &Page::of(query));
        assert_eq!((list.data.len(), list.has_more, list.first_id), (0, false, None), "{query}");
    }
}
