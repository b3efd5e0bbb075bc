//! What clients and upstreams speak. A dialect is one file and an arm in each function here.

mod openai;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{error::Problem, usage::Seen};

/// An API style.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// As OpenAI's API.
    OpenAi,
}

/// What the body of a request for an endpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/responses`.
    Responses,
}

/// A path that is forwarded.
#[derive(Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What is spoken there.
    pub dialect: Dialect,
    /// The path, as in the log.
    pub path: &'static str,
    /// What its bodies hold.
    pub shape: Shape,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 1] = [Dialect::OpenAi];

    /// The name in configuration, log and policies.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
        }
    }

    /// The paths that are forwarded.
    pub(super) fn endpoints(self) -> &'static [Endpoint] {
        match self {
            Dialect::OpenAi => openai::ENDPOINTS,
        }
    }

    /// The client's key as the headers carry it; none if there is none or it is no text.
    pub(super) fn credentials(self, headers: &HeaderMap) -> Option<&str> {
        match self {
            Dialect::OpenAi => openai::credentials(headers),
        }
    }

    /// Headers of this dialect that tell who the client is to the gateway, which the upstream must not see.
    pub(super) fn is_credential(self, name: &HeaderName) -> bool {
        match self {
            Dialect::OpenAi => openai::is_credential(name),
        }
    }

    /// Headers of an answer that tell about the account behind it, which the client must not see.
    pub(super) fn tells_account(self, name: &HeaderName) -> bool {
        match self {
            Dialect::OpenAi => openai::tells_account(name),
        }
    }

    /// The header value that carries an account's key; none if it cannot be carried.
    pub(super) fn authorization(self, key: &str) -> Option<HeaderValue> {
        match self {
            Dialect::OpenAi => openai::authorization(key),
        }
    }

    /// The answer to a request that is not served.
    pub(super) fn refuse(self, problem: &Problem) -> Response {
        match self {
            Dialect::OpenAi => openai::refuse(problem),
        }
    }

    /// Reads the usage object of a plain answer.
    pub(super) fn read_usage(self, json: &[u8], seen: &mut Seen) {
        match self {
            Dialect::OpenAi => openai::read_usage(json, seen),
        }
    }

    /// Reads the data of one event of a stream.
    pub(super) fn read_event(self, data: &[u8], seen: &mut Seen) {
        match self {
            Dialect::OpenAi => openai::read_event(data, seen),
        }
    }

    /// The message of an upstream's error answer, if it has one.
    pub(super) fn error_message(self, body: &[u8]) -> Option<String> {
        match self {
            Dialect::OpenAi => openai::error_message(body),
        }
    }

    /// The list of models, as an answer.
    pub(super) fn models(self, ids: &[String]) -> Response {
        match self {
            Dialect::OpenAi => openai::models(ids),
        }
    }

    /// One model, as an answer.
    pub(super) fn model(self, id: &str) -> Response {
        match self {
            Dialect::OpenAi => openai::model(id),
        }
    }
}
