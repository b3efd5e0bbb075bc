//! Where two values differ, told place by place.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::opaque::is_name;

/// The places where `found` is not as expected, each behind `what`. An absent field is the same as none, and so is a case
/// without its payload as one whose payload is none.
pub(super) fn differences(what: &str, expected: &Value, found: &Value) -> Vec<String> {
    let mut found_all = Vec::new();
    walk(String::new(), &plain(expected), &plain(found), &mut |place, expected, found| {
        let value = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
        let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
        let text = format!("{what}{place}\n    expected {}\n    found    {}", value(expected), value(found));
        found_all.push(text.replace(": \n", "\n"));
    });
    found_all
}

/// Whether two values say the same.
pub(super) fn same(expected: &Value, found: &Value) -> bool {
    plain(expected) == plain(found)
}

fn walk(
    place: String,
    expected: &Value,
    found: &Value,
    tell: &mut impl FnMut(&str, Option<&Value>, Option<&Value>),
) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                let dot = if place.is_empty() { "" } else { "." };
                step(format!("{place}{dot}{key}"), expected.get(key), found.get(key), tell);
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for at in 0..expected.len().max(found.len()) {
                step(format!("{place}[{at}]"), expected.get(at), found.get(at), tell);
            }
        }
        (expected, found) if expected != found => tell(&place, Some(expected), Some(found)),
        _ => {}
    }
}

fn step(
    place: String,
    expected: Option<&Value>,
    found: Option<&Value>,
    tell: &mut impl FnMut(&str, Option<&Value>, Option<&Value>),
) {
    match (expected, found) {
        (Some(expected), Some(found)) => walk(place, expected, found, tell),
        (expected, found) => tell(&place, expected, found),
    }
}

/// A value without what says nothing: fields that are none, and the payload of a case that is none.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut there = fields.iter();
            if let (Some((only, Value::Null)), None) = (there.next(), there.next()) {
                return Value::String(only.clone());
            }
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        plain => plain.clone(),
    }
}

/// A value of a kv store as a case writes it: JSON where it is JSON, else text or bytes; or just the name expected.
pub(super) fn readable(bytes: &str, expected: Option<&Value>) -> Value {
    if let Some(name) = expected.filter(|expected| is_name(expected)) {
        return name.clone();
    }
    let decoded = hex::decode(bytes).unwrap_or_default();
    let written_as_text = expected.is_some_and(|expected| expected.get("text").is_some());
    match serde_json::from_slice(&decoded) {
        Ok(value) if !written_as_text => value,
        _ => match String::from_utf8(decoded) {
            Ok(text) if text.chars().all(|letter| letter == '\n' || !letter.is_control()) => {
                json!({ "text": text })
            }
            _ => json!({ "bytes": bytes }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_the_same_does_not_differ() {
        for (one, other) in [
            (json!("allow"), json!({ "allow": null })),
            (json!({ "deny": { "reason": "r" } }), json!({ "deny": { "reason": "r", "limit": null } })),
            (json!([{ "ok": null }]), json!(["ok"])),
        ] {
            assert!(same(&one, &other) && same(&other, &one), "{one} and {other}");
            assert_eq!(differences("", &one, &other), [""; 0]);
        }
        for (one, other) in
            [(json!("allow"), json!({ "allow": "01" })), (json!(1), json!("1")), (json!([]), json!([1]))]
        {
            assert!(!same(&one, &other), "{one} and {other}");
        }
    }

    #[test]
    fn each_place_that_differs_is_told() {
        let expected = json!({ "ok": [{ "deny": { "reason": "full", "limit": 2 } }, "allow"] });
        let found = json!({ "ok": [{ "deny": { "reason": "closed", "limit": 2 } }] });
        assert_eq!(
            differences("step 1, admit: ", &expected, &found),
            [
                "step 1, admit: ok[0].deny.reason\n    expected \"full\"\n    found    \"closed\"",
                "step 1, admit: ok[1]\n    expected \"allow\"\n    found    nothing",
            ]
        );
    }

    #[test]
    fn a_stored_value_reads_as_it_was_written() {
        let hex = |bytes: &[u8]| hex::encode(bytes);
        assert_eq!(readable(&hex(b"{\"a\":1}"), None), json!({ "a": 1 }));
        assert_eq!(readable(&hex(b"retired"), None), json!({ "text": "retired" }));
        assert_eq!(readable(&hex(b"4"), Some(&json!({ "text": "5" }))), json!({ "text": "4" }));
        assert_eq!(readable("00ff", None), json!({ "bytes": "00ff" }));
        assert_eq!(readable("00ff", Some(&json!("$ledger"))), json!("$ledger"));
    }
}
