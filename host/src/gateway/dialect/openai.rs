//! OpenAI's dialect: paths, credentials, requests, errors and where usage stands. What its refusals say, and how usage is
//! asked for, is beside it.

mod asked;
mod refused;

use std::borrow::Cow;

use axum::response::Response;
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
    request,
};
use serde::{
    Deserialize, Serialize,
    de::{IgnoredAny, MapAccess},
};
use serde_json::value::RawValue;

use super::{Api, Dialect, Endpoint, Listing, Target, Uses, bearer, fixed_target, json, refusal, secret};
use crate::gateway::{
    error::{Class, Problem},
    limited::{Refused, Told},
    limits::{BYTES_PER_TOKEN, DEFAULT_OUTPUT_TOKENS},
    renamed::Change,
    request::{Outline, TextBytes, TextKey, fields},
    usage::{Reported, Seen},
};

pub(super) struct OpenAi;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

static ENDPOINTS: [Endpoint; 4] = [
    endpoint(CHAT, outline, Uses::Text),
    endpoint(COMPLETIONS, outline, Uses::Text),
    endpoint("/v1/embeddings", outline_embeddings, Uses::Prompt),
    endpoint("/v1/responses", outline, Uses::Text),
];

const fn endpoint(
    path: &'static str,
    outline: fn(&[u8], Option<String>) -> Result<Outline, Problem>,
    uses: Uses,
) -> Endpoint {
    Endpoint { dialect: Dialect::OpenAi, path, outline, uses }
}

const MODELS: &str = "/v1/models";

impl Api for OpenAi {
    fn client_type(&self) -> &'static str {
        "openai"
    }

    fn provider(&self) -> &'static str {
        "openai"
    }

    fn writing(&self, path: &str) -> &'static str {
        if path == COMPLETIONS { "text_completion" } else { "chat" }
    }

    fn versions(&self) -> &'static [&'static str] {
        &["/v1"]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &ENDPOINTS
    }

    fn target<'a>(&self, path: &'a str) -> Option<Target<'a>> {
        fixed_target(&ENDPOINTS, MODELS, path)
    }

    fn is_meant(&self, _: &request::Parts) -> bool {
        // What no other dialect claims is OpenAI's anyway.
        false
    }

    fn credentials<'a>(&self, head: &'a request::Parts) -> Option<&'a str> {
        bearer(&head.headers)
    }

    fn place_of_key(&self) -> &'static str {
        "the authorization header, as bearer token"
    }

    fn is_credential(&self, name: &HeaderName) -> bool {
        // Some upstreams prefer the second key to the account's; and an organization or project of the client's own
        // does not exist for the account.
        matches!(
            name.as_str(),
            "authorization" | "api-key" | "x-goog-api-key" | "openai-organization" | "openai-project"
        )
    }

    fn ask_for_usage(&self, path: &str, body: &[u8]) -> Vec<Change> {
        // The other streams tell it unasked.
        if matches!(path, CHAT | COMPLETIONS) {
            asked::for_usage(body).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    fn is_only_usage(&self, data: &[u8]) -> bool {
        asked::is_only_usage(data)
    }

    fn session_headers(&self) -> &'static [&'static str] {
        // Codex's, in two spellings.
        &["session_id", "session-id"]
    }

    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)> {
        Some((AUTHORIZATION, secret(&format!("Bearer {key}"))?))
    }

    fn tells_account(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        matches!(name, "openai-organization" | "openai-project") || name.starts_with("x-ratelimit-")
    }

    fn refuse(&self, problem: &Problem, _id: &str) -> Response {
        refuse(problem)
    }

    fn entries(&self) -> &'static [&'static str] {
        &["usage"]
    }

    fn read_entry(&self, _name: &str, json: &[u8], seen: &mut Seen) {
        if let Ok(Some(usage)) = serde_json::from_slice::<Option<Usage>>(json) {
            usage.note(seen);
        }
    }

    fn read_event(&self, data: &[u8], seen: &mut Seen) {
        read_event(data, seen);
    }

    fn error_message(&self, body: &[u8]) -> Option<String> {
        let failure: Event = serde_json::from_slice(body).ok()?;
        failure.error?.message
    }

    fn refused_as(&self, status: StatusCode, body: &[u8]) -> Option<StatusCode> {
        let is_unpaid = status == StatusCode::TOO_MANY_REQUESTS && refused::is_unpaid(body);
        is_unpaid.then_some(StatusCode::PAYMENT_REQUIRED)
    }

    fn told(&self, refused: &Refused<'_>) -> Told {
        refused::told(refused)
    }

    fn listing(&self) -> Listing {
        Listing { path: MODELS, query: None }
    }

    fn listed(&self, body: &[u8]) -> Option<Vec<String>> {
        let listed: Listed = serde_json::from_slice(body).ok()?;
        Some(listed.data.into_iter().map(|model| model.id).collect())
    }

    fn models(&self, ids: &[String], _query: &str) -> Response {
        json(&ModelList { object: "list", data: ids.iter().map(|id| describe(id)).collect() })
    }

    fn model(&self, id: &str) -> Response {
        json(&describe(id))
    }
}

fn outline(body: &[u8], _: Option<String>) -> Result<Outline, Problem> {
    let fields: Fields = fields(body)?;
    let answer = fields.max_completion_tokens.max(fields.max_tokens).max(fields.max_output_tokens);
    let answers = fields.n.max(fields.best_of).unwrap_or(1).max(1);
    fields.outline(answer.unwrap_or(DEFAULT_OUTPUT_TOKENS).saturating_mul(answers))
}

fn outline_embeddings(body: &[u8], _: Option<String>) -> Result<Outline, Problem> {
    fields::<Fields>(body)?.outline(0)
}

/// The fields that matter; a field that comes twice is an error, since the upstream might take the other one.
#[derive(Deserialize)]
struct Fields<'a> {
    model: Option<String>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    n: Option<u64>,
    best_of: Option<u64>,
    #[serde(default)]
    messages: TextBytes<PromptKey>,
    #[serde(default)]
    prompt: TextBytes<PromptKey>,
    #[serde(default)]
    input: TextBytes<PromptKey>,
    #[serde(default)]
    instructions: TextBytes<PromptKey>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_cache_key: Option<&'a RawValue>,
    /// Of the responses endpoint: its id, or an object that has it.
    #[serde(borrow)]
    conversation: Option<&'a RawValue>,
}

impl Fields<'_> {
    fn outline(self, answer_tokens: u64) -> Result<Outline, Problem> {
        let tools = self.tools.map_or(0, |tools| tools.get().len() as u64);
        let text_bytes = [self.messages, self.prompt, self.input, self.instructions];
        let text_bytes = text_bytes.iter().fold(tools, |sum, text| sum.saturating_add(text.0));
        let outline = Outline::new(self.model, self.stream.unwrap_or(false), text_bytes, answer_tokens)?;
        Ok(outline.of_session(&[self.prompt_cache_key, self.conversation]))
    }
}

/// What is text in a prompt. Pictures and sound are not, and ids and roles no prompt.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PromptKey {
    #[serde(
        alias = "content",
        alias = "output",
        alias = "refusal",
        alias = "summary",
        alias = "arguments",
        alias = "function",
        alias = "function_call",
        alias = "tool_calls"
    )]
    Text,
    #[serde(other)]
    Other,
}

impl TextKey for PromptKey {
    /// A prompt may be given as tokens already: each stands for the bytes of one.
    const NUMBER: u64 = BYTES_PER_TOKEN;

    fn text_bytes<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<u64, A::Error> {
        match self {
            PromptKey::Text => Ok(entries.next_value::<TextBytes<PromptKey>>()?.0),
            PromptKey::Other => entries.next_value::<IgnoredAny>().map(|_| 0),
        }
    }
}

fn refuse(problem: &Problem) -> Response {
    let (kind, code) = words(problem.class);
    let error = ErrorBody { message: &problem.message, kind, param: problem.param, code };
    let mut response = refusal(problem, &Envelope { error });
    if problem.class == Class::Key {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
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
        Class::Budget => ("insufficient_quota", Some("insufficient_quota")),
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

fn describe(id: &str) -> Model<'_> {
    Model { id, object: "model", created: 0, owned_by: "tollgate" }
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
}

fn read_event(data: &[u8], seen: &mut Seen) {
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
        seen.done = true;
    }
}

/// An event of any of the endpoints, or an error answer.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(default)]
    choices: Vec<Choice>,
    /// Text of the responses endpoint; chat has its deltas inside the choices.
    #[serde(default)]
    delta: TextBytes<DeltaKey>,
    usage: Option<Usage>,
    response: Option<Inner>,
    error: Option<Failure>,
    /// The responses endpoint names its events.
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: TextBytes<DeltaKey>,
    #[serde(default)]
    text: TextBytes<DeltaKey>,
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

/// Chat has prompt and completion tokens, the responses endpoint input and output tokens.
#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    total_tokens: Option<u64>,
    prompt_tokens_details: Option<InputDetails>,
    input_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Default, Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl Usage {
    fn note(self, seen: &mut Seen) {
        let input = self.prompt_tokens.or(self.input_tokens);
        let rest = || Some(self.total_tokens?.saturating_sub(input?));
        let output = self.completion_tokens.or(self.output_tokens).or_else(rest);
        if input.or(output).is_none() {
            return;
        }
        let of_input = self.prompt_tokens_details.or(self.input_tokens_details).unwrap_or_default();
        let of_output = self.completion_tokens_details.or(self.output_tokens_details).unwrap_or_default();
        // The last report holds.
        seen.reported = Reported {
            input,
            output,
            cache_read: of_input.cached_tokens.unwrap_or(0),
            cache_write: of_input.cache_write_tokens.unwrap_or(0),
            reasoning: of_output.reasoning_tokens.unwrap_or(0),
        };
    }
}

/// What a model writes in a delta.
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

impl TextKey for DeltaKey {
    const NUMBER: u64 = 0;

    fn text_bytes<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<u64, A::Error> {
        match self {
            DeltaKey::Written => Ok(entries.next_value::<TextBytes<DeltaKey>>()?.0),
            DeltaKey::Other => entries.next_value::<IgnoredAny>().map(|_| 0),
        }
    }
}

#[cfg(test)]
mod tests;
