//! Reads just enough of a request: its body, bounded, and the few fields that admission needs.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    fmt,
    marker::PhantomData,
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    error::{Class, Problem},
    limits::{BODIES_BYTES, BODIES_PART_OF_KEY, BYTES_PER_TOKEN, ESTIMATE_MAX, MODEL_BYTES, PROBLEM_BYTES},
    sessions::SessionName,
};

/// What admission and the log need to know of a request's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) model: String,
    pub(super) streaming: bool,
    /// The session that it belongs to, if a field names one.
    pub(super) session: Option<SessionName>,
    /// Estimated tokens of the prompt.
    pub(super) prompt_tokens: u64,
    /// Upper estimate of all tokens, the answer's included.
    pub(super) estimated_tokens: u64,
}

impl Outline {
    /// The outline of a request with so many bytes of text, to be answered with so many tokens.
    pub(super) fn new(
        model: Option<String>,
        streaming: bool,
        text_bytes: u64,
        answer_tokens: u64,
    ) -> Result<Outline, Problem> {
        let model = match model {
            Some(model) if !model.is_empty() => model,
            _ => return Err(Problem::of(Class::Invalid, "model", "you must provide a model parameter")),
        };
        if model.len() > MODEL_BYTES || model.chars().any(char::is_control) {
            return Err(Problem::of(Class::Model, "model", "the model's name is none"));
        }
        let prompt_tokens = text_bytes.div_ceil(BYTES_PER_TOKEN);
        Ok(Outline {
            model,
            streaming,
            session: None,
            prompt_tokens: prompt_tokens.min(ESTIMATE_MAX),
            estimated_tokens: prompt_tokens.saturating_add(answer_tokens).min(ESTIMATE_MAX),
        })
    }

    /// The same of a session that the first of these fields names which names one.
    pub(super) fn of_session(self, fields: &[Option<&RawValue>]) -> Outline {
        Outline { session: fields.iter().find_map(|field| SessionName::of_field(*field)), ..self }
    }
}

/// The name of a model that stands in a path.
pub(super) fn model_in_path(encoded: &str) -> Result<Cow<'_, str>, Problem> {
    let decoded = percent_decode_str(encoded).decode_utf8();
    decoded.map_err(|_| Problem::of(Class::Invalid, "model", "the model's name is not UTF-8"))
}

/// The memory that the bodies of all requests take together.
#[derive(Clone, Default)]
pub(super) struct Bodies(Arc<Mutex<Used>>);

#[derive(Default)]
struct Used {
    all: usize,
    /// By the id of the client's key; only keys with a body.
    by_key: HashMap<Arc<str>, usize>,
}

/// A body's share of it.
struct Share {
    bodies: Bodies,
    key: Arc<str>,
    bytes: usize,
}

/// A body that gives its share back with its last copy.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl Share {
    /// Takes as much more, unless all bodies would then have more than `most`, or those of one key more than their part.
    fn grow(&mut self, bytes: usize, most: usize) -> Result<(), Problem> {
        let mut used = self.bodies.0.lock();
        let of_key = used.by_key.get(&self.key).map_or(bytes, |used| used + bytes);
        let whose = match (of_key > most / BODIES_PART_OF_KEY, used.all + bytes > most) {
            (true, _) => "this key's requests",
            (_, true) => "requests",
            _ => {
                used.all += bytes;
                used.by_key.insert(self.key.clone(), of_key);
                self.bytes += bytes;
                return Ok(());
            }
        };
        let text = format!("the server holds as much of {whose} as it can at the moment");
        Err(Problem::new(Class::Unavailable, text).after(Some(1_000)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut used = self.bodies.0.lock();
        used.all -= self.bytes;
        if let Entry::Occupied(mut of_key) = used.by_key.entry(self.key.clone()) {
            *of_key.get_mut() -= self.bytes;
            if *of_key.get() == 0 {
                of_key.remove();
            }
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a whole body, of at most `limit` bytes, within `time`. It counts among all bodies as it comes, until its last copy
/// has gone.
pub(super) async fn read_body(
    bodies: &Bodies,
    key: &Arc<str>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let read = tokio::time::timeout(time, collect(bodies, key, body, limit)).await;
    read.unwrap_or_else(|_| Err(Problem::new(Class::Slow, "the request body did not arrive in time")))
}

async fn collect(bodies: &Bodies, key: &Arc<str>, mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let most = BODIES_BYTES.max(limit.saturating_mul(4 * BODIES_PART_OF_KEY));
    let mut share = Share { bodies: bodies.clone(), key: key.clone(), bytes: 0 };
    let mut single: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::new(Class::Invalid, "the request body broke off");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if single.as_ref().map_or(0, Bytes::len) + joined.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        share.grow(data.len(), most)?;
        match single.take() {
            None if joined.is_empty() => single = Some(data),
            first => {
                joined.extend_from_slice(&first.unwrap_or_default());
                joined.extend_from_slice(&data);
            }
        }
    }
    let bytes = single.unwrap_or_else(|| joined.freeze());
    Ok(if bytes.is_empty() { bytes } else { Bytes::from_owner(Held { bytes, _share: share }) })
}

fn too_large(limit: usize) -> Problem {
    Problem::new(Class::TooLarge, format!("the request body is larger than {limit} bytes"))
}

/// Reads the fields of a JSON body that a dialect names in `T`.
pub(super) fn fields<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let invalid = |mut message: String| {
        message.truncate(message.floor_char_boundary(PROBLEM_BYTES));
        Problem::new(Class::Invalid, message)
    };
    let text = std::str::from_utf8(body)
        .map_err(|error| invalid(format!("the request body is not UTF-8 at byte {}", error.valid_up_to())))?;
    // An array would be taken for the fields in order.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("the request body is not a JSON object".to_owned()));
    }
    serde_json::from_str(text)
        .map_err(|error| invalid(format!("the request body is not a valid request: {error}")))
}

/// Which entries of objects hold text, and how it is counted: the names of a dialect, read as a field identifier.
pub(super) trait TextKey: for<'de> Deserialize<'de> {
    /// Bytes of text that a number stands for.
    const NUMBER: u64;

    /// Bytes of text in the value of the entry; it must be read, also if it is none.
    fn text_bytes<'de, A: MapAccess<'de>>(self, entries: &mut A) -> Result<u64, A::Error>;
}

/// Bytes of text, however nested in lists and in the entries that `K` names.
pub(super) struct TextBytes<K>(pub(super) u64, PhantomData<K>);

impl<K> Default for TextBytes<K> {
    fn default() -> TextBytes<K> {
        TextBytes(0, PhantomData)
    }
}

impl<'de, K: TextKey> Deserialize<'de> for TextBytes<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TextBytes<K>, D::Error> {
        let bytes = deserializer.deserialize_any(TextVisitor::<K>(PhantomData))?;
        Ok(TextBytes(bytes, PhantomData))
    }
}

struct TextVisitor<K>(PhantomData<K>);

impl<'de, K: TextKey> Visitor<'de> for TextVisitor<K> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or something that holds text")
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok(text.len() as u64)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u64, E> {
        Ok(K::NUMBER)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u64, E> {
        Ok(K::NUMBER)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut bytes = 0_u64;
        while let Some(more) = items.next_element::<TextBytes<K>>()? {
            bytes = bytes.saturating_add(more.0);
        }
        Ok(bytes)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        let mut bytes = 0_u64;
        while let Some(key) = entries.next_key::<K>()? {
            bytes = bytes.saturating_add(key.text_bytes(&mut entries)?);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_body_counts_among_all_and_its_keys_until_its_last_copy_has_gone() {
        let bodies = Bodies::default();
        let time = Duration::from_secs(60);
        let read = async |key: &str, length: usize| {
            let body = Body::new(Full::new(Bytes::from(vec![b'x'; length])));
            read_body(&bodies, &key.into(), &HeaderMap::new(), body, length, time).await
        };
        let used = || {
            let used = bodies.0.lock();
            (used.all, used.by_key.len())
        };
        let part = BODIES_BYTES / BODIES_PART_OF_KEY;
        let first = read("a", part - 10).await.unwrap();
        let copy = first.clone();
        drop(first);
        assert_eq!((copy.len(), used()), (part - 10, (part - 10, 1)));
        assert!(read("a", 10).await.is_ok());
        let refused = read("a", 11).await.unwrap_err();
        assert_eq!((refused.class, refused.retry_after_ms), (Class::Unavailable, Some(1_000)));
        let others =
            [read("b", part).await.unwrap(), read("c", part).await.unwrap(), read("d", part).await.unwrap()];
        assert!(read("e", 10).await.is_ok());
        assert!(read("e", 11).await.unwrap_err().message.contains("as much of requests"));
        assert_eq!(used(), (BODIES_BYTES - 10, 4));
        drop((copy, others));
        assert_eq!((used(), read("a", 11).await.unwrap().len()), ((0, 0), 11));
    }
}
