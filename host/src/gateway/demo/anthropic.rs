//! The demo in Anthropic's dialect.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{MODELS, Said, Target, event, event_stream, last_text, set, text_of, tokens, with};

/// When its models were made.
const CREATED_AT: &str = "2026-01-01T00:00:00Z";

pub(super) fn answer(target: Option<Target<'_>>, body: &[u8]) -> Response {
    let endpoint = match target {
        Some(Target::Forward(endpoint, _)) => endpoint,
        Some(Target::Models) => return Json(models()).into_response(),
        Some(Target::Model(id)) => return Json(model(id)).into_response(),
        Some(Target::Nothing) | None => {
            return failure(StatusCode::NOT_FOUND, "not_found_error", "there is nothing here");
        }
    };
    let request = match serde_json::from_slice::<Value>(body) {
        Ok(request) if request.get("model").is_some_and(Value::is_string) => request,
        Ok(_) => return invalid("model: field required"),
        Err(error) => return invalid(&format!("no JSON: {error}")),
    };
    if endpoint.path.ends_with("count_tokens") {
        return Json(json!({ "input_tokens": tokens(&prompt(&request)) })).into_response();
    }
    match request.get("max_tokens").and_then(Value::as_u64) {
        Some(bound) => messages(&request, bound),
        None => invalid("max_tokens: field required"),
    }
}

fn invalid(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "invalid_request_error", message)
}

fn failure(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({ "type": kind, "message": message });
    (status, Json(json!({ "type": "error", "error": error }))).into_response()
}

fn models() -> Value {
    let first_and_last = MODELS.first().zip(MODELS.last());
    json!({
        "data": MODELS.map(model), "has_more": false,
        "first_id": first_and_last.map(|(first, _)| first), "last_id": first_and_last.map(|(_, last)| last),
    })
}

fn model(id: &str) -> Value {
    json!({ "type": "model", "id": id, "display_name": id, "created_at": CREATED_AT })
}

fn prompt(request: &Value) -> String {
    let tools = request.get("tools").map_or_else(String::new, Value::to_string);
    format!("{}{}{tools}", text_of(&request["system"]), text_of(&request["messages"]))
}

/// Calls the first tool it is given, or the one it must use, unless it has just got a tool's result; otherwise repeats.
fn messages(request: &Value, bound: u64) -> Response {
    let said = Said::new(Some(bound), &prompt(request), &last_text(&request["messages"]));
    let (block, deltas, output, reason) = match tool(request) {
        Some(tool) => {
            let input = arguments(tool, &last_text(&request["messages"]));
            let block =
                json!({ "type": "tool_use", "id": "toolu_demo", "name": tool["name"], "input": input });
            let text = input.to_string();
            let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
            let delta = |part: &str| json!({ "type": "input_json_delta", "partial_json": part });
            (block, vec![delta(first), delta(second)], tokens(&text), "tool_use")
        }
        None => {
            let block = json!({ "type": "text", "text": said.text });
            let deltas = said.words().map(|word| json!({ "type": "text_delta", "text": word }));
            let reason = if said.cut { "max_tokens" } else { "end_turn" };
            (block, deltas.collect(), said.output_tokens(), reason)
        }
    };
    let usage = json!({
        "input_tokens": said.prompt_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
        "output_tokens": output,
    });
    let message = json!({
        "id": "msg_demo", "type": "message", "role": "assistant", "model": request["model"], "content": [block],
        "stop_reason": reason, "stop_sequence": null, "usage": usage,
    });
    if request["stream"].as_bool() != Some(true) {
        return Json(message).into_response();
    }
    stream(&message, &block, deltas)
}

fn stream(message: &Value, block: &Value, deltas: Vec<Value>) -> Response {
    let mut begun = with(message, "content", json!([]));
    set(&mut begun, "stop_reason", Value::Null);
    set(&mut begun, "usage", with(&message["usage"], "output_tokens", json!(1)));
    let empty = match block["type"].as_str() {
        Some("text") => with(block, "text", json!("")),
        _ => with(block, "input", json!({})),
    };
    let mut events = vec![
        json!({ "type": "message_start", "message": begun }),
        json!({ "type": "content_block_start", "index": 0, "content_block": empty }),
        json!({ "type": "ping" }),
    ];
    let delta = |delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
    events.extend(deltas.into_iter().map(delta));
    events.push(json!({ "type": "content_block_stop", "index": 0 }));
    let end = json!({ "stop_reason": message["stop_reason"], "stop_sequence": null });
    let usage = json!({ "output_tokens": message.pointer("/usage/output_tokens") });
    events.push(json!({ "type": "message_delta", "delta": end, "usage": usage }));
    events.push(json!({ "type": "message_stop" }));
    let named = |data: &Value| event(data["type"].as_str().unwrap_or_default(), data);
    event_stream(events.iter().map(named).collect())
}

/// The tool that is called, if one is.
fn tool(request: &Value) -> Option<&Value> {
    let tools = request["tools"].as_array()?;
    let choice = &request["tool_choice"];
    let last = request.pointer("/messages").and_then(Value::as_array).and_then(|messages| messages.last());
    let results = last.and_then(|message| message["content"].as_array());
    let answered = results.is_some_and(|blocks| blocks.iter().any(|block| block["type"] == "tool_result"));
    match choice["type"].as_str() {
        Some("none") => None,
        Some("tool") => tools.iter().find(|tool| tool["name"] == choice["name"]),
        Some("any") => tools.first(),
        _ if answered => None,
        _ => tools.first(),
    }
}

/// Something for each argument that a tool requires: what was heard where it is text, and otherwise nothing much.
fn arguments(tool: &Value, heard: &str) -> Value {
    let schema = &tool["input_schema"];
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let kind = |name: &str| schema.get("properties")?.get(name)?.get("type")?.as_str();
    let value = |name: &str| match kind(name) {
        Some("string") => json!(heard),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => Value::Null,
    };
    required.map(|name| (name.to_owned(), value(name))).collect()
}
