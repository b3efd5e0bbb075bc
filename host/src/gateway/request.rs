//! Reads just enough of a request: its body, bounded, and the few fields that admission needs.

use std::{fmt, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    dialect::Shape,
    error::{Class, Problem},
    limits::{
        BYTES_PER_TOKEN, DEFAULT_OUTPUT_TOKENS, DISCARD_BYTES, DISCARD_TIMEOUT, ESTIMATE_MAX, MODEL_BYTES,
    },
};

/// What admission and the log need to know of a request's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) model: String,
    pub(super) streaming: bool,
    /// Estimated tokens of the prompt.
    pub(super) prompt_tokens: u64,
    /// Upper estimate of all tokens, the answer's included.
    pub(super) estimated_tokens: u64,
}

/// Reads a whole body, of at most `limit` bytes, within `time`.
pub(super) async fn read_body(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    time: Duration,
) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        discard(&mut body).await;
        return Err(too_large(limit));
    }
    match tokio::time::timeout(time, collect(&mut body, limit)).await {
        Ok(Err(problem)) if problem.class == Class::TooLarge => {
            discard(&mut body).await;
            Err(problem)
        }
        Ok(read) => read,
        Err(_) => Err(Problem::new(Class::Slow, "the request body did not arrive in time")),
    }
}

async fn collect(body: &mut Body, limit: usize) -> Result<Bytes, Problem> {
    let mut single: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::new(Class::Invalid, "the request body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if single.as_ref().map_or(0, Bytes::len) + joined.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        match single.take() {
            None if joined.is_empty() => single = Some(data),
            first => {
                joined.extend_from_slice(&first.unwrap_or_default());
                joined.extend_from_slice(&data);
            }
        }
    }
    Ok(single.unwrap_or_else(|| joined.freeze()))
}

async fn discard(body: &mut Body) {
    let read = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.data_ref().map_or(0, Bytes::len);
            if discarded > DISCARD_BYTES {
                return;
            }
        }
    };
    // Whether it was read in time makes no difference to the answer.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, read).await;
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Class::TooLarge, format!("the request body is larger than {limit} bytes"))
}

/// Reads the fields of a JSON body.
pub(super) fn outline(shape: Shape, body: &[u8]) -> Result<Outline, Problem> {
    let invalid = |message: String| Problem::new(Class::Invalid, message);
    let text = std::str::from_utf8(body)
        .map_err(|error| invalid(format!("the request body is not UTF-8 at byte {}", error.valid_up_to())))?;
    // An array would be taken for the fields in order.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("the request body is not a JSON object".to_owned()));
    }
    let fields: Fields = serde_json::from_str(text)
        .map_err(|error| invalid(format!("the request body is not a valid request: {error}")))?;
    let model = match fields.model {
        Some(model) if !model.is_empty() => model,
        _ => return Err(Problem::of(Class::Invalid, "model", "you must provide a model parameter")),
    };
    if model.len() > MODEL_BYTES || model.chars().any(char::is_control) {
        return Err(Problem::of(Class::Model, "model", "the model's name is none"));
    }
    let tools = fields.tools.map_or(0, |tools| tools.get().len() as u64);
    let text_bytes = [fields.messages, fields.prompt, fields.input, fields.instructions];
    let text_bytes = text_bytes.iter().fold(tools, |sum, text| sum.saturating_add(text.0));
    let prompt_tokens = text_bytes.div_ceil(BYTES_PER_TOKEN);
    let answer = fields.max_completion_tokens.max(fields.max_tokens).max(fields.max_output_tokens);
    let answers = fields.n.max(fields.best_of).unwrap_or(1).max(1);
    let answer_tokens = match shape {
        Shape::Embeddings => 0,
        _ => answer.unwrap_or(DEFAULT_OUTPUT_TOKENS).saturating_mul(answers),
    };
    Ok(Outline {
        model,
        streaming: fields.stream.unwrap_or(false),
        prompt_tokens: prompt_tokens.min(ESTIMATE_MAX),
        estimated_tokens: prompt_tokens.saturating_add(answer_tokens).min(ESTIMATE_MAX),
    })
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
    messages: TextBytes,
    #[serde(default)]
    prompt: TextBytes,
    #[serde(default)]
    input: TextBytes,
    #[serde(default)]
    instructions: TextBytes,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
}

/// Bytes of text in a prompt, however nested. Pictures and sound are not text, and ids and roles no prompt.
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

    /// A prompt may be given as tokens already: each stands for the bytes of one.
    fn visit_u64<E>(self, _: u64) -> Result<TextBytes, E> {
        Ok(TextBytes(BYTES_PER_TOKEN))
    }

    fn visit_i64<E>(self, _: i64) -> Result<TextBytes, E> {
        Ok(TextBytes(BYTES_PER_TOKEN))
    }

    fn visit_f64<E>(self, _: f64) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_unit<E>(self) -> Result<TextBytes, E> {
        Ok(TextBytes(0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<TextBytes, A::Error> {
        let mut bytes = 0_u64;
        while let Some(TextBytes(more)) = items.next_element()? {
            bytes = bytes.saturating_add(more);
        }
        Ok(TextBytes(bytes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<TextBytes, A::Error> {
        let mut bytes = 0_u64;
        while let Some(key) = entries.next_key::<PromptKey>()? {
            match key {
                PromptKey::Text => bytes = bytes.saturating_add(entries.next_value::<TextBytes>()?.0),
                PromptKey::Other => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(TextBytes(bytes))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(shape: Shape, body: &str) -> u64 {
        outline(shape, body.as_bytes()).unwrap().estimated_tokens
    }

    #[test]
    fn the_estimate_is_a_third_of_the_text_and_the_answers_bound() {
        for (shape, body, tokens) in [
            (
                Shape::Chat,
                r#"{"model":"m","messages":[{"role":"user","content":"1234567"}],"max_tokens":10}"#,
                13,
            ),
            (Shape::Chat, r#"{"model":"m","messages":[{"role":"user","content":"123"}]}"#, 1 + 1_024),
            (Shape::Chat, r#"{"model":"m","messages":[],"max_completion_tokens":5,"n":3}"#, 15),
            (Shape::Chat, r#"{"model":"m","max_tokens":null,"n":null,"stream":null}"#, 1_024),
            (
                Shape::Chat,
                r#"{"model":"m","max_tokens":0,"messages":[{"content":[{"type":"text","text":"123456"},
                   {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAA"}}]}]}"#,
                2,
            ),
            (Shape::Completions, r#"{"model":"m","prompt":["abc","def"],"max_tokens":1,"best_of":2}"#, 4),
            (Shape::Completions, r#"{"model":"m","prompt":[1,2,3],"max_tokens":1}"#, 4),
            (Shape::Embeddings, r#"{"model":"m","input":["abc","d"]}"#, 2),
            (
                Shape::Responses,
                r#"{"model":"m","input":"abc","instructions":"def","max_output_tokens":7}"#,
                9,
            ),
            (
                Shape::Responses,
                r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"abc"}]}],"max_output_tokens":0}"#,
                1,
            ),
            (Shape::Chat, r#"{"model":"m","max_tokens":18446744073709551615,"n":9}"#, ESTIMATE_MAX),
        ] {
            assert_eq!(estimate(shape, body), tokens, "{body}");
        }
    }

    #[test]
    fn the_fields_are_read_whatever_stands_around_them() {
        let read =
            outline(Shape::Chat, br#" {"x":{"model":"no"},"stream":true,"model":"a\u0062"} "#).unwrap();
        assert_eq!((read.model.as_str(), read.streaming), ("ab", true));
    }

    #[test]
    fn a_bad_body_is_invalid_and_the_message_says_where() {
        for (body, message) in [
            (&b""[..], "not a JSON object"),
            (b"[]", "not a JSON object"),
            (b"null", "not a JSON object"),
            (b"[\"m\"]", "not a JSON object"),
            (b"{", "line 1 column 1"),
            (b"{\"model\":\"m\"} x", "line 1 column 15"),
            (b"{\"model\":7}", "column 10"),
            (b"{\"model\":\"m\",\"max_tokens\":-1}", "column 28"),
            (b"{\"model\":\"m\",\"stream\":\"yes\"}", "expected a boolean"),
            (b"{\"model\":\"m\",\"model\":\"n\"}", "duplicate field `model`"),
            (b"{\"model\":\"\xff\"}", "not UTF-8 at byte 10"),
            (b"{}", "must provide a model"),
            (b"{\"model\":null}", "must provide a model"),
            (b"{\"model\":\"\"}", "must provide a model"),
        ] {
            let problem = outline(Shape::Chat, body).unwrap_err();
            assert_eq!(problem.class, Class::Invalid);
            assert!(problem.message.contains(message), "{} lacks {message}", problem.message);
        }
        let deep = format!("{{\"model\":\"m\",\"messages\":{}", "[".repeat(100_000));
        assert_eq!(outline(Shape::Chat, deep.as_bytes()).unwrap_err().class, Class::Invalid);
        let long = format!("{{\"model\":\"{}\"}}", "m".repeat(300));
        assert_eq!(outline(Shape::Chat, long.as_bytes()).unwrap_err().class, Class::Model);
    }
}
