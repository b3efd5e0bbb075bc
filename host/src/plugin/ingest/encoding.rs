//! How an event lies in the queue: a version byte, then fields with their tags (Protocol Buffers' encoding).
//!
//! It may be read by another version of this program: a field that one side does not know is left out or gets its
//! default. JSON would do that too, but writing and reading it was a tenth of all that an event cost.

use prost::Message as _;

use super::{AttemptRecord, EventRecord};
use crate::plugin::ingestion::{Attempt, Event};

const VERSION: u8 = b'2';

/// JSON, which earlier versions wrote and which may still be waiting.
const JSON: u8 = b'1';

/// Why the bytes are no event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the event has encoding {0:?}, which this version does not know")]
    Version(Option<u8>),
    #[error("the event cannot be read: {0}")]
    Fields(#[from] prost::DecodeError),
    #[error("the event cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes that go into the queue.
pub(super) fn encode(event: &EventRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + event.encoded_len());
    bytes.push(VERSION);
    event.encode_raw(&mut bytes);
    bytes
}

/// What the gateway put in.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<EventRecord, DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, fields)) => Ok(EventRecord::decode(fields)?),
        Some((&JSON, json)) => Ok(serde_json::from_slice(json)?),
        other => Err(DecodeError::Version(other.map(|(version, _)| *version))),
    }
}

/// The event that the plugin gets.
pub(super) fn decode(sequence: u64, bytes: &[u8]) -> Result<Event, DecodeError> {
    let event = decode_record(bytes)?;
    let status_code = status(event.status_code);
    Ok(Event {
        sequence,
        request_id: event.request_id,
        time_ms: event.time_ms,
        client_type: event.client_type,
        client_ip: event.client_ip,
        user_agent: event.user_agent,
        client_key_hash: event.client_key_hash,
        client_name: event.client_name,
        api_key_hash: event.api_key_hash,
        account_name: event.account_name,
        model: event.model,
        original_model: event.original_model,
        endpoint: event.endpoint,
        method: event.method,
        referer: event.referer,
        response_time_ms: event.response_time_ms,
        status_code,
        input_tokens: event.input_tokens,
        output_tokens: event.output_tokens,
        cache_read_tokens: event.cache_read_tokens,
        cache_write_tokens: event.cache_write_tokens,
        reasoning_tokens: event.reasoning_tokens,
        token_source: event.token_source,
        cost: event.cost,
        is_stream: event.is_stream,
        has_error: event.has_error,
        error_type: match event.has_error && event.error_type.is_empty() {
            true => type_of(status_code).to_owned(),
            false => event.error_type,
        },
        error_message: event.error_message,
        request_size: event.request_size,
        response_size: event.response_size,
        attempts: event.attempts.into_iter().map(attempt).collect(),
    })
}

fn attempt(record: AttemptRecord) -> Attempt {
    Attempt {
        api_key_hash: record.api_key_hash,
        account_name: record.account_name,
        model: record.model,
        error_type: record.error_type,
        status_code: status(record.status_code),
        message: record.message,
        response_time_ms: record.response_time_ms,
    }
}

fn status(number: u32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

/// What an error is taken for by its status alone, which is all that earlier versions told of it.
fn type_of(status: u16) -> &'static str {
    match status {
        401 | 403 => "auth",
        402 => "upstream_payment",
        408 => "client_timeout",
        504 => "upstream_timeout",
        429 => "rate_limit",
        499 => "client_closed",
        ..400 => "stream",
        400..500 => "invalid_request",
        _ => "upstream",
    }
}

/// The event as people read it: as JSON, or as it is if it cannot be read.
pub(super) fn text(bytes: &[u8]) -> String {
    let json = decode_record(bytes).ok().and_then(|event| serde_json::to_string(&event).ok());
    json.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_out_as_it_went_in_with_its_sequence() {
        let record = EventRecord {
            request_id: "r1".to_owned(),
            model: "größe \"x\"".to_owned(),
            status_code: 499,
            input_tokens: u64::MAX,
            error_message: Some("gone".to_owned()),
            error_type: "client_closed".to_owned(),
            attempts: vec![AttemptRecord {
                account_name: "one".to_owned(),
                status_code: 503,
                ..AttemptRecord::default()
            }],
            ..EventRecord::default()
        };
        let event = decode(7, &encode(&record)).unwrap();
        assert_eq!((event.sequence, event.request_id.as_str(), event.status_code), (7, "r1", 499));
        assert_eq!((event.model.as_str(), event.input_tokens), ("größe \"x\"", u64::MAX));
        assert_eq!(
            (event.error_message.as_deref(), event.error_type.as_str()),
            (Some("gone"), "client_closed")
        );
        let [attempt] = &event.attempts[..] else { panic!("{:?}", event.attempts) };
        assert_eq!((attempt.account_name.as_str(), attempt.status_code), ("one", 503));
    }

    #[test]
    fn an_error_of_an_earlier_version_has_the_type_that_its_status_had() {
        let record =
            |status_code, has_error| EventRecord { status_code, has_error, ..EventRecord::default() };
        for (status, word) in
            [(200, "stream"), (403, "auth"), (429, "rate_limit"), (499, "client_closed"), (503, "upstream")]
        {
            assert_eq!(decode(1, &encode(&record(status, true))).unwrap().error_type, word);
        }
        assert_eq!(decode(1, &encode(&record(200, false))).unwrap().error_type, "");
    }

    #[test]
    fn fields_of_other_versions_do_not_matter_but_another_encoding_does() {
        // Field 1 is the request's id; field 1,000 is none of ours, a number.
        let later = b"2\x0a\x01r\xc0\x3e\x07";
        assert_eq!(decode(1, later).unwrap().request_id, "r");
        assert_eq!(decode(1, b"2").unwrap().request_id, "");
        assert!(matches!(decode(1, b"3"), Err(DecodeError::Version(Some(b'3')))));
        assert!(matches!(decode(1, b""), Err(DecodeError::Version(None))));
        assert!(matches!(decode(1, b"2\x0a\x05r"), Err(DecodeError::Fields(_))));
    }

    #[test]
    fn what_an_earlier_version_left_in_the_queue_is_read() {
        let event = decode(1, b"1{\"request_id\":\"r\",\"status_code\":499,\"later\":[1]}").unwrap();
        assert_eq!((event.request_id.as_str(), event.status_code), ("r", 499));
        assert_eq!(event.attempts, []);
        assert!(matches!(decode(1, b"1{"), Err(DecodeError::Json(_))));
    }

    #[test]
    fn people_read_an_event_as_json_and_what_is_none_as_it_is() {
        let record = EventRecord { request_id: "r1".to_owned(), ..EventRecord::default() };
        assert!(text(&encode(&record)).starts_with("{\"request_id\":\"r1\""));
        assert_eq!(text(b"?"), "?");
    }
}
