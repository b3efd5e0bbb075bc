//! Streams as data: `streams/README.md` says how they are written down.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use tokio::sync::Notify;

use super::support::{Upstream, World};
use crate::gateway::{AccountSpec, Dialect, Settings};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dialect: String,
    path: String,
    body: String,
    #[serde(default = "event_stream")]
    content_type: String,
    case: Vec<Case>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    path: Option<String>,
    body: Option<String>,
    content_type: Option<String>,
    send: String,
    #[serde(default)]
    stream_usage: bool,
    unasked: Option<String>,
    #[serde(default)]
    lines: Lines,
    coding: Option<Coding>,
    ends: Option<Ends>,
    #[serde(default)]
    input: u64,
    #[serde(default)]
    output: u64,
    #[serde(default)]
    cache_read: u64,
    #[serde(default)]
    cache_write: u64,
    #[serde(default)]
    reasoning: u64,
    source: Option<String>,
    error: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Lines {
    #[default]
    Lf,
    CrLf,
    Cr,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Coding {
    Gzip,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ends {
    Silent,
    Broken,
}

fn event_stream() -> String {
    "text/event-stream".to_owned()
}

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;

/// Largest stream that also comes byte by byte.
const SMALL: usize = 4 * 1024;

impl Case {
    /// What the upstream sends.
    fn sent(&self) -> Bytes {
        self.written(&self.send)
    }

    /// What the client is to get of it.
    fn wanted(&self) -> Bytes {
        let Some(unasked) = &self.unasked else { return self.sent() };
        assert_eq!(self.send.matches(unasked.as_str()).count(), 1, "{}", self.name);
        self.written(&self.send.replace(unasked.as_str(), ""))
    }

    /// What goes over the wire.
    fn written(&self, mut rest: &str) -> Bytes {
        let mut text = String::new();
        while let Some((before, after)) = rest.split_once('<') {
            let (fill, after) = after.split_once('>').unwrap();
            let (letter, times) = fill.split_once(' ').unwrap();
            text.push_str(before);
            text.push_str(&letter.repeat(times.parse().unwrap()));
            rest = after;
        }
        text.push_str(rest);
        let text = match self.lines {
            Lines::Lf => text,
            Lines::CrLf => text.replace('\n', "\r\n"),
            Lines::Cr => text.replace('\n', "\r"),
        };
        match self.coding {
            None => text.into(),
            Some(Coding::Gzip) => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(text.as_bytes()).unwrap();
                encoder.finish().unwrap().into()
            }
        }
    }

    /// The answer; `seen` tells that the client has got what was sent.
    fn answer(&self, content_type: &str, piece: usize, seen: Arc<Notify>) -> Response {
        let bytes = self.sent();
        let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let pieces = stream::iter(pieces);
        let body = match self.ends {
            None => Body::from_stream(pieces),
            Some(Ends::Silent) => Body::from_stream(pieces.chain(stream::pending())),
            Some(Ends::Broken) => Body::from_stream(pieces.chain(stream::once(async move {
                seen.notified().await;
                Err(io::Error::other("told to break"))
            }))),
        };
        let mut response = Response::builder().header("content-type", content_type);
        if self.coding.is_some() {
            response = response.header("content-encoding", "gzip");
        }
        response.body(body).unwrap()
    }
}

async fn run(file: &File, case: &Case, piece: usize) {
    let name = format!("{} {:?} in pieces of {piece} bytes", file.dialect, case.name);
    let content_type = case.content_type.clone().unwrap_or_else(|| file.content_type.clone());
    let seen = Arc::new(Notify::new());
    let upstream = Upstream::start({
        let (case, seen) = (case.clone(), seen.clone());
        move |_| Some(case.answer(&content_type, piece, seen.clone()))
    })
    .await;
    let dialect = Dialect::ALL.into_iter().find(|dialect| dialect.name() == file.dialect).unwrap();
    let idle_timeout = match case.ends {
        Some(Ends::Silent) => Duration::from_millis(10),
        _ => Settings::default().idle_timeout,
    };
    let settings = Settings { idle_timeout, ..Settings::default() };
    let account = AccountSpec { dialect, stream_usage: case.stream_usage, ..upstream.account("main") };
    let world = World::with(vec![account], settings).await;
    let request = Request::post(format!("{}{}", world.url, case.path.as_ref().unwrap_or(&file.path)))
        .header(if file.dialect == "gemini" { "x-goog-api-key" } else { "authorization" }, key(&world, file))
        .header("accept-encoding", "gzip")
        .body(Full::from(case.body.clone().unwrap_or_else(|| file.body.clone())))
        .unwrap();
    let mut response = world.request(request).await;
    assert_eq!(response.status(), 200, "{name}");
    let (wanted, mut got) = (case.wanted(), Vec::new());
    while got.len() < wanted.len() {
        let frame = response.body_mut().frame().await.unwrap_or_else(|| panic!("{name}: it is too short"));
        got.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert!(got == wanted, "{name}: the answer was changed");
    seen.notify_one();
    let end = response.body_mut().frame().await;
    assert_eq!(end.is_some_and(|frame| frame.is_err()), case.ends.is_some(), "{name}: how it ended");
    let event = world.event().await;
    let used = [
        event.input_tokens,
        event.output_tokens,
        event.cache_read_tokens,
        event.cache_write_tokens,
        event.reasoning_tokens,
    ];
    assert_eq!(used, [case.input, case.output, case.cache_read, case.cache_write, case.reasoning], "{name}");
    if let Some(source) = &case.source {
        assert_eq!(event.token_source, *source, "{name}");
    }
    let error = event.error_message.unwrap_or_default();
    match &case.error {
        Some(expected) => assert!(error.contains(expected.as_str()), "{name}: {error:?}"),
        None => assert_eq!(error, "", "{name}"),
    }
    assert_eq!(event.has_error, case.error.is_some(), "{name}");
}

fn key(world: &World, file: &File) -> String {
    if file.dialect == "gemini" { world.key.clone() } else { format!("Bearer {}", world.key) }
}

async fn check(text: &str) {
    let file: File = toml::from_str(text).unwrap();
    for case in &file.case {
        run(&file, case, PIECE).await;
        if case.sent().len() <= SMALL {
            run(&file, case, 1).await;
        }
    }
}

#[tokio::test]
async fn usage_is_read_from_openais_streams() {
    check(include_str!("streams/openai.toml")).await;
}

#[tokio::test]
async fn usage_is_read_from_anthropics_streams() {
    check(include_str!("streams/anthropic.toml")).await;
}

#[tokio::test]
async fn usage_is_read_from_geminis_streams() {
    check(include_str!("streams/gemini.toml")).await;
}
