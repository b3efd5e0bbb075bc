//! Anthropic's dialect: paths, credentials, requests, errors and where usage stands. What its refusals say is beside it.

mod refused;

use std::{borrow::Cow, fmt};

use axum::{extract::Query, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, request};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Api, Dialect, Endpoint, Listing, Target, Uses, bearer, fixed_target, json, refusal, secret};
use crate::gateway::{
    error::{Class, Problem},
    limited::{Refused, Told},
    limits::DEFAULT_OUTPUT_TOKENS,
    request::{Outline, TextBytes, TextKey, fields},
    usage::Seen,
};

pub(super) struct Anthropic;

static ENDPOINTS: [Endpoint; 2] = [
    Endpoint { dialect: Dialect::Anthropic, path: "/v1/messages", outline, uses: Uses::Text },
    Endpoint {
        dialect: Dialect::Anthropic,
        path: "/v1/messages/count_tokens",
        outline: outline_count,
        uses: Uses::Nothing,
    },
];

const MODELS: &str = "/v1/models";

const KEY: HeaderName = HeaderName::from_static("x-api-key");
const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// What an upstream gets from clients that do not say which version they mean: the only one that is not deprecated.
const DEFAULT_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// The status of an `overloaded_error`, by which clients know it.
const OVERLOADED: u16 = 529;

/// Models on a page of the list, unless the request says how many; and the most it may ask for.
const PAGE: usize = 20;
const PAGE_MAX: usize = 1_000;

impl Api for Anthropic {
    fn client_type(&self) -> &'static str {
        "claude"
    }

    fn provider(&self) -> &'static str {
        "anthropic"
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

    fn is_meant(&self, head: &request::Parts) -> bool {
        head.headers.contains_key(VERSION)
            || head.headers.contains_key(KEY)
            || head.uri.path().starts_with("/v1/messages")
    }

    fn credentials<'a>(&self, head: &'a request::Parts) -> Option<&'a str> {
        match head.headers.get(KEY) {
            Some(key) => key.to_str().ok(),
            None => bearer(&head.headers),
        }
    }

    fn place_of_key(&self) -> &'static str {
        "the x-api-key header"
    }

    fn is_credential(&self, name: &HeaderName) -> bool {
        *name == KEY
    }

    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)> {
        Some((KEY, secret(key)?))
    }

    fn session_headers(&self) -> &'static [&'static str] {
        // Claude Code's.
        &["x-claude-code-session-id"]
    }

    fn complete(&self, headers: &mut HeaderMap) {
        headers.entry(VERSION).or_insert(DEFAULT_VERSION);
    }

    fn tells_account(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        matches!(name, "anthropic-organization-id" | "anthropic-workspace-id")
            || name.starts_with("anthropic-ratelimit-")
    }

    fn id_header(&self) -> Option<HeaderName> {
        Some(HeaderName::from_static("request-id"))
    }

    fn refuse(&self, problem: &Problem, id: &str) -> Response {
        let error = ErrorBody { kind: kind(problem.class), message: &problem.message };
        let mut response = refusal(problem, &Envelope { kind: "error", error, request_id: id });
        if problem.class == Class::Unavailable {
            *response.status_mut() =
                StatusCode::from_u16(OVERLOADED).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        }
        response
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
        // What is no JSON tells nothing.
        if let Ok(event) = serde_json::from_slice::<Event>(data) {
            event.note(seen);
        }
    }

    fn error_message(&self, body: &[u8]) -> Option<String> {
        let failure: Event = serde_json::from_slice(body).ok()?;
        failure.error?.message
    }

    fn overload(&self) -> u16 {
        OVERLOADED
    }

    fn doubtful(&self) -> Option<StatusCode> {
        Some(StatusCode::BAD_REQUEST)
    }

    fn refused_as(&self, status: StatusCode, body: &[u8]) -> Option<StatusCode> {
        let is_unpaid = || self.error_message(body).is_some_and(|said| refused::is_unpaid(&said));
        (status == StatusCode::BAD_REQUEST && is_unpaid()).then_some(StatusCode::PAYMENT_REQUIRED)
    }

    fn told(&self, refused: &Refused<'_>) -> Told {
        refused::told(refused, self.error_message(refused.body).as_deref().unwrap_or_default())
    }

    fn listing(&self) -> Listing {
        Listing { path: MODELS, query: Some("limit=1000") }
    }

    fn listed(&self, body: &[u8]) -> Option<Vec<String>> {
        let listed: Listed = serde_json::from_slice(body).ok()?;
        Some(listed.data.into_iter().map(|model| model.id).collect())
    }

    fn models(&self, ids: &[String], query: &str) -> Response {
        json(&ModelList::of(ids, &Page::of(query)))
    }

    fn model(&self, id: &str) -> Response {
        json(&describe(id))
    }
}

fn outline(body: &[u8], _: Option<String>) -> Result<Outline, Problem> {
    let fields: Fields = fields(body)?;
    let tools = fields.tools.map_or(0, |tools| tools.get().len() as u64);
    let text_bytes = tools.saturating_add(fields.system.0).saturating_add(fields.messages.0);
    let answer_tokens = fields.max_tokens.unwrap_or(DEFAULT_OUTPUT_TOKENS);
    let outline = Outline::new(fields.model, fields.stream.unwrap_or(false), text_bytes, answer_tokens)?;
    // Claude Code has its session in it, and others their user.
    let metadata = fields.metadata.and_then(|metadata| serde_json::from_str::<Metadata>(metadata.get()).ok());
    Ok(outline.of_session(&[metadata.and_then(|metadata| metadata.user_id)]))
}

fn outline_count(body: &[u8], _: Option<String>) -> Result<Outline, Problem> {
    Outline::new(fields::<Fields>(body)?.model, false, 0, 0)
}

/// The fields that matter; a field that comes twice is an error, since the upstream might take the other one.
#[derive(Deserialize)]
struct Fields<'a> {
    model: Option<String>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    #[serde(default)]
    system: TextBytes<PromptKey>,
    #[serde(default)]
    messages: TextBytes<PromptKey>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
}

/// What is text in a prompt. Pictures are not, and ids and roles no prompt.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PromptKey {
    #[serde(
        alias = "content",
        alias = "thinking",
        alias = "title",
        alias = "context",
        alias = "stdout",
        alias = "stderr"
    )]
    Text,
    /// What a tool was called with, whatever it is.
    Input,
    /// Where a picture or document comes from.
    Source,
    #[serde(other)]
    Other,
}

impl TextKey for PromptKey {
    const NUMBER: u64 = 0;

    fn text_bytes<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<u64, A::Error> {
        match self {
            PromptKey::Text => Ok(entries.next_value::<TextBytes<PromptKey>>()?.0),
            PromptKey::Input => Ok(entries.next_value::<&RawValue>()?.get().len() as u64),
            PromptKey::Source => Ok(entries.next_value::<SourceText>()?.0),
            PromptKey::Other => entries.next_value::<IgnoredAny>().map(|_| 0),
        }
    }
}

/// Bytes of text in a source: a document may be there as text or as blocks of it, which may have sources too; a search
/// result has its address there. Read within the request, whose depth is bounded: a source that was parsed by itself
/// could hold sources without end.
struct SourceText(u64);

impl<'de> Deserialize<'de> for SourceText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SourceText, D::Error> {
        deserializer.deserialize_any(SourceVisitor).map(SourceText)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum SourceKey {
    MediaType,
    Data,
    Content,
    #[serde(other)]
    Other,
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        let (mut plain, mut data, mut content) = (false, 0, 0_u64);
        while let Some(key) = entries.next_key()? {
            match key {
                SourceKey::MediaType => {
                    // Decoded, since it can be written with escapes.
                    let kind = serde_json::from_str::<Cow<'_, str>>(entries.next_value::<&RawValue>()?.get());
                    plain = kind.is_ok_and(|kind| kind == "text/plain");
                }
                SourceKey::Data => data = entries.next_value::<&RawValue>()?.get().len() as u64,
                SourceKey::Content => {
                    content = content.saturating_add(entries.next_value::<TextBytes<PromptKey>>()?.0);
                }
                SourceKey::Other => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(content.saturating_add(if plain { data } else { 0 }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(0)
    }

    fn visit_str<E>(self, _: &str) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }
}

fn kind(class: Class) -> &'static str {
    match class {
        Class::Invalid | Class::Method => "invalid_request_error",
        Class::Key => "authentication_error",
        Class::Forbidden => "permission_error",
        Class::Model | Class::Path => "not_found_error",
        Class::TooLarge => "request_too_large",
        Class::RequestLimit | Class::TokenLimit | Class::Budget => "rate_limit_error",
        Class::Unavailable => "overloaded_error",
        Class::Slow | Class::UpstreamTimeout => "timeout_error",
        Class::Upstream | Class::Internal => "api_error",
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    error: ErrorBody<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct ModelList<'a> {
    data: Vec<Model<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    display_name: &'a str,
    /// 1970 stands for a time that is not known.
    created_at: &'static str,
}

fn describe(id: &str) -> Model<'_> {
    Model { kind: "model", id, display_name: id, created_at: "1970-01-01T00:00:00Z" }
}

/// Which part of the list is asked for.
#[derive(Default, Deserialize)]
struct Page {
    limit: Option<usize>,
    after_id: Option<String>,
    before_id: Option<String>,
}

impl Page {
    /// What a query asks for; the first page if that cannot be understood.
    fn of(query: &str) -> Page {
        let uri = format!("/?{query}").parse::<Uri>().unwrap_or_default();
        Query::try_from_uri(&uri).map_or_else(|_| Page::default(), |Query(page)| page)
    }
}

impl<'a> ModelList<'a> {
    fn of(ids: &'a [String], page: &Page) -> ModelList<'a> {
        let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
        let place = |id: &String| ids.iter().position(|known| known == id);
        let start = page.after_id.as_ref().map_or(0, |id| place(id).map_or(ids.len(), |place| place + 1));
        let end = page.before_id.as_ref().and_then(place).unwrap_or(ids.len());
        let wanted = ids.get(start..end).unwrap_or_default();
        let has_more = wanted.len() > limit;
        // Backwards, a page is what stands right before.
        let skipped = if has_more && page.before_id.is_some() { wanted.len() - limit } else { 0 };
        let shown = wanted.iter().skip(skipped).take(limit);
        let data: Vec<Model<'_>> = shown.map(|id| describe(id)).collect();
        let (first_id, last_id) = (data.first().map(|model| model.id), data.last().map(|model| model.id));
        ModelList { data, has_more, first_id, last_id }
    }
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
}

/// An event of a stream, or an error answer.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    /// How `message_start` tells what the prompt costs.
    message: Option<Started>,
    /// How `message_delta` tells what the answer cost.
    usage: Option<Usage>,
    #[serde(default)]
    delta: TextBytes<DeltaKey>,
    #[serde(default)]
    content_block: TextBytes<DeltaKey>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Started {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Failure {
    message: Option<String>,
}

impl Event<'_> {
    fn note(self, seen: &mut Seen) {
        seen.text_bytes += self.delta.0 + self.content_block.0;
        if let Some(usage) = self.message.and_then(|message| message.usage) {
            // Its count of the answer is that of the first token.
            Usage { output_tokens: None, ..usage }.note(seen);
        }
        if let Some(usage) = self.usage {
            usage.note(seen);
        }
        if let Some(error) = self.error {
            seen.failure = Some(error.message.unwrap_or_else(|| "the upstream reported an error".to_owned()));
        }
        seen.done |= matches!(&*self.kind, "message_stop" | "error");
    }
}

#[derive(Deserialize)]
struct Usage {
    /// What neither came from the cache nor went into it.
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

impl Usage {
    /// Numbers are those of the whole message so far, and one that is not there is as it was.
    fn note(self, seen: &mut Seen) {
        let reported = &mut seen.reported;
        let cached = reported.cache_read.saturating_add(reported.cache_write);
        let fresh = reported.input.map(|input| input.saturating_sub(cached));
        reported.cache_read = self.cache_read_input_tokens.unwrap_or(reported.cache_read);
        reported.cache_write = self.cache_creation_input_tokens.unwrap_or(reported.cache_write);
        let cached = reported.cache_read.saturating_add(reported.cache_write);
        reported.input = self.input_tokens.or(fresh).map(|fresh| fresh.saturating_add(cached));
        reported.output = self.output_tokens.or(reported.output);
        if let Some(details) = self.output_tokens_details {
            reported.reasoning = details.thinking_tokens.unwrap_or(reported.reasoning);
        }
    }
}

/// What a model writes in a delta.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum DeltaKey {
    #[serde(alias = "text", alias = "thinking", alias = "partial_json")]
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
