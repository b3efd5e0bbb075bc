//! What the fuzz targets reach of the gateway's parsers, which are nobody else's business: it forwards, and no more.

use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_ENCODING, request};

use super::{
    dialect::{Dialect, Target, Uses},
    limited::Refused,
    limits,
    request::model_in_path,
    usage::UsageReader,
};

/// Longest message of a refusal, in bytes.
pub const PROBLEM_BYTES: usize = limits::PROBLEM_BYTES;

/// Longest name of a model, in bytes.
pub const MODEL_BYTES: usize = limits::MODEL_BYTES;

/// Largest estimate, in tokens.
pub const ESTIMATE_MAX: u64 = limits::ESTIMATE_MAX;

/// Longest event that is kept to be read as a whole, in bytes.
pub const LINE_BYTES: usize = limits::LINE_BYTES;

/// What the gateway reads of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the outline of a request")]
pub struct Asked {
    pub dialect: Dialect,
    pub model: String,
    pub streaming: bool,
    pub prompt_tokens: u64,
    pub estimated_tokens: u64,
}

/// Reads a request; none if it is not one to be forwarded. The error is the refusal's message.
pub fn read_request(head: &request::Parts, body: &[u8]) -> Option<Result<Asked, String>> {
    let (dialect, target) = Dialect::of(head);
    let Some(Target::Forward(endpoint, model)) = target else { return None };
    let model = model.map(|model| model_in_path(model).map(String::from)).transpose();
    let outline = model.and_then(|model| (endpoint.outline)(body, model));
    Some(outline.map_err(|problem| problem.message.into_owned()).map(|outline| Asked {
        dialect,
        model: outline.model,
        streaming: outline.streaming,
        prompt_tokens: outline.prompt_tokens,
        estimated_tokens: outline.estimated_tokens,
    }))
}

/// The client's key in a request, and what of its query an upstream gets.
pub fn read_head(head: &request::Parts) -> (Option<String>, Option<String>) {
    let api = Dialect::of(head).0.api();
    let query = head.uri.query().and_then(|query| api.upstream_query(query));
    (api.credentials(head).map(str::to_owned), query.map(String::from))
}

/// What an answer is.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// A stream of events.
    Events,
    /// A plain answer that a model wrote.
    Written,
    /// One that nobody wrote, such as an embedding.
    Unwritten,
    /// One that uses nothing.
    Free,
    /// An error.
    Error,
}

/// Reads one answer.
pub struct Reader(UsageReader);

/// What an answer told: tokens as input, output, cache read, cache write and reasoning; the error; whether its last event
/// has passed.
pub type Told = ([u64; 5], Option<String>, bool);

impl Reader {
    /// Reads an answer that may come in gzip.
    pub fn new(dialect: Dialect, answer: Answer, gzip: bool) -> Reader {
        let reader = match answer {
            Answer::Events => UsageReader::events(dialect),
            Answer::Written => UsageReader::json(dialect, Uses::Text),
            Answer::Unwritten => UsageReader::json(dialect, Uses::Prompt),
            Answer::Free => UsageReader::json(dialect, Uses::Nothing),
            Answer::Error => UsageReader::error(dialect),
        };
        let coding = gzip.then_some((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        Reader(reader.decoding(&HeaderMap::from_iter(coding), "req"))
    }

    /// Reads the next piece.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    /// What it told so far, where the prompt was estimated at so many tokens.
    pub fn told(&self, prompt: u64) -> Told {
        let tokens = self.0.tokens(prompt);
        let counts = [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write, tokens.reasoning];
        (counts, self.0.failure(), self.0.is_done())
    }
}

/// What an error answer's body tells: the status that others have for it, and the wait that it asks for in milliseconds.
pub fn read_error(dialect: Dialect, body: &[u8]) -> (Option<u16>, Option<u64>) {
    let refused_as = [StatusCode::BAD_REQUEST, StatusCode::TOO_MANY_REQUESTS]
        .into_iter()
        .find_map(|status| dialect.api().refused_as(status, body));
    let told = dialect.api().told(&Refused::new(&HeaderMap::new(), body, 0));
    (refused_as.map(|status| status.as_u16()), told.retry_after_ms)
}

/// The names in an upstream's list of models.
pub fn read_listing(dialect: Dialect, body: &[u8]) -> Option<Vec<String>> {
    dialect.api().listed(body)
}
