//! Whose trace a request is part of, as W3C's `traceparent` tells it from one process to the next.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that names a trace and the span that asks.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What others add to it; it means nothing without a `traceparent`.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// That whoever begins or goes on with a trace keeps it.
const SAMPLED: u8 = 1;

/// The id of a span; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpanId(pub(crate) [u8; 8]);

impl SpanId {
    /// One that nobody else has.
    pub(crate) fn random() -> SpanId {
        SpanId(fastrand::u64(1..).to_be_bytes())
    }
}

/// What a caller says of the trace that its request is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: u128,
    pub(crate) span: SpanId,
    pub(crate) sampled: bool,
}

impl Parent {
    /// The one of a request; none: there is no header, or it is not right, and a new trace begins.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Parent> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (value, further) = (values.next()?, values.next());
        if further.is_some() {
            return None;
        }
        Parent::parse(value.to_str().ok()?.trim())
    }

    fn parse(text: &str) -> Option<Parent> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (version, flags) = (hexadecimal(version, 2)?, hexadecimal(flags, 2)?);
        // A later version may have more parts, which mean nothing here.
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span) = (hexadecimal(trace, 32)?, hexadecimal(span, 16)?);
        let span = u64::try_from(span).ok()?;
        if trace == 0 || span == 0 {
            return None;
        }
        let sampled = flags & u128::from(SAMPLED) != 0;
        Some(Parent { trace, span: SpanId(span.to_be_bytes()), sampled })
    }
}

/// So many lowercase digits, as the standard has them.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != digits || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

/// The trace that a request is part of, and whether its spans are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: u128,
    /// The caller's span; none: the trace begins here.
    pub(crate) parent: Option<SpanId>,
    pub(crate) sampled: bool,
}

impl Context {
    /// The caller's trace, with what the caller has decided about it; else a new one, of which this part is kept.
    pub(crate) fn new(parent: Option<Parent>, ratio: f64) -> Context {
        if let Some(Parent { trace, span, sampled }) = parent {
            return Context { trace, parent: Some(span), sampled };
        }
        let trace = fastrand::u128(1..);
        Context { trace, parent: None, sampled: is_kept(trace, ratio) }
    }

    /// The header for a request that is sent by one of the spans.
    pub(crate) fn header(&self, span: SpanId) -> Option<HeaderValue> {
        HeaderValue::from_str(&Traceparent { context: self, span }.to_string()).ok()
    }
}

/// By the trace's id alone, so that every process that has the same ratio decides alike.
fn is_kept(trace: u128, ratio: f64) -> bool {
    /// As many bits as a float has without rounding.
    const BITS: u32 = 53;
    let drawn = (trace as u64) & ((1 << BITS) - 1);
    (drawn as f64) < ratio * (1_u64 << BITS) as f64
}

struct Traceparent<'a> {
    context: &'a Context,
    span: SpanId,
}

impl fmt::Display for Traceparent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.context.sampled { SAMPLED } else { 0 };
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.context.trace, u64::from_be_bytes(self.span.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parent(text: &str) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(text).unwrap());
        Parent::of(&headers)
    }

    #[test]
    fn a_callers_trace_goes_on_with_what_the_caller_decided() {
        for (flags, sampled) in [("01", true), ("00", false), ("03", true), ("02", false)] {
            let parent = parent(&format!("00-{TRACE}-{SPAN}-{flags}")).unwrap();
            let context = Context::new(Some(parent), if sampled { 0.0 } else { 1.0 });
            assert_eq!((context.sampled, context.parent), (sampled, Some(parent.span)));
            let own = SpanId([0, 0, 0, 0, 0, 0, 0, 9]);
            let flags = if sampled { "01" } else { "00" };
            assert_eq!(context.header(own).unwrap(), format!("00-{TRACE}-0000000000000009-{flags}"));
        }
        assert!(parent(&format!("01-{TRACE}-{SPAN}-01-later")).is_some(), "a later version");
    }

    #[test]
    fn a_header_that_is_not_right_begins_a_new_trace() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parent(&wrong), None, "{wrong}");
        }
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(TRACEPARENT, format!("00-{TRACE}-{SPAN}-01").parse().unwrap());
        }
        assert_eq!(Parent::of(&twice), None);
    }

    #[test]
    fn of_new_traces_the_ratio_is_kept() {
        let kept = |ratio| (0..10_000).filter(|_| Context::new(None, ratio).sampled).count();
        assert_eq!((kept(0.0), kept(1.0)), (0, 10_000));
        let quarter = kept(0.25);
        assert!((2_200..2_800).contains(&quarter), "{quarter}");
    }
}
