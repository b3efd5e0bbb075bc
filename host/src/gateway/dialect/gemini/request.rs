//! What a request in Gemini's dialect asks for: the model stands in the path, the rest in the body.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Unexpected, Visitor},
};
use serde_json::value::RawValue;

use crate::gateway::{
    error::{Class, Problem},
    limits::DEFAULT_OUTPUT_TOKENS,
    renamed::Change,
    request::{Outline, TextKey, fields},
};

pub(super) type TextBytes = crate::gateway::request::TextBytes<Key>;

/// A request for an answer as a whole.
pub(super) fn outline_whole(body: &[u8], model: Option<String>) -> Result<Outline, Problem> {
    outline_answer(body, model, false)
}

/// A request for an answer piece by piece.
pub(super) fn outline_stream(body: &[u8], model: Option<String>) -> Result<Outline, Problem> {
    outline_answer(body, model, true)
}

/// A request to count tokens, which uses none.
pub(super) fn outline_count(body: &[u8], model: Option<String>) -> Result<Outline, Problem> {
    let model = checked(model)?;
    fields::<Fields>(body)?;
    Outline::new(model, false, 0, 0)
}

/// A request for embeddings, which no model writes.
pub(super) fn outline_prompt(body: &[u8], model: Option<String>) -> Result<Outline, Problem> {
    let (model, fields) = (checked(model)?, fields::<Fields>(body)?);
    let own = |named: &str| Some(named.strip_prefix(PREFIX).unwrap_or(named)) == model.as_deref();
    if !fields.requests.iter().filter_map(|request| request.model.as_deref()).all(own) {
        return Err(Problem::new(Class::Invalid, "a request of the batch names another model than the path"));
    }
    let bytes = fields.text_bytes();
    Outline::new(model, false, bytes, 0)
}

fn outline_answer(body: &[u8], model: Option<String>, streaming: bool) -> Result<Outline, Problem> {
    let (model, fields) = (checked(model)?, fields::<Fields>(body)?);
    let bytes = fields.text_bytes();
    let config = fields.generation_config.unwrap_or_default();
    let answers = config.candidate_count.map_or(1, |Number(count)| count.max(1));
    let bound = config.max_output_tokens.map_or(DEFAULT_OUTPUT_TOKENS, |Number(bound)| bound);
    let outline = Outline::new(model, streaming, bytes, bound.saturating_mul(answers))?;
    Ok(outline.of_session(&[fields.cached_content]))
}

/// A name that cannot mean another model upstream than here: some servers read such segments as a way up.
fn checked(model: Option<String>) -> Result<Option<String>, Problem> {
    let wanders = |model: &str| model.split('/').any(|segment| matches!(segment, "" | "." | ".."));
    match &model {
        Some(model) if !model.is_empty() && wanders(model) => {
            Err(Problem::new(Class::Model, "the model's name is none"))
        }
        _ => Ok(model),
    }
}

/// The change of a model's name within the body: batches repeat it, and other requests may.
pub(super) fn rename(body: &[u8], from: &str, to: &str) -> Option<Vec<Change>> {
    let names: Names = serde_json::from_slice(body).ok()?;
    let within = names.requests.iter().chain(&names.generate_content_request).filter_map(|one| one.model);
    let mut changes = Vec::new();
    for named in names.model.into_iter().chain(within) {
        let Ok(name) = serde_json::from_str::<String>(named.get()) else { continue };
        let prefix = if name.starts_with(PREFIX) { PREFIX } else { "" };
        if name.strip_prefix(prefix) == Some(from) {
            changes.push(Change::of(body, named, &format!("{prefix}{to}"))?);
        }
    }
    Some(changes)
}

/// What may stand before a model's name.
const PREFIX: &str = "models/";

/// Where a body may name its model.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    requests: Vec<Naming<'a>>,
    #[serde(borrow, alias = "generate_content_request")]
    generate_content_request: Option<Naming<'a>>,
}

#[derive(Deserialize)]
struct Naming<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
}

/// The fields that matter, in both spellings that Google takes; a field that comes twice is an error, since the
/// upstream might take the other one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(default)]
    contents: TextBytes,
    #[serde(default, alias = "system_instruction")]
    system_instruction: TextBytes,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, alias = "cached_content")]
    cached_content: Option<&'a RawValue>,
    #[serde(alias = "generation_config")]
    generation_config: Option<GenerationConfig>,
    /// What is to be embedded.
    #[serde(default)]
    content: TextBytes,
    #[serde(default)]
    requests: Vec<EmbedRequest>,
}

impl Fields<'_> {
    fn text_bytes(&self) -> u64 {
        let tools = self.tools.map_or(0, |tools| tools.get().len() as u64);
        let texts = [&self.contents, &self.system_instruction, &self.content];
        let texts = texts.into_iter().chain(self.requests.iter().map(|request| &request.content));
        texts.fold(tools, |sum, text| sum.saturating_add(text.0))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig {
    #[serde(alias = "max_output_tokens")]
    max_output_tokens: Option<Number>,
    #[serde(alias = "candidate_count")]
    candidate_count: Option<Number>,
}

#[derive(Deserialize)]
struct EmbedRequest {
    model: Option<String>,
    #[serde(default)]
    content: TextBytes,
}

/// A whole number that is not negative. The JSON form of protocol buffers may also be a string, or have a fraction of
/// zero.
#[derive(Clone, Copy)]
struct Number(u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number that is not negative")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        if number < 0.0 || number.fract() != 0.0 {
            return Err(E::invalid_value(Unexpected::Float(number), &self));
        }
        Ok(Number(number as u64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
        let number = text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))?;
        Ok(Number(number))
    }
}

/// What is text in a prompt, and in an answer. Pictures, sound and files are not.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
pub(super) enum Key {
    #[serde(
        alias = "parts",
        alias = "functionCall",
        alias = "function_call",
        alias = "functionResponse",
        alias = "function_response",
        alias = "executableCode",
        alias = "executable_code",
        alias = "codeExecutionResult",
        alias = "code_execution_result",
        alias = "code",
        alias = "output",
        alias = "name"
    )]
    Text,
    /// Whatever a function takes and gives.
    #[serde(alias = "args", alias = "response")]
    Json,
    #[serde(other)]
    Other,
}

impl TextKey for Key {
    const NUMBER: u64 = 0;

    fn text_bytes<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<u64, A::Error> {
        match self {
            Key::Text => Ok(entries.next_value::<TextBytes>()?.0),
            Key::Json => entries.next_value::<&RawValue>().map(|json| json.get().len() as u64),
            Key::Other => entries.next_value::<IgnoredAny>().map(|_| 0),
        }
    }
}
