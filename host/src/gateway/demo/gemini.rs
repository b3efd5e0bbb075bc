//! The demo in Gemini's dialect. Where it is offered functions it calls the first one, then says what that gave.

use std::convert::Infallible;

use axum::{
    Json,
    body::{Body, Bytes},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::{ANSWERS_MAX, INPUTS_MAX, MODELS, Said, Target, embed, event_stream, set, tokens, with};

pub(super) fn answer(target: Option<Target<'_>>, query: Option<&str>, body: &[u8]) -> Response {
    let (endpoint, id) = match target {
        Some(Target::Forward(endpoint, id)) => (endpoint, id.unwrap_or_default()),
        Some(Target::Models) => return Json(json!({ "models": MODELS.map(model) })).into_response(),
        Some(Target::Model(id)) => return Json(model(id)).into_response(),
        Some(Target::Nothing) | None => return StatusCode::NOT_FOUND.into_response(),
    };
    let request: Value = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return invalid(&format!("no JSON: {error}")),
    };
    let id = percent_decode_str(id).decode_utf8_lossy();
    match endpoint.path.rsplit(':').next() {
        Some("generateContent") => Json(whole(&id, &request)).into_response(),
        Some("streamGenerateContent") => pieces(&id, &request, query == Some("alt=sse")),
        Some("countTokens") => count(&request),
        Some("embedContent") => embed_one(&request),
        _ => embed_batch(&request),
    }
}

fn invalid(message: &str) -> Response {
    let error = json!({ "code": 400, "message": message, "status": "INVALID_ARGUMENT" });
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

fn model(id: &str) -> Value {
    let methods = if id.contains("embedding") {
        json!(["embedContent"])
    } else {
        json!(["generateContent", "countTokens"])
    };
    json!({ "name": format!("models/{id}"), "displayName": id, "supportedGenerationMethods": methods })
}

/// The text of a content, of its parts, or of a list of either.
fn text_of(content: &Value) -> String {
    let of = |name: &str| content.get(name).map(text_of);
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).collect::<Vec<_>>().join(" "),
        _ => {
            let result = || content.pointer("/functionResponse/response").map(Value::to_string);
            of("parts").or_else(|| of("text")).or_else(result).unwrap_or_default()
        }
    }
}

/// What the whole request says: contents, and what stands above them.
fn prompt_of(request: &Value) -> String {
    format!("{}{}", text_of(&request["systemInstruction"]), text_of(&request["contents"]))
}

fn last(request: &Value) -> &Value {
    request["contents"].as_array().and_then(|contents| contents.last()).unwrap_or(&request["contents"])
}

fn say(request: &Value) -> Said {
    let bound = request.pointer("/generationConfig/maxOutputTokens").and_then(Value::as_u64);
    Said::new(bound, &prompt_of(request), &text_of(last(request)))
}

/// A call of the first function on offer, with something for each argument that it needs; none if the last thing said
/// is what a function gave.
fn call(request: &Value) -> Option<Value> {
    let results =
        last(request)["parts"].as_array()?.iter().any(|part| part.get("functionResponse").is_some());
    let function = request.pointer("/tools/0/functionDeclarations/0").filter(|_| !results)?;
    let schema = ["parameters", "parametersJsonSchema", "parameters_json_schema"];
    let schema = schema.iter().find_map(|name| function.get(*name)).unwrap_or(&Value::Null);
    let heard = text_of(last(request));
    let argument = |name: &str| match schema["properties"].get(name).and_then(|kind| kind["type"].as_str()) {
        Some(kind) if kind.eq_ignore_ascii_case("string") => json!(heard),
        Some(kind) if kind.eq_ignore_ascii_case("boolean") => json!(true),
        _ => json!(1),
    };
    let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let arguments: Map<String, Value> = needed.map(|name| (name.to_owned(), argument(name))).collect();
    Some(json!({ "name": function["name"], "args": arguments }))
}

fn candidate(index: u64, part: Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({ "content": { "role": "model", "parts": [part] }, "index": index });
    if let Some(finish) = finish {
        set(&mut candidate, "finishReason", json!(finish));
    }
    candidate
}

/// An answer, or a piece of one.
fn response(model: &str, candidates: Vec<Value>, prompt: u64, output: u64) -> Value {
    json!({
        "candidates": candidates,
        "usageMetadata": {
            "promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output,
        },
        "modelVersion": model,
        "responseId": "demo",
    })
}

fn finish(said: &Said) -> Option<&'static str> {
    Some(if said.cut { "MAX_TOKENS" } else { "STOP" })
}

fn called(model: &str, request: &Value) -> Option<Value> {
    let call = call(request)?;
    let output = tokens(&call.to_string());
    let candidate = candidate(0, json!({ "functionCall": call }), Some("STOP"));
    Some(response(model, vec![candidate], tokens(&prompt_of(request)), output))
}

fn whole(model: &str, request: &Value) -> Value {
    if let Some(called) = called(model, request) {
        return called;
    }
    let said = say(request);
    let n = request.pointer("/generationConfig/candidateCount").and_then(Value::as_u64);
    let n = n.unwrap_or(1).clamp(1, ANSWERS_MAX);
    let candidates = (0..n).map(|index| candidate(index, json!({ "text": said.text }), finish(&said)));
    response(model, candidates.collect(), said.prompt_tokens, said.output_tokens() * n)
}

/// The answer word by word, each with what was used so far.
fn pieces(model: &str, request: &Value, as_events: bool) -> Response {
    let pieces = match called(model, request) {
        Some(called) => vec![called],
        None => {
            let said = say(request);
            let words: Vec<&str> = said.words().collect();
            let mut heard = 0;
            let piece = |(number, word): (usize, &&str)| {
                heard += word.len();
                let end = if number + 1 == words.len() { finish(&said) } else { None };
                let so_far = said.text.get(..heard).map_or(0, tokens);
                response(model, vec![candidate(0, json!({ "text": word }), end)], said.prompt_tokens, so_far)
            };
            words.iter().enumerate().map(piece).collect()
        }
    };
    if as_events {
        return event_stream(pieces.iter().map(|piece| format!("data: {piece}\r\n\r\n")).collect());
    }
    let opened = pieces.iter().enumerate().map(|(number, piece)| match number {
        0 => format!("[{piece}"),
        _ => format!(",\r\n{piece}"),
    });
    let frames = opened.chain(["]".to_owned()]).map(|frame| Ok::<_, Infallible>(Bytes::from(frame)));
    let kind = HeaderValue::from_static("application/json; charset=UTF-8");
    let frames: Vec<_> = frames.collect();
    ([(CONTENT_TYPE, kind)], Body::from_stream(stream::iter(frames))).into_response()
}

fn count(request: &Value) -> Response {
    let request = request.get("generateContentRequest").unwrap_or(request);
    Json(json!({ "totalTokens": tokens(&prompt_of(request)) })).into_response()
}

fn embedding(request: &Value) -> Value {
    let dimensions = request["outputDimensionality"].as_u64();
    json!({ "values": embed(&text_of(&request["content"]), dimensions) })
}

fn embed_one(request: &Value) -> Response {
    let usage = json!({ "promptTokenCount": tokens(&text_of(&request["content"])) });
    Json(with(&json!({ "embedding": embedding(request) }), "usageMetadata", usage)).into_response()
}

fn embed_batch(request: &Value) -> Response {
    let requests = request["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
    if requests.is_empty() || requests.len() > INPUTS_MAX {
        return invalid("there must be between 1 and 2048 requests");
    }
    let used: u64 = requests.iter().map(|request| tokens(&text_of(&request["content"]))).sum();
    let embeddings: Vec<Value> = requests.iter().map(embedding).collect();
    Json(json!({ "embeddings": embeddings, "usageMetadata": { "promptTokenCount": used } })).into_response()
}
