//! Gemini's dialect: paths, credentials, errors and lists of models. What a request asks for, and where usage stands in
//! an answer, is beside it.

mod request;
#[cfg(test)]
mod tests;
mod usage;

use std::borrow::Cow;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::{Api, Dialect, Endpoint, Listing, Target, Uses, json, refusal, secret};
use crate::gateway::{
    error::{Class, Problem},
    limited::{Refused, Told, until_pacific_midnight_ms},
    renamed::Change,
    request::Outline,
    usage::Seen,
};
use crate::plugin::admission::{Measure, Reached};
use request::{outline_count, outline_prompt, outline_stream, outline_whole, rename};
use usage::Failure;

pub(super) struct Gemini;

/// Both versions of the API: SDKs begin with one or the other.
static ENDPOINTS: [Endpoint; 10] = [
    endpoint("/v1beta/models/{model}:generateContent", outline_whole, Uses::Text),
    endpoint("/v1beta/models/{model}:streamGenerateContent", outline_stream, Uses::Text),
    endpoint("/v1beta/models/{model}:countTokens", outline_count, Uses::Nothing),
    endpoint("/v1beta/models/{model}:embedContent", outline_prompt, Uses::Prompt),
    endpoint("/v1beta/models/{model}:batchEmbedContents", outline_prompt, Uses::Prompt),
    endpoint("/v1/models/{model}:generateContent", outline_whole, Uses::Text),
    endpoint("/v1/models/{model}:streamGenerateContent", outline_stream, Uses::Text),
    endpoint("/v1/models/{model}:countTokens", outline_count, Uses::Nothing),
    endpoint("/v1/models/{model}:embedContent", outline_prompt, Uses::Prompt),
    endpoint("/v1/models/{model}:batchEmbedContents", outline_prompt, Uses::Prompt),
];

const fn endpoint(
    path: &'static str,
    outline: fn(&[u8], Option<String>) -> Result<Outline, Problem>,
    uses: Uses,
) -> Endpoint {
    Endpoint { dialect: Dialect::Gemini, path, outline, uses }
}

/// The version of the API that only this dialect has.
const BETA: &str = "/v1beta";
const MODELS: [&str; 2] = ["/v1beta/models", "/v1/models"];

/// The header that carries a key, from clients and to upstreams.
const KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// The header that says which entries an answer is to have.
const FIELD_MASK: HeaderName = HeaderName::from_static("x-goog-fieldmask");

impl Api for Gemini {
    fn client_type(&self) -> &'static str {
        "gemini"
    }

    fn provider(&self) -> &'static str {
        "gcp.gemini"
    }

    fn writing(&self, _path: &str) -> &'static str {
        "generate_content"
    }

    fn versions(&self) -> &'static [&'static str] {
        &[BETA, "/v1"]
    }

    fn endpoints(&self) -> &'static [Endpoint] {
        &ENDPOINTS
    }

    fn target<'a>(&self, path: &'a str) -> Option<Target<'a>> {
        forwarded(path).or_else(|| {
            match MODELS.iter().find_map(|models| path.strip_prefix(models))? {
                "" => Some(Target::Models),
                "/" => None,
                // What stands behind a colon is a method, and none that is served.
                id if id.contains(':') => id.starts_with('/').then_some(Target::Nothing),
                id => id.strip_prefix('/').map(Target::Model),
            }
        })
    }

    fn is_meant(&self, head: &Parts) -> bool {
        let path = head.uri.path();
        path.strip_prefix(BETA).is_some_and(|rest| rest.starts_with('/'))
            || forwarded(path).is_some()
            || self.credentials(head).is_some()
    }

    fn credentials<'a>(&self, head: &'a Parts) -> Option<&'a str> {
        let in_header = head.headers.get(KEY).and_then(|value| value.to_str().ok()).map(str::trim);
        let in_query = || parameter(head.uri.query()?, "key");
        in_header.filter(|key| !key.is_empty()).or_else(in_query).filter(|key| !key.is_empty())
    }

    fn place_of_key(&self) -> &'static str {
        "the x-goog-api-key header"
    }

    fn is_credential(&self, name: &HeaderName) -> bool {
        // Projects and users of the client's own do not exist for the account.
        matches!(name.as_str(), "x-goog-api-key" | "x-goog-user-project" | "x-goog-quota-user")
    }

    fn upstream_query<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        // Google takes keys, users, headers and forms that nothing could be read from under many names there; the one
        // thing that clients need is this.
        (parameter(query, "alt") == Some("sse")).then_some(Cow::Borrowed("alt=sse"))
    }

    fn rename(&self, body: &[u8], from: &str, to: &str) -> Option<Vec<Change>> {
        rename(body, from, to)
    }

    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)> {
        Some((KEY, secret(key)?))
    }

    fn complete(&self, headers: &mut HeaderMap) {
        // It would leave usage out of the answer.
        headers.remove(FIELD_MASK);
    }

    fn tells_account(&self, name: &HeaderName) -> bool {
        name.as_str().starts_with("x-ratelimit-")
    }

    fn refuse(&self, problem: &Problem, _id: &str) -> Response {
        refuse(problem)
    }

    fn entries(&self) -> &'static [&'static str] {
        usage::ENTRIES
    }

    fn read_entry(&self, name: &str, json: &[u8], seen: &mut Seen) {
        usage::read_entry(name, json, seen);
    }

    fn read_event(&self, data: &[u8], seen: &mut Seen) {
        usage::read_event(data, seen);
    }

    fn error_message(&self, body: &[u8]) -> Option<String> {
        Failure::read(body)?.message
    }

    fn doubtful(&self) -> Option<StatusCode> {
        Some(StatusCode::BAD_REQUEST)
    }

    fn refused_as(&self, status: StatusCode, body: &[u8]) -> Option<StatusCode> {
        let is_of_key = || Failure::read(body).is_some_and(|failure| failure.is_of_key());
        (status == StatusCode::BAD_REQUEST && is_of_key()).then_some(StatusCode::UNAUTHORIZED)
    }

    fn told(&self, refused: &Refused<'_>) -> Told {
        let failure = Failure::read(refused.body);
        let reached = failure.as_ref().and_then(Failure::reached);
        let asked = || refused.retry_after_ms().or_else(|| failure.as_ref()?.retry_after_ms());
        Told {
            retry_after_ms: match &reached {
                // Google asks for a minute, whatever is left of the day.
                Some(Reached { measure: Measure::Rpd | Measure::TokensPerDay, .. }) => {
                    Some(until_pacific_midnight_ms(refused.answered_ms))
                }
                _ => asked(),
            },
            reached,
        }
    }

    fn listing(&self) -> Listing {
        Listing { path: MODELS[0], query: Some("pageSize=1000") }
    }

    fn listed(&self, body: &[u8]) -> Option<Vec<String>> {
        let listed: Listed = serde_json::from_slice(body).ok()?;
        let id = |model: ListedModel| model.name.strip_prefix("models/").unwrap_or(&model.name).to_owned();
        Some(listed.models.into_iter().map(id).collect())
    }

    fn models(&self, ids: &[String], query: &str) -> Response {
        json(&page(ids, query))
    }

    fn model(&self, id: &str) -> Response {
        json(&describe(id))
    }
}

fn forwarded(path: &str) -> Option<Target<'_>> {
    ENDPOINTS.iter().find_map(|endpoint| {
        let (before, after) = endpoint.path.split_once("{model}")?;
        let model = path.strip_prefix(before)?.strip_suffix(after)?;
        Some(Target::Forward(endpoint, Some(model)))
    })
}

/// The value of a parameter, as it stands in the query. Google takes each name with a dollar sign before it as well.
fn parameter<'a>(query: &'a str, wanted: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find_map(|(name, value)| {
        let name = percent_decode_str(name).decode_utf8().ok()?;
        (name.strip_prefix('$').unwrap_or(&name) == wanted).then_some(value)
    })
}

fn refuse(problem: &Problem) -> Response {
    let wait = problem.retry_after_ms;
    let wait = wait.map(|ms| Detail::Retry { retry_delay: format!("{}.{:03}s", ms / 1_000, ms % 1_000) });
    let key = (problem.class == Class::Key)
        .then_some(Detail::Info { reason: "API_KEY_INVALID", domain: "tollgate" });
    let error = ErrorBody {
        code: problem.status().as_u16(),
        message: &problem.message,
        status: word(problem.class),
        details: wait.into_iter().chain(key).collect(),
    };
    refusal(problem, &Envelope { error })
}

fn word(class: Class) -> &'static str {
    match class {
        Class::Invalid | Class::TooLarge => "INVALID_ARGUMENT",
        Class::Key => "UNAUTHENTICATED",
        Class::Forbidden => "PERMISSION_DENIED",
        Class::Model | Class::Path => "NOT_FOUND",
        Class::Method => "UNIMPLEMENTED",
        Class::RequestLimit | Class::TokenLimit | Class::Budget => "RESOURCE_EXHAUSTED",
        Class::Unavailable | Class::Upstream => "UNAVAILABLE",
        Class::Slow | Class::UpstreamTimeout => "DEADLINE_EXCEEDED",
        Class::Internal => "INTERNAL",
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: u16,
    message: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

#[derive(Serialize)]
#[serde(tag = "@type")]
enum Detail {
    #[serde(rename = "type.googleapis.com/google.rpc.RetryInfo", rename_all = "camelCase")]
    Retry { retry_delay: String },
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    Info { reason: &'static str, domain: &'static str },
}

/// Models whose names, in order, come after that of the page before.
fn page<'a>(ids: &'a [String], query: &str) -> ModelList<'a> {
    let after = parameter(query, "pageToken").map(|token| percent_decode_str(token).decode_utf8_lossy());
    let begun = after.map_or(0, |last| ids.partition_point(|id| **id <= *last));
    let size = parameter(query, "pageSize").and_then(|size| size.parse().ok()).filter(|size| *size > 0);
    let left = ids.get(begun..).unwrap_or_default();
    let page = left.get(..size.unwrap_or(left.len())).unwrap_or(left);
    ModelList {
        models: page.iter().map(|id| describe(id)).collect(),
        next_page_token: page.last().filter(|_| page.len() < left.len()).map(String::as_str),
    }
}

fn describe(id: &str) -> Model<'_> {
    Model { name: format!("models/{id}"), display_name: id, supported_generation_methods: METHODS }
}

/// What a client may ask of a model; only the upstream knows what each can.
const METHODS: [&str; 4] = ["generateContent", "countTokens", "embedContent", "batchEmbedContents"];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model<'a> {
    name: String,
    display_name: &'a str,
    supported_generation_methods: [&'static str; 4],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelList<'a> {
    models: Vec<Model<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<&'a str>,
}

#[derive(Deserialize)]
struct Listed {
    models: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    name: String,
}
