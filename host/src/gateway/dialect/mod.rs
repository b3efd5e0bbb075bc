//! What clients and upstreams speak. A dialect is one file, which implements [`Api`], with parts of it in a folder beside it,
//! and its lines in [`Dialect`].

mod anthropic;
mod gemini;
mod openai;

use std::borrow::Cow;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
    request,
};
use serde::Serialize;

use super::{
    error::{Class, Problem},
    limited::{Refused, Told},
    renamed::{self, Change},
    request::Outline,
    usage::Seen,
};

/// An API style.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// As OpenAI's API.
    OpenAi,
    /// As Anthropic's API.
    Anthropic,
    /// As Google's Gemini API.
    Gemini,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 3] = [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini];

    /// The dialect where nothing tells which is meant.
    pub(super) const COMMON: Dialect = Dialect::OpenAi;

    /// The name in configuration and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
            Dialect::Gemini => "gemini",
            Dialect::Anthropic => "anthropic",
        }
    }

    /// What the gateway must know of it.
    pub(super) fn api(self) -> &'static dyn Api {
        match self {
            Dialect::OpenAi => &openai::OpenAi,
            Dialect::Gemini => &gemini::Gemini,
            Dialect::Anthropic => &anthropic::Anthropic,
        }
    }

    /// Whether some upstream tells by this status that it has too much to do, in whatever dialect: relays pass on what they
    /// are told.
    pub(super) fn is_overload(status: u16) -> bool {
        Dialect::ALL.into_iter().any(|dialect| dialect.api().overload() == status)
    }

    /// The headers in which tools name their sessions, in whatever dialect they speak.
    pub(super) fn session_headers() -> impl Iterator<Item = &'static str> {
        Dialect::ALL.into_iter().flat_map(|dialect| dialect.api().session_headers().iter().copied())
    }

    /// The dialect of a request, and what stands at its path. The path tells; the headers only where dialects share a
    /// path, or none has it.
    pub(super) fn of(head: &request::Parts) -> (Dialect, Option<Target<'_>>) {
        let mut found = None;
        for dialect in Dialect::ALL {
            if let Some(target) = dialect.api().target(head.uri.path())
                && (found.is_none() || dialect.api().is_meant(head))
            {
                found = Some((dialect, target));
            }
        }
        match found {
            Some((dialect, target)) => (dialect, Some(target)),
            None => {
                let meant = Dialect::ALL.into_iter().find(|dialect| dialect.api().is_meant(head));
                (meant.unwrap_or(Dialect::COMMON), None)
            }
        }
    }
}

/// What stands at a path. Names of models are as in the path, still percent-encoded.
pub(super) enum Target<'a> {
    /// Requests that are forwarded, with their model if the path names it.
    Forward(&'static Endpoint, Option<&'a str>),
    /// The list of models.
    Models,
    /// One model.
    Model(&'a str),
    /// Nothing that is served, where another dialect might see a model.
    Nothing,
}

/// Paths that are forwarded.
pub(super) struct Endpoint {
    /// What is spoken there.
    pub(super) dialect: Dialect,
    /// The path, as in the log; `{model}` stands for what differs.
    pub(super) path: &'static str,
    /// Reads a body; also gets the model, if the path names it.
    pub(super) outline: fn(&[u8], Option<String>) -> Result<Outline, Problem>,
    /// What its answers cost.
    pub(super) uses: Uses,
}

impl Endpoint {
    /// Whether its path is the same for every request.
    pub(super) fn is_fixed(&self) -> bool {
        !self.path.contains('{')
    }

    /// What is done there, as OpenTelemetry's conventions name it; they have no word for counting.
    pub(super) fn operation(&self) -> &'static str {
        match self.uses {
            Uses::Text => self.dialect.api().writing(self.path),
            Uses::Prompt => "embeddings",
            Uses::Nothing => "count_tokens",
        }
    }
}

/// Where a list of models is.
pub(super) struct Listing {
    /// Its path.
    pub(super) path: &'static str,
    /// What asks an upstream for all of it at once.
    pub(super) query: Option<&'static str>,
}

/// What an endpoint's answers cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    /// The prompt, and what the model writes.
    Text,
    /// The prompt, for an answer that nobody writes, such as an embedding.
    Prompt,
    /// No tokens.
    Nothing,
}

/// What the gateway must know of a dialect; the rest of it does not know which one it serves.
pub(super) trait Api: Sync {
    /// The client's type in the log and for policies.
    fn client_type(&self) -> &'static str;

    /// Who serves it, as OpenTelemetry's conventions name them.
    fn provider(&self) -> &'static str;

    /// What writing text at a path is called by OpenTelemetry's conventions.
    fn writing(&self, _path: &str) -> &'static str {
        "chat"
    }

    /// The versions that paths begin with, and that an account's base URL may end in: `/v1`.
    fn versions(&self) -> &'static [&'static str];

    /// The paths that are forwarded.
    fn endpoints(&self) -> &'static [Endpoint];
    /// What stands at a path.
    fn target<'a>(&self, path: &'a str) -> Option<Target<'a>>;

    /// Whether a request is meant for this dialect, by its headers or by how its path begins.
    fn is_meant(&self, head: &request::Parts) -> bool;

    /// The client's key; none if there is none or it is no text.
    fn credentials<'a>(&self, head: &'a request::Parts) -> Option<&'a str>;

    /// Where a client is to put its key, after "put it into".
    fn place_of_key(&self) -> &'static str;

    /// Headers of this dialect that tell who the client is to the gateway, which no upstream must see.
    fn is_credential(&self, name: &HeaderName) -> bool;

    /// What of a query the upstream gets.
    fn upstream_query<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        Some(Cow::Borrowed(query))
    }

    /// What is to be changed in a request's body for it to name model `to` wherever it names `from`, besides its path;
    /// none if the body is not one that was read.
    fn rename(&self, body: &[u8], _from: &str, to: &str) -> Option<Vec<Change>> {
        renamed::at_top(body, to)
    }

    /// What is to be changed in the body of a request for a stream at `path` so that the upstream reports what it used;
    /// nothing if the client asks for that itself, or nobody has to.
    fn ask_for_usage(&self, _path: &str, _body: &[u8]) -> Vec<Change> {
        Vec::new()
    }

    /// Whether an event of a stream tells nothing but what was used, so that whoever has not asked for that does not get it.
    fn is_only_usage(&self, _data: &[u8]) -> bool {
        false
    }

    /// The headers in which tools that speak this dialect name their sessions, the first that is there counting.
    fn session_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// The header that carries an account's key; none if it cannot be carried.
    fn authorization(&self, key: &str) -> Option<(HeaderName, HeaderValue)>;

    /// Sets what headers must hold, or must not, so that an upstream answers and usage can be read.
    fn complete(&self, _headers: &mut HeaderMap) {}

    /// Headers of an answer that tell about the account behind it, which the client must not see.
    fn tells_account(&self, name: &HeaderName) -> bool;

    /// The header in which this dialect's clients look for a request's id, beside `x-request-id`.
    fn id_header(&self) -> Option<HeaderName> {
        None
    }

    /// The answer to a request that is not served.
    fn refuse(&self, problem: &Problem, id: &str) -> Response;

    /// The names of the entries of an answer that [`read_entry`](Api::read_entry) wants: top-level ones, in the answer
    /// itself or in the elements of an array that is the answer. In an event too long to be kept they may also stand
    /// one level deeper.
    fn entries(&self) -> &'static [&'static str];

    /// Reads one of these entries.
    fn read_entry(&self, name: &str, json: &[u8], seen: &mut Seen);

    /// Reads the data of one event of a stream.
    fn read_event(&self, data: &[u8], seen: &mut Seen);

    /// The message of an upstream's error answer, if it has one.
    fn error_message(&self, body: &[u8]) -> Option<String>;

    /// The status by which an upstream tells that it has too much to do.
    fn overload(&self) -> u16 {
        StatusCode::SERVICE_UNAVAILABLE.as_u16()
    }

    /// A status that may mean, besides other things, that the account was refused; then the body tells.
    fn doubtful(&self) -> Option<StatusCode> {
        None
    }

    /// The status by which other dialects tell of what an error answer with this status says in its body: that the account's
    /// key was refused, or that it has no credit; none: what its own status says.
    fn refused_as(&self, _status: StatusCode, _body: &[u8]) -> Option<StatusCode> {
        None
    }

    /// What an answer that tells of trouble with the account says about waiting, and about the upstream's limits.
    fn told(&self, refused: &Refused<'_>) -> Told {
        Told { retry_after_ms: refused.retry_after_ms(), reached: None }
    }

    /// Where the list of models is, here and upstream.
    fn listing(&self) -> Listing;

    /// The names in an upstream's list of models.
    fn listed(&self, body: &[u8]) -> Option<Vec<String>>;

    /// The list of models, as an answer; the query may ask for a part of it.
    fn models(&self, ids: &[String], query: &str) -> Response;

    /// One model, as an answer.
    fn model(&self, id: &str) -> Response;
}

/// What a path stands for where no path has a model in it but the models' own.
fn fixed_target<'a>(
    endpoints: &'static [Endpoint],
    models: &'static str,
    path: &'a str,
) -> Option<Target<'a>> {
    if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.path == path) {
        return Some(Target::Forward(endpoint, None));
    }
    match path.strip_prefix(models)? {
        "" => Some(Target::Models),
        id => id.strip_prefix('/').filter(|id| !id.is_empty()).map(Target::Model),
    }
}

/// The key of a client that speaks no dialect, from its headers. Anthropic's has both places that are no part of an address.
pub(super) fn key_in_headers(head: &request::Parts) -> Option<&str> {
    Dialect::Anthropic.api().credentials(head)
}

/// The token of an `authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    const SCHEME: &str = "bearer ";
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| key.trim())
}

/// A header value that logs do not show.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The answer to a request that is not served, with a body in the dialect's shape.
fn refusal(problem: &Problem, body: &impl Serialize) -> Response {
    let mut response = json(body);
    *response.status_mut() = problem.status();
    let headers = response.headers_mut();
    if let Some(seconds) = problem.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        let ms = problem.retry_after_ms.unwrap_or_default();
        headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(ms));
    }
    if matches!(problem.class, Class::TooLarge | Class::Slow) {
        // The rest of the body may still be on its way and must not be taken for the next request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn json(body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).unwrap_or_default();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], Body::from(text)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(bearer(&headers), key, "{value:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(bearer(&headers), None);
    }
}
