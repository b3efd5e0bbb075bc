//! The upstream that serves when no account is configured: small, deterministic, on this machine only.
//!
//! It repeats what it was told, and counts four bytes of text as a token, which stays below the gateway's estimate. It
//! speaks every dialect, a file each.

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
use tokio::net::TcpListener;

use super::{
    accounts::AccountSpec,
    dialect::{Dialect, Target},
    limits::BODY_BYTES,
    serve,
};
use crate::secret::Secret;

/// The models that it lists; it answers for any.
pub const MODELS: [&str; 2] = ["demo-chat", "demo-embedding"];

/// When its models were made, so that nothing it says depends on the clock.
const CREATED: u64 = 1_767_225_600;

/// Starts the demo upstream on a free port of the loopback interface; it runs as long as the runtime.
pub async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener, Router::new().fallback(answer), std::future::pending()));
    Ok(address)
}

/// The account under which it serves: one name and one identity, an entry for each dialect.
pub fn accounts(address: SocketAddr) -> Vec<AccountSpec> {
    let speaking = |dialect| AccountSpec {
        name: "demo".to_owned(),
        dialect,
        base_url: format!("http://{address}"),
        api_key: Secret::default(),
        models: Vec::new(),
        weight: 1,
        priority: 0,
        rpm: None,
        tpm: None,
        rpd: None,
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
}
