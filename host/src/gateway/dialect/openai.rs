//! OpenAI's dialect: paths, credentials, errors and where usage stands.

use std::fmt;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Dialect, Endpoint, Shape};
use crate::gateway::{
    error::{Class, Problem},
    usage::Seen,
};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { dialect: Dialect::OpenAi, path: "/v1/chat/completions", shape: Shape::Chat },
    Endpoint { dialect: Dialect::OpenAi, path: "/v1/completions", shape: Shape::Completions },
    Endpoint { dialect: Dialect::OpenAi, path: "/v1/embeddings", shape: Shape::Embeddings },
    Endpoint { dialect: Dialect::OpenAi, path: "/v1/responses", shape: Shape::Responses },
];

const SCHEME: &str = "bearer ";

pub(super) fn credentials(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| key.trim())
}

pub(super) fn is_credential(name: &HeaderName) -> bool {
    // Some upstreams prefer one of the other keys to the account's; and an organization or project of the client's own
    // does not exist for the account.
    matches!(
        name.as_str(),
        "authorization"
            | "api-key"
            | "x-api-key"
            | "x-goog-api-key"
            | "openai-organization"
            | "openai-project"
    )
}

pub(super) fn tells_account(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "openai-organization" | "openai-project") || name.starts_with("x-ratelimit-")
}

pub(super) fn authorization(key: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn refuse(problem: &Problem) -> Response {
    let (kind, code) = words(problem.class);
    let error = ErrorBody { message: &problem.message, kind, param: problem.param, code };
    let mut response = json(&Envelope { error });
    *response.status_mut() = problem.status();
    let headers = response.headers_mut();
    if let Some(seconds) = problem.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        let ms = problem.retry_after_ms.unwrap_or_default();
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(ms));
    }
    match problem.class {
        Class::Key => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The rest of the body may still be on its way and must not be taken for the next request.
        Class::TooLarge | Class::Slow => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    response
}

fn words(class: Class) -> (&'static str, Option<&'static str>) {
    match class {
        Class::Invalid => ("invalid_request_error", None),
        Class::Key => ("invalid_request_error", Some("invalid_api_key")),
        Class::Forbidden => ("invalid_request_error", Some("access_denied")),
        Class::Model => ("invalid_request_error", Some("model_not_found")),
        Class::Path => ("invalid_request_error", Some("unknown_url")),
        Class::Method => ("invalid_request_error", Some("method_not_supported")),
        Class::TooLarge => ("invalid_request_error", Some("request_too_large")),
        Class::Slow => ("invalid_request_error", Some("request_timeout")),
        Class::RequestLimit => ("requests", Some("rate_limit_exceeded")),
        Class::TokenLimit => ("tokens", Some("rate_limit_exceeded")),
        Class::Unavailable => ("server_error", Some("service_unavailable")),
        Class::Upstream => ("server_error", Some("upstream_error")),
        Class::UpstreamTimeout => ("server_error", Some("upstream_timeout")),
        Class::Internal => ("server_error", Some("internal_error")),
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

pub(super) fn models(ids: &[String]) -> Response {
    json(&ModelList { object: "list", data: ids.iter().map(|id| describe(id)).collect() })
}

pub(super) fn model(id: &str) -> Response {
    json(&describe(id))
}

fn describe(id: &str) -> Model<'_> {
    Model { id, object: "model", created: 0, owned_by: "tollgate" }
}

fn json(body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_default();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(text)).into_response()
}

pub(super) fn error_message(body: &[u8]) -> Option<String> {
    let failure: Event = serde_json::from_slice(body).ok()?;
    failure.error?.message
}

pub(super) fn read_usage(json: &[u8], seen: &mut Seen) {
    if let Ok(Some(usage)) = serde_json::from_slice::<Option<Usage>>(json) {
        usage.note(seen);
    }
}

pub(super) fn read_event(data: &[u8], seen: &mut Seen) {
    if data == b"[DONE]" {
        seen.done = true;
    }
    // What is no JSON tells nothing more.
    let Ok(event) = serde_json::from_slice::<Event>(data) else { return };
    seen.text_bytes += event.delta.0 + event.choices.iter().map(Choice::text_bytes).sum::<u64>();
    seen.done |= matches!(
        event.kind.as_deref(),
        Some("response.completed" | "response.incomplete" | "response.failed")
    );
    let (inner_usage, inner_error) = event.response.map_or((None, None), |inner| (inner.usage, inner.error));
    if let Some(usage) = event.usage.or(inner_usage) {
        usage.note(seen);
    }
    if let Some(error) = event.error.or(inner_error) {
        seen.failure = Some(error.message.unwrap_or_else(|| "the upstream reported an error".to_owned()));
    }
}

/// An event of any of the endpoints, or an error answer.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    /// Text of the responses endpoint; chat has its deltas inside the choices.
    #[serde(default)]
    delta: TextBytes,
    usage: Option<Usage>,
    response: Option<Inner>,
    error: Option<Failure>,
    /// The responses endpoint names its events.
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: TextBytes,
    #[serde(default)]
    text: TextBytes,
}

impl Choice {
    fn text_bytes(&self) -> u64 {
        self.delta.0 + self.text.0
    }
}

#[derive(Deserialize)]
struct Inner {
    usage: Option<Usage>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    message: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

impl Usage {
    fn note(&self, seen: &mut Seen) {
        let input = self.prompt_tokens.or(self.input_tokens);
        let rest = || Some(self.total_tokens?.saturating_sub(input?));
        let output = self.completion_tokens.or(self.output_tokens).or_else(rest);
        if input.or(output).is_some() {
            seen.report(input.unwrap_or(0), output.unwrap_or(0));
        }
    }
}

/// Bytes of text in a delta: a string, or an object of which only what a model writes is counted.
#[derive(Clone, Copy, Default)]
struct TextBytes(u64);

impl<'de> Deserialize<'de> for TextBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TextBytes, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or something that holds text")
    }

    fn visit_str<E>(self, text: &str) -> Result<TextBytes, E> {
        Ok(TextBytes(text.len() as u64))
    }

    fn visit_unit<E>(self) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TextBytes, A::Error> {
        let mut bytes = 0;
        while let Some(TextBytes(more)) = items.next_element()? {
            bytes += more;
        }
        Ok(TextBytes(bytes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<TextBytes, A::Error> {
        let mut bytes = 0;
        while let Some(key) = entries.next_key::<DeltaKey>()? {
            match key {
                DeltaKey::Written => bytes += entries.next_value::<TextBytes>()?.0,
                DeltaKey::Other => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(TextBytes(bytes))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DeltaKey {
    #[serde(
        alias = "content",
        alias = "text",
        alias = "reasoning",
        alias = "reasoning_content",
        alias = "refusal",
        alias = "arguments",
        alias = "function",
        alias = "function_call",
        alias = "tool_calls",
        alias = "transcript"
    )]
    Written,
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (
                r#"{"choices":[{"delta":{"tool_calls":[{"id":"call_1","function":{"arguments":"{\"a\""}}]}}]}"#,
                4,
            ),
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
        for (event, tokens) in [
            (r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}"#, (7, 5)),
            (
                r#"{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4}}}"#,
                (3, 4),
            ),
            (r#"{"usage":{"prompt_tokens":8,"total_tokens":8}}"#, (8, 0)),
        ] {
            assert_eq!(seen(&[event]).reported, Some(tokens), "{event}");
        }
    }

    #[test]
    fn an_error_in_mid_stream_is_noticed() {
        let seen = seen(&[r#"{"error":{"message":"overloaded","type":"server_error"}}"#]);
        assert_eq!(seen.failure.as_deref(), Some("overloaded"));
    }

    #[test]
    fn a_key_is_read_whatever_the_case_of_its_scheme() {
        for (value, key) in [
            ("Bearer tg-1", Some("tg-1")),
            ("bearer  tg-1 ", Some("tg-1")),
            ("Basic tg-1", None),
            ("Bearer", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(credentials(&headers), key, "{value:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(credentials(&headers), None);
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
}
