//! A request's body as one account gets it: the client's own bytes, but for the names of its model and what asks for usage.

use std::{
    collections::VecDeque,
    convert::Infallible,
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A body in parts, none of which is empty but perhaps the next. What is the client's is not copied.
#[derive(Default)]
pub(super) struct Sending {
    next: Bytes,
    rest: VecDeque<Bytes>,
}

impl From<Bytes> for Sending {
    fn from(body: Bytes) -> Sending {
        Sending { next: body, rest: VecDeque::new() }
    }
}

impl Sending {
    /// The body with texts in the place of others.
    pub(super) fn changed(body: &Bytes, mut changes: Vec<Change>) -> Sending {
        changes.sort_by_key(|change| change.place.start);
        let (mut rest, mut from) = (VecDeque::new(), 0);
        for Change { place, text } in changes {
            // Values of JSON either do not overlap or one is within the other; of those the outer one counts.
            if place.start >= from {
                rest.extend([body.slice(from..place.start), text.into()]);
                from = place.end;
            }
        }
        rest.push_back(body.slice(from..));
        rest.retain(|part| !part.is_empty());
        Sending { next: Bytes::new(), rest }
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = std::mem::take(&mut self.next);
        let next = if next.is_empty() { self.rest.pop_front() } else { Some(next) };
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_empty() && self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let rest: usize = self.rest.iter().map(Bytes::len).sum();
        SizeHint::with_exact((self.next.len() + rest) as u64)
    }
}

/// A text in the place of another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    place: Range<usize>,
    text: String,
}

impl Change {
    /// Another string in the place of a value that was read from this body; none if it was not.
    pub(super) fn of(body: &[u8], value: &RawValue, text: &str) -> Option<Change> {
        Change::to_json(body, value, &serde_json::to_string(text).ok()?)
    }

    /// Other JSON in the place of such a value.
    pub(super) fn to_json(body: &[u8], value: &RawValue, json: &str) -> Option<Change> {
        Some(Change { place: place(body, value.get())?, text: json.to_owned() })
    }

    /// More text right after the brace that an object begins with, which is a part of this body.
    pub(super) fn within(body: &[u8], object: &str, text: String) -> Option<Change> {
        let after = place(body, object)?.start.checked_add(1).filter(|after| *after <= body.len())?;
        Some(Change { place: after..after, text })
    }
}

fn place(body: &[u8], part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
    let end = start.checked_add(part.len()).filter(|end| *end <= body.len())?;
    Some(start..end)
}

/// A body that names its model at the top.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
}

/// The change that has a body name another model at the top.
pub(super) fn at_top(body: &[u8], model: &str) -> Option<Vec<Change>> {
    let named: Named = serde_json::from_slice(body).ok()?;
    Some(vec![Change::of(body, named.model, model)?])
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    async fn sent(body: &'static str, model: &str) -> String {
        let changes = at_top(body.as_bytes(), model).unwrap();
        let sending = Sending::changed(&Bytes::from(body), changes);
        let announced = sending.size_hint().exact();
        let bytes = sending.collect().await.unwrap().to_bytes();
        assert_eq!(announced, Some(bytes.len() as u64));
        String::from_utf8(bytes.into()).unwrap()
    }

    #[tokio::test]
    async fn only_the_models_name_is_another_and_everything_else_stays_byte_for_byte() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, r#"{"model":"b\"ü"}"#),
            (
                r#" {"x" : {"model":"a"}, "model" :  "a" , "y":1e2}  "#,
                r#" {"x" : {"model":"a"}, "model" :  "b\"ü" , "y":1e2}  "#,
            ),
            (r#"{"mod\u0065l":"\u0061","z":"\ud83d\ude00"}"#, r#"{"mod\u0065l":"b\"ü","z":"\ud83d\ude00"}"#),
        ] {
            assert_eq!(sent(body, "b\"ü").await, expected);
        }
    }

    proptest! {
        #[test]
        fn whatever_else_a_body_holds_stays_as_it_is(
            before in "[a-z]{0,3}", texts in prop::collection::vec(any::<String>(), 0..4), blank in "[ \t\r\n]{0,3}",
            model in any::<String>(), to in any::<String>(),
        ) {
            let json = |text: &str| serde_json::to_string(text).unwrap();
            let texts = serde_json::to_string(&texts).unwrap();
            let (head, tail) = (format!("{blank}{{\"x{before}\":[{texts}],\"model\"{blank}:{blank}"), format!("{blank},\"y\":{texts}}}{blank}"));
            let body = Bytes::from(format!("{head}{}{tail}", json(&model)));
            let sending = Sending::changed(&body, at_top(&body, &to).unwrap());
            let sent = sending.collect().now_or_never().unwrap().unwrap().to_bytes();
            prop_assert_eq!(sent, format!("{head}{}{tail}", json(&to)));
        }
    }

    #[tokio::test]
    async fn a_body_without_changes_is_one_piece() {
        let mut sending = Sending::from(Bytes::from("{}"));
        assert_eq!(sending.frame().await.unwrap().unwrap().into_data().unwrap(), "{}");
        assert!(sending.is_end_stream());
        assert!(Sending::default().is_end_stream());
    }
}
