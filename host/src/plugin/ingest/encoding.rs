//! How an event lies in the queue: a version byte, then JSON.
//!
//! JSON, because it may be read by a later version of this program: a field that one side does not know is left out or
//! gets its default. It costs a microsecond an event, and a dead letter can be read as it is.

use super::EventRecord;
use crate::plugin::ingestion::Event;

const VERSION: u8 = b'1';

/// Why the bytes are no event.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    #[error("the event has encoding {0:?}, which this version does not know")]
    Version(Option<u8>),
    #[error("the event cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes that go into the queue.
pub(super) fn encode(event: &EventRecord) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(768);
    bytes.push(VERSION);
    serde_json::to_writer(&mut bytes, event)?;
    Ok(bytes)
}

/// The event that the plugin gets.
pub(super) fn decode(sequence: u64, bytes: &[u8]) -> Result<Event, DecodeError> {
    let event: EventRecord = serde_json::from_slice(json(bytes)?)?;
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
        response_time_ms: event.response_time_ms,
        status_code: event.status_code,
        input_tokens: event.input_tokens,
        output_tokens: event.output_tokens,
        cache_read_tokens: event.cache_read_tokens,
        cache_write_tokens: event.cache_write_tokens,
        reasoning_tokens: event.reasoning_tokens,
        is_stream: event.is_stream,
        has_error: event.has_error,
        error_message: event.error_message,
        request_size: event.request_size,
        response_size: event.response_size,
    })
}

/// The bytes without their version, for people.
pub(super) fn json(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => Ok(json),
        other => Err(DecodeError::Version(other.map(|(version, _)| *version))),
    }
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
            ..EventRecord::default()
        };
        let event = decode(7, &encode(&record).unwrap()).unwrap();
        assert_eq!((event.sequence, event.request_id.as_str(), event.status_code), (7, "r1", 499));
        assert_eq!((event.model.as_str(), event.input_tokens), ("größe \"x\"", u64::MAX));
        assert_eq!(event.error_message.as_deref(), Some("gone"));
    }

    #[test]
    fn fields_of_other_versions_do_not_matter_but_another_encoding_does() {
        assert_eq!(decode(1, b"1{\"request_id\":\"r\",\"later\":[1]}").unwrap().request_id, "r");
        assert!(matches!(decode(1, b"2{}"), Err(DecodeError::Version(Some(b'2')))));
        assert!(matches!(decode(1, b""), Err(DecodeError::Version(None))));
        assert!(matches!(decode(1, b"1{"), Err(DecodeError::Json(_))));
    }
}
