//! OpenTelemetry's protocol for traces, as far as it is used: fields and tags of `opentelemetry/proto/trace/v1`.

/// What is sent.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportRequest {
    /// Spans by who made them: one server.
    #[prost(message, repeated, tag = 1)]
    pub resource_spans: Vec<ResourceSpans>,
}

/// What a collector answers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {
    /// What it did not take.
    #[prost(message, optional, tag = 1)]
    pub partial_success: Option<PartialSuccess>,
}

/// What a collector did not take.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    /// How many spans.
    #[prost(int64, tag = 1)]
    pub rejected_spans: i64,
    /// Why.
    #[prost(string, tag = 2)]
    pub error_message: String,
}

/// The spans of one server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    /// The server.
    #[prost(message, optional, tag = 1)]
    pub resource: Option<Resource>,
    /// Spans by what made them: this program.
    #[prost(message, repeated, tag = 2)]
    pub scope_spans: Vec<ScopeSpans>,
}

/// A server.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Its name and version.
    #[prost(message, repeated, tag = 1)]
    pub attributes: Vec<KeyValue>,
}

/// The spans that one program made.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    /// The program.
    #[prost(message, optional, tag = 1)]
    pub scope: Option<Scope>,
    /// Its spans.
    #[prost(message, repeated, tag = 2)]
    pub spans: Vec<Span>,
}

/// What made a span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    /// Its name.
    #[prost(string, tag = 1)]
    pub name: String,
    /// Its version.
    #[prost(string, tag = 2)]
    pub version: String,
}

/// A stretch of time in which something was done.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// The trace that it is part of, 16 bytes.
    #[prost(bytes = "vec", tag = 1)]
    pub trace_id: Vec<u8>,
    /// Its own id, 8 bytes.
    #[prost(bytes = "vec", tag = 2)]
    pub span_id: Vec<u8>,
    /// Of the span that it is part of; empty: it is the first of its trace.
    #[prost(bytes = "vec", tag = 4)]
    pub parent_span_id: Vec<u8>,
    /// What was done.
    #[prost(string, tag = 5)]
    pub name: String,
    /// What part it has in a call.
    #[prost(enumeration = "Kind", tag = 6)]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = 7)]
    pub start_time_unix_nano: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = 8)]
    pub end_time_unix_nano: u64,
    /// What is known of it.
    #[prost(message, repeated, tag = 9)]
    pub attributes: Vec<KeyValue>,
    /// How it ended; none: nothing is said of that.
    #[prost(message, optional, tag = 15)]
    pub status: Option<Status>,
    /// The flags of W3C's `traceparent`, and whether the parent is of another process.
    #[prost(fixed32, tag = 16)]
    pub flags: u32,
}

/// What part a span has in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    /// It does not say.
    Unspecified = 0,
    /// None: it is something within a process.
    Internal = 1,
    /// It answers.
    Server = 2,
    /// It asks.
    Client = 3,
}

/// How a span ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// Well or badly.
    #[prost(enumeration = "Code", tag = 3)]
    pub code: i32,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Code {
    /// It does not say.
    Unset = 0,
    /// Well.
    Ok = 1,
    /// Badly.
    Error = 2,
}

/// An attribute.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// Its name.
    #[prost(string, tag = 1)]
    pub key: String,
    /// What it is.
    #[prost(message, optional, tag = 2)]
    pub value: Option<AnyValue>,
}

/// What an attribute is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    /// Of one of several types.
    #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
    pub value: Option<Value>,
}

/// A value of one of several types.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// A text.
    #[prost(string, tag = 1)]
    Text(String),
    /// Yes or no.
    #[prost(bool, tag = 2)]
    Flag(bool),
    /// A whole number.
    #[prost(int64, tag = 3)]
    Integer(i64),
    /// Any number.
    #[prost(double, tag = 4)]
    Real(f64),
}

impl KeyValue {
    /// An attribute that is a text.
    pub fn text(key: &str, value: impl Into<String>) -> KeyValue {
        KeyValue::of(key, Value::Text(value.into()))
    }

    /// An attribute that is a number; one that does not fit is told as the largest that does.
    pub fn number(key: &str, value: u64) -> KeyValue {
        KeyValue::of(key, Value::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn of(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}
