//! The demo in OpenAI's dialect.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    ANSWERS_MAX, CREATED, INPUTS_MAX, MODELS, Said, Target, embed, event, event_stream, last_text, set,
    text_of, tokens, with,
};

pub(super) fn answer(target: Option<Target<'_>>, body: &[u8]) -> Response {
    let endpoint = match target {
        Some(Target::Forward(endpoint, _)) => endpoint,
        Some(Target::Models) => {
            return Json(json!({ "object": "list", "data": MODELS.map(model) })).into_response();
        }
        Some(Target::Model(id)) => return Json(model(id)).into_response(),
        Some(Target::Nothing) | None => return StatusCode::NOT_FOUND.into_response(),
    };
    let serve = match endpoint.path {
        "/v1/chat/completions" => chat,
        "/v1/completions" => completions,
        "/v1/embeddings" => embeddings,
        _ => responses,
    };
    match serde_json::from_slice::<Value>(body) {
        Ok(request) if request.get("model").is_some_and(Value::is_string) => serve(&request),
        Ok(_) => invalid("you must provide a model parameter"),
        Err(error) => invalid(&format!("no JSON: {error}")),
    }
}

fn invalid(message: &str) -> Response {
    let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": null });
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

fn model(id: &str) -> Value {
    json!({ "id": id, "object": "model", "created": CREATED, "owned_by": "tollgate-demo" })
}

/// Repeats `heard`, within the request's bound.
fn say(request: &Value, prompt: &str, heard: &str) -> Said {
    let bound = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
    Said::new(bound.iter().find_map(|name| request[*name].as_u64()), prompt, heard)
}

fn finish(said: &Said) -> &'static str {
    if said.cut { "length" } else { "stop" }
}

fn usage(said: &Said, answers: u64) -> Value {
    let output = said.output_tokens() * answers;
    json!({
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": output,
        "total_tokens": said.prompt_tokens + output,
    })
}

fn answers(request: &Value) -> u64 {
    request["n"].as_u64().unwrap_or(1).clamp(1, ANSWERS_MAX)
}

fn is_stream(request: &Value) -> bool {
    request["stream"].as_bool() == Some(true)
}

fn wants_usage(request: &Value) -> bool {
    request.pointer("/stream_options/include_usage") == Some(&Value::Bool(true))
}

fn chat(request: &Value) -> Response {
    let messages = &request["messages"];
    let said = say(request, &text_of(messages), &last_text(messages));
    let head = |object: &str| json!({ "id": "chatcmpl-demo", "object": object, "created": CREATED, "model": request["model"] });
    if is_stream(request) {
        let choice =
            |delta: Value, finish: Value| json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        let mut events = vec![choice(json!({ "role": "assistant", "content": "" }), Value::Null)];
        events.extend(said.words().map(|word| choice(json!({ "content": word }), Value::Null)));
        events.push(choice(json!({}), json!(finish(&said))));
        return chunks(request, head("chat.completion.chunk"), events, &said);
    }
    let n = answers(request);
    let choice = |index| {
        let message = json!({ "role": "assistant", "content": said.text, "refusal": null });
        json!({ "index": index, "message": message, "logprobs": null, "finish_reason": finish(&said) })
    };
    whole(head("chat.completion"), (0..n).map(choice).collect(), usage(&said, n))
}

fn completions(request: &Value) -> Response {
    let prompt = text_of(&request["prompt"]);
    let said = say(request, &prompt, &prompt);
    let head = || json!({ "id": "cmpl-demo", "object": "text_completion", "created": CREATED, "model": request["model"] });
    let choice = |index: u64, text: &str, finish: Value| json!({ "index": index, "text": text, "logprobs": null, "finish_reason": finish });
    if is_stream(request) {
        let mut events: Vec<_> = said.words().map(|word| json!([choice(0, word, Value::Null)])).collect();
        events.push(json!([choice(0, "", json!(finish(&said)))]));
        return chunks(request, head(), events, &said);
    }
    let n = answers(request);
    whole(
        head(),
        (0..n).map(|index| choice(index, &said.text, json!(finish(&said)))).collect(),
        usage(&said, n),
    )
}

fn whole(mut head: Value, choices: Vec<Value>, usage: Value) -> Response {
    set(&mut head, "choices", Value::Array(choices));
    set(&mut head, "usage", usage);
    Json(head).into_response()
}

fn chunks(request: &Value, head: Value, choices: Vec<Value>, said: &Said) -> Response {
    let mut events: Vec<Value> = choices.into_iter().map(|choices| with(&head, "choices", choices)).collect();
    if wants_usage(request) {
        events.iter_mut().for_each(|event| set(event, "usage", Value::Null));
        events.push(with(&with(&head, "choices", json!([])), "usage", usage(said, 1)));
    }
    let lines = events.iter().map(|event| format!("data: {event}\n\n"));
    event_stream(lines.chain(["data: [DONE]\n\n".to_owned()]).collect())
}

fn embeddings(request: &Value) -> Response {
    let inputs: Vec<String> = match &request["input"] {
        // Tokens instead of text: one input, or one for each inner list.
        Value::Array(items) if items.iter().all(Value::is_number) => vec![request["input"].to_string()],
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
        }
        other => vec![text_of(other)],
    };
    if inputs.is_empty() || inputs.len() > INPUTS_MAX {
        return invalid("there must be between 1 and 2048 inputs");
    }
    let dimensions = request["dimensions"].as_u64();
    let encoded = request["encoding_format"].as_str() == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = embed(input, dimensions);
            let embedding = if encoded { json!(base64(&vector)) } else { json!(vector) };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    let used: u64 = inputs.iter().map(|input| tokens(input)).sum();
    let usage = json!({ "prompt_tokens": used, "total_tokens": used });
    Json(json!({ "object": "list", "data": data, "model": request["model"], "usage": usage })).into_response()
}

/// Little-endian floats in base64, the form that SDKs ask for unless told otherwise.
fn base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4_usize {
            let digit =
                ALPHABET.get((bits >> (18 - 6 * place)) as usize & 63).filter(|_| place <= group.len());
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

fn responses(request: &Value) -> Response {
    let input = &request["input"];
    let prompt = format!("{}{}", text_of(&request["instructions"]), text_of(input));
    let said = say(request, &prompt, &last_text(input));
    let part = json!({ "type": "output_text", "text": said.text, "annotations": [] });
    let item = json!({ "id": "msg_demo", "type": "message", "role": "assistant", "status": "completed", "content": [part] });
    let output = said.output_tokens();
    let completed = json!({
        "id": "resp_demo", "object": "response", "created_at": CREATED, "status": "completed", "error": null,
        "incomplete_details": null, "instructions": request["instructions"], "metadata": {}, "model": request["model"],
        "output": [item], "parallel_tool_calls": true, "temperature": 1.0, "tool_choice": "auto", "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": said.prompt_tokens, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": said.prompt_tokens + output,
        },
    });
    if !is_stream(request) {
        return Json(completed).into_response();
    }
    let mut begun = with(&completed, "status", json!("in_progress"));
    set(&mut begun, "output", json!([]));
    set(&mut begun, "usage", Value::Null);
    let at = json!({ "item_id": "msg_demo", "output_index": 0, "content_index": 0 });
    let mut events = vec![("response.created", json!({ "response": begun }))];
    events.push((
        "response.output_item.added",
        json!({ "output_index": 0, "item": {
        "id": "msg_demo", "type": "message", "role": "assistant", "status": "in_progress", "content": [] } }),
    ));
    events.push((
        "response.content_part.added",
        with(&at, "part", json!({ "type": "output_text", "text": "", "annotations": [] })),
    ));
    events.extend(said.words().map(|word| ("response.output_text.delta", with(&at, "delta", json!(word)))));
    events.push(("response.output_text.done", with(&at, "text", json!(said.text))));
    events.push(("response.content_part.done", with(&at, "part", part)));
    events.push(("response.output_item.done", json!({ "output_index": 0, "item": item })));
    events.push(("response.completed", json!({ "response": completed })));
    event_stream(events.into_iter().enumerate().map(numbered).collect())
}

fn numbered((number, (kind, mut event)): (usize, (&str, Value))) -> String {
    set(&mut event, "type", json!(kind));
    set(&mut event, "sequence_number", json!(number));
    self::event(kind, &event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_encoded_as_base64_of_their_bytes() {
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64(&[0.0, 0.0, 0.0]), "A".repeat(16));
    }
}
