//! The upstream that serves when no account is configured: small, deterministic, on this machine only.
//!
//! It repeats what it was told, and counts four bytes of text as a token, which stays below the gateway's estimate. It
//! speaks every dialect, a file each.

mod anthropic;
mod gemini;
mod openai;

use std::{convert::Infallible, io, net::SocketAddr};

use axum::{
    Router,
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderValue, Request, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    account::AccountSpec,
    dialect::{Dialect, Target},
    limits::BODY_BYTES,
    serve,
};

/// The models that it lists; it answers for any.
pub const MODELS: [&str; 2] = ["demo-chat", "demo-embedding"];

/// When its models were made, so that nothing it says depends on the clock.
const CREATED: u64 = 1_767_225_600;

/// Numbers in an embedding, unless the request says how many.
const DIMENSIONS: usize = 64;

/// Most numbers in an embedding that a request may ask for.
const DIMENSIONS_MAX: usize = 4_096;

/// Most texts embedded in one request, and answers given to one.
const INPUTS_MAX: usize = 2_048;
const ANSWERS_MAX: u64 = 16;

/// Starts the demo upstream on a free port of the loopback interface; told to stop, it finishes what it has begun.
pub async fn start(stopping: CancellationToken) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, Router::new().fallback(answer), stopping.cancelled_owned()));
    Ok(address)
}

/// The account under which it serves: one name and one identity, an entry for each dialect.
pub fn accounts(address: SocketAddr) -> Vec<AccountSpec> {
    let speaking = |dialect| AccountSpec {
        name: "demo".to_owned(),
        dialect,
        base_url: format!("http://{address}"),
        ..AccountSpec::default()
    };
    Dialect::ALL.map(speaking).into()
}

async fn answer(request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    match Dialect::of(&head) {
        (Dialect::OpenAi, target) => openai::answer(target, &body),
        (Dialect::Gemini, target) => gemini::answer(target, head.uri.query(), &body),
        (Dialect::Anthropic, target) => anthropic::answer(target, &body),
    }
}

/// What is said, and what it costs.
struct Said {
    prompt_tokens: u64,
    text: String,
    /// The answer's bound was reached.
    cut: bool,
}

impl Said {
    /// Repeats `heard`, in at most so many tokens.
    fn new(bound: Option<u64>, prompt: &str, heard: &str) -> Said {
        let mut text = format!("You said: {heard}");
        let bound = bound.unwrap_or(u64::MAX);
        let cut = tokens(&text) > bound;
        if cut {
            text.truncate(text.floor_char_boundary(bound as usize * 4));
        }
        Said { prompt_tokens: tokens(prompt), text, cut }
    }

    fn output_tokens(&self) -> u64 {
        tokens(&self.text)
    }

    /// The text word by word, as a stream has it.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_inclusive(' ')
    }
}

fn tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// The text of a string, or of the parts of a message.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => {
            fields.get("text").or(fields.get("content")).map_or_else(String::new, text_of)
        }
        _ => String::new(),
    }
}

fn last_text(messages: &Value) -> String {
    match messages {
        Value::Array(messages) => messages.last().map_or_else(String::new, text_of),
        other => text_of(other),
    }
}

/// A unit vector that depends on nothing but the text.
fn embed(text: &str, dimensions: Option<u64>) -> Vec<f32> {
    let dimensions = dimensions.map_or(DIMENSIONS, |wanted| wanted as usize).clamp(1, DIMENSIONS_MAX);
    let block =
        |number: usize| Sha256::new().chain_update(number.to_le_bytes()).chain_update(text).finalize();
    let bytes = (0..dimensions.div_ceil(32)).flat_map(block);
    let raw: Vec<f32> = bytes.take(dimensions).map(|byte| f32::from(byte) - 127.5).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
    raw.into_iter().map(|x| x / length).collect()
}

/// An event as a frame of a stream.
fn event(kind: &str, data: &Value) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}

fn event_stream(events: Vec<String>) -> Response {
    let frames = events.into_iter().map(|event| Ok::<_, Infallible>(Bytes::from(event)));
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    ([(CONTENT_TYPE, kind)], Body::from_stream(stream::iter(frames))).into_response()
}

/// The object with one entry more.
fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    set(&mut object, name, value);
    object
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(entries) = object.as_object_mut() {
        entries.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_at_its_bound() {
        let said = Said::new(Some(3), "hello", "hello");
        assert_eq!((said.text.as_str(), said.cut, said.output_tokens()), ("You said: he", true, 3));
        let said = Said::new(None, "hello", "hello");
        assert_eq!((said.prompt_tokens, said.cut, said.output_tokens()), (2, false, 4));
    }

    #[test]
    fn an_embedding_has_length_one_and_depends_on_its_text() {
        let (one, two) = (embed("one", Some(100)), embed("two", Some(100)));
        assert!((one.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_ne!(one, two);
        assert_eq!(one, embed("one", Some(100)));
    }
}
