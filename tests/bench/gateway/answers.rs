//! What is asked and answered.

use crate::options::Workload;

const PLAIN: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-test","choices":[{"index":0,"message":{"role":"assistant","content":"The capital of France is Paris; about 2.1 million people live there."},"finish_reason":"stop"}],"usage":{"prompt_tokens":37,"completion_tokens":17,"total_tokens":54}}"#;

/// Asks for a stream, in a request's body.
const STREAMED: &str = r#""stream":true"#;

/// The pieces of text in a stream: with the role, the end, the usage and `[DONE]` it has 23 events.
const PIECES: [&str; 19] = [
    "The", " capital", " of", " France", " is", " Paris", ";", " about", " ", "2", ".", "1", " million",
    " people", " live", " there", " to", "day", ".",
];

/// The body of a request.
pub fn request(workload: Workload) -> String {
    let stream = match workload {
        Workload::Json => String::new(),
        Workload::Stream => format!(r#"{STREAMED},"stream_options":{{"include_usage":true}},"#),
    };
    format!(
        r#"{{"model":"gpt-test",{stream}"max_tokens":64,"messages":[{{"role":"system","content":"You answer in one short sentence, politely and to the point."}},{{"role":"user","content":"What is the capital of France, and how many people live there?"}}]}}"#
    )
}

/// What a body asks for.
pub fn asked(body: &[u8]) -> Workload {
    if body.windows(STREAMED.len()).any(|window| window == STREAMED.as_bytes()) {
        Workload::Stream
    } else {
        Workload::Json
    }
}

/// The plain answer.
pub fn plain() -> &'static str {
    PLAIN
}

/// The events of a stream.
pub fn events() -> Vec<String> {
    let chunk = |rest: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-test\",{rest}}}\n\n"
        )
    };
    let choice = |delta: &str, finish: &str| {
        chunk(&format!(r#""choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]"#))
    };
    let mut events = vec![choice(r#"{"role":"assistant","content":""}"#, "null")];
    events.extend(PIECES.iter().map(|piece| choice(&format!(r#"{{"content":"{piece}"}}"#), "null")));
    events.push(choice("{}", r#""stop""#));
    events
        .push(chunk(r#""choices":[],"usage":{"prompt_tokens":37,"completion_tokens":19,"total_tokens":56}"#));
    events.push("data: [DONE]\n\n".to_owned());
    events
}
