//! Requests of every dialect: a path with its query, lines of headers, an empty line, the body.

use http::request::Parts;
use serde_json::Value;
use tollgate::{
    fuzzing::{Asked, ESTIMATE_MAX, MODEL_BYTES, PROBLEM_BYTES, read_head, read_request},
    gateway::Dialect,
};

/// A request is read as its upstream would read it, whatever blanks are around its body; a refusal is short.
pub fn check(input: &[u8]) {
    let Some((head, body)) = request(input) else { return };
    read_head(&head);
    let Some(read) = read_request(&head, body) else { return };
    match &read {
        Ok(asked) => check_asked(&head, body, asked),
        Err(message) => assert!((1..=PROBLEM_BYTES).contains(&message.len()), "{message}"),
    }
    let padded = [b"\r\n\t ", body, b" \n"].concat();
    assert_eq!(read_request(&head, &padded).unwrap().ok(), read.ok());
}

fn request(input: &[u8]) -> Option<(Parts, &[u8])> {
    let end = input.windows(2).position(|two| two == b"\n\n")?;
    let (head, body) = (std::str::from_utf8(&input[..end]).ok()?, &input[end + 2..]);
    let mut lines = head.split('\n');
    let mut request = http::Request::post(lines.next()?);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    Some((request.body(()).ok()?.into_parts().0, body))
}

fn check_asked(head: &Parts, body: &[u8], asked: &Asked) {
    assert!((1..=MODEL_BYTES).contains(&asked.model.len()) && !asked.model.contains(char::is_control));
    assert!(asked.prompt_tokens <= asked.estimated_tokens && asked.estimated_tokens <= ESTIMATE_MAX);
    assert!(asked.prompt_tokens <= body.len() as u64, "more tokens than bytes: {asked:?}");
    if asked.dialect == Dialect::Gemini {
        assert_eq!(asked.streaming, head.uri.path().ends_with(":streamGenerateContent"));
        return;
    }
    // A number beyond all bounds is fine where nobody reads it, but not for this reader.
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    assert_eq!(value["model"], asked.model.as_str());
    assert!(!asked.streaming || value["stream"] == true);
}
