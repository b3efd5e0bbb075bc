//! How usage is asked for in a stream whose client did not, and by what event an upstream then tells it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::gateway::renamed::Change;

/// The changes that have a request ask for usage: nothing if it does; none if it cannot be read. A field that comes twice is
/// changed in both places, since the upstream might take either, and so is one that is neither true nor false.
pub(super) fn for_usage(body: &[u8]) -> Option<Vec<Change>> {
    let request = std::str::from_utf8(body).ok()?.trim_ascii();
    let members = Members::of(request)?;
    if members.named("stream_options").next().is_none() {
        return Some(vec![members.with(body, request, r#""stream_options":{"include_usage":true}"#)?]);
    }
    let mut changes = Vec::new();
    for options in members.named("stream_options") {
        changes.extend(asking(body, options)?);
    }
    Some(changes)
}

fn asking(body: &[u8], options: &RawValue) -> Option<Vec<Change>> {
    let Some(members) = Members::of(options.get()) else {
        return Some(vec![Change::to_json(body, options, r#"{"include_usage":true}"#)?]);
    };
    if members.named("include_usage").next().is_none() {
        return Some(vec![members.with(body, options.get(), r#""include_usage":true"#)?]);
    }
    let others = members.named("include_usage").filter(|value| value.get() != "true");
    others.map(|value| Change::to_json(body, value, "true")).collect()
}

/// The members of an object, in order and however often they come.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Those of an object; none if it is something else.
    fn of(json: &'a str) -> Option<Members<'a>> {
        serde_json::from_str(json).ok()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &'a RawValue> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The change that gives the object, which is `json` within `body`, another member.
    fn with(&self, body: &[u8], json: &str, member: &str) -> Option<Change> {
        let comma = if self.0.is_empty() { "" } else { "," };
        Change::within(body, json, format!("{member}{comma}"))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = entries.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// Whether an event tells nothing but usage: it has no choices, where it might have some.
pub(super) fn is_only_usage(data: &[u8]) -> bool {
    let event: Result<Event, _> = serde_json::from_slice(data);
    event.is_ok_and(|event| {
        event.choices.is_empty() && event.usage.is_some_and(|usage| usage.get().starts_with('{'))
    })
}

#[derive(Deserialize)]
struct Event<'a> {
    choices: Vec<IgnoredAny>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;
    use crate::gateway::renamed::{Sending, at_top};

    fn sent(body: &'static str, changes: Vec<Change>) -> String {
        let sending = Sending::changed(&Bytes::from_static(body.as_bytes()), changes);
        let bytes = sending.collect().now_or_never().unwrap().unwrap().to_bytes();
        String::from_utf8(bytes.into()).unwrap()
    }

    #[test]
    fn a_request_asks_for_usage_and_all_else_stays_as_it_is() {
        for (body, expected) in [
            (r#"{"model":"m"}"#, r#"{"stream_options":{"include_usage":true},"model":"m"}"#),
            (
                " \n{ \"stream\" : true,\"x\":{\"stream_options\":1.0} } ",
                " \n{\"stream_options\":{\"include_usage\":true}, \"stream\" : true,\"x\":{\"stream_options\":1.0} } ",
            ),
            (r#"{"stream_options":null,"z":1}"#, r#"{"stream_options":{"include_usage":true},"z":1}"#),
            (r#"{"stream_options": { } }"#, r#"{"stream_options": {"include_usage":true } }"#),
            (
                r#"{"stream_options":{"include_obfuscation":false}}"#,
                r#"{"stream_options":{"include_usage":true,"include_obfuscation":false}}"#,
            ),
            (
                r#"{"stream_options":{"a":1, "include_usage" : false}}"#,
                r#"{"stream_options":{"a":1, "include_usage" : true}}"#,
            ),
            (r#"{"stream_options":{"include_usage":null}}"#, r#"{"stream_options":{"include_usage":true}}"#),
            (
                r#"{"stream\u005foptions":{"include_us\u0061ge":false}}"#,
                r#"{"stream\u005foptions":{"include_us\u0061ge":true}}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":true,"include_usage":false},"stream_options":[]}"#,
                r#"{"stream_options":{"include_usage":true,"include_usage":true},"stream_options":{"include_usage":true}}"#,
            ),
        ] {
            let changes = for_usage(body.as_bytes()).unwrap();
            assert_eq!(sent(body, changes), expected, "{body}");
        }
    }

    #[test]
    fn a_request_that_asks_or_is_none_is_not_changed() {
        let asks = r#"{"model":"m","stream_options":{"include_usage":true}}"#;
        assert_eq!(for_usage(asks.as_bytes()), Some(Vec::new()));
        for none in ["[]", "{", "", "\"stream_options\"", "\u{c}"] {
            assert_eq!(for_usage(none.as_bytes()), None, "{none}");
        }
        assert_eq!(for_usage(b"{\"a\":\"\xff\"}"), None);
    }

    #[test]
    fn the_model_is_another_and_usage_is_asked_for_in_one_body() {
        for (body, expected) in [
            (
                r#"{"model":"fast","stream":true}"#,
                r#"{"stream_options":{"include_usage":true},"model":"own","stream":true}"#,
            ),
            (
                r#"{"stream_options":{"include_usage":false},"model":"fast"}"#,
                r#"{"stream_options":{"include_usage":true},"model":"own"}"#,
            ),
        ] {
            let mut changes = for_usage(body.as_bytes()).unwrap();
            changes.extend(at_top(body.as_bytes(), "own").unwrap());
            assert_eq!(sent(body, changes), expected);
        }
    }

    #[test]
    fn an_event_tells_only_usage_if_it_has_usage_and_no_choice() {
        for (event, is_only_usage) in [
            (r#"{"id":"x","choices":[],"usage":{"prompt_tokens":1}}"#, true),
            (r#"{"usage":{},"choices":[ ],"new":1}"#, true),
            (r#"{"choices":[],"usage":null}"#, false),
            (r#"{"choices":[]}"#, false),
            (r#"{"choices":[],"prompt_filter_results":[]}"#, false),
            (r#"{"usage":{"prompt_tokens":1}}"#, false),
            (r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}"#, false),
            ("[DONE]", false),
            ("", false),
        ] {
            assert_eq!(super::is_only_usage(event.as_bytes()), is_only_usage, "{event}");
        }
    }
}
