//! The spans of a request, for an operator's collector, named as OpenTelemetry's conventions for HTTP and generative AI name
//! things.
//!
//! They say what the log says: no keys, no prompts, no answers. What upstreams say of errors is left out too, since they
//! repeat such things there.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};

use super::account::Account;
use crate::{
    plugin::{EventRecord, Verdict, admission::Ending},
    telemetry::{
        Tracer,
        context::{Context, SpanId, TRACEPARENT, TRACESTATE},
        otlp::{Code, KeyValue, Kind, Span, Status},
    },
};

/// In the flags of a span: sampled; whether its parent is elsewhere is told; the parent is elsewhere.
const FLAGS: (u32, u32, u32) = (1, 0x100, 0x200);

/// What a span says of a verdict; both subjects may be refused at once, each by a plugin and a limit of its own.
struct VerdictKeys {
    verdict: &'static str,
    plugin: &'static str,
    limit: &'static str,
}

const OF_CLIENT: VerdictKeys = VerdictKeys {
    verdict: "tollgate.client.verdict",
    plugin: "tollgate.client.plugin",
    limit: "tollgate.client.limit",
};

const OF_ACCOUNT: VerdictKeys = VerdictKeys {
    verdict: "tollgate.account.verdict",
    plugin: "tollgate.account.plugin",
    limit: "tollgate.account.limit",
};

/// The trace of a request under way. Its spans are bounded as its attempts and candidates are.
pub(super) struct Trace {
    tracer: Tracer,
    context: Context,
    root: SpanId,
    arrived: Instant,
    arrived_ns: u64,
    /// What is asked for, as the conventions name it; empty: nothing of a model.
    pub(super) operation: &'static str,
    /// Those that have ended.
    spans: Vec<Span>,
    attempt: Option<Attempt>,
    attempts: u64,
}

/// An account that is being asked.
struct Attempt {
    id: SpanId,
    began: Instant,
    /// When the head of its answer came.
    answered: Option<Instant>,
    name: String,
    attributes: Vec<KeyValue>,
}

/// What tells an upstream whose trace a request is part of.
pub(super) struct Onward {
    traceparent: HeaderValue,
    /// The trace begins here: what the client says beside is of none.
    is_new: bool,
}

impl Onward {
    /// Puts it into the headers of the request.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if self.is_new {
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, self.traceparent);
    }
}

/// How a request ended.
pub(super) struct Outcome {
    pub(super) ending: Ending,
    /// The status that the client got.
    pub(super) status: u16,
    /// The status of the upstream, if it answered.
    pub(super) upstream: Option<u16>,
}

impl Trace {
    /// The trace of a request; none: there are no traces.
    pub(super) fn begin(tracer: &Tracer, headers: &HeaderMap, arrived: Instant) -> Option<Box<Trace>> {
        let context = tracer.begin(headers)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Box::new(Trace {
            tracer: tracer.clone(),
            context,
            root: SpanId::random(),
            arrived,
            arrived_ns: nanoseconds(now.saturating_sub(arrived.elapsed())),
            operation: "",
            spans: Vec::new(),
            attempt: None,
            attempts: 0,
        }))
    }

    /// Policies have been asked, about the account too if there is one; the verdicts are in the order of what was asked.
    pub(super) fn admitted(&mut self, began: Instant, account: Option<&Account>, verdicts: &[Verdict]) {
        if !self.context.sampled {
            return;
        }
        let mut attributes = Vec::new();
        attributes.extend(account.map(|account| KeyValue::text("tollgate.account", &*account.name)));
        // The account is asked about last, or alone.
        let of_account = account.map(|_| verdicts.len().saturating_sub(1));
        for (index, verdict) in verdicts.iter().enumerate() {
            let keys = if Some(index) == of_account { &OF_ACCOUNT } else { &OF_CLIENT };
            attributes.push(KeyValue::text(keys.verdict, said(verdict)));
            let (plugin, limit) = match verdict {
                Verdict::Denied { plugin, denial } => (Some(plugin), Some(denial.limit_name.as_str())),
                Verdict::Failed { plugin, .. } => (Some(plugin), None),
                Verdict::Allowed(_) | Verdict::Busy => (None, None),
            };
            attributes.extend(plugin.map(|plugin| KeyValue::text(keys.plugin, &**plugin)));
            attributes.extend(limit.map(|limit| KeyValue::text(keys.limit, limit)));
        }
        let span = self.inside("admission", began, Instant::now());
        self.spans.push(Span { attributes, ..span });
    }

    /// The request has waited for a place on an account, whether it got one or not.
    pub(super) fn queued(&mut self, began: Instant) {
        if self.context.sampled {
            let span = self.inside("queue", began, Instant::now());
            self.spans.push(span);
        }
    }

    /// An account is asked for one of its models; what it is to be told of the trace, if that is not what the client says.
    pub(super) fn attempt(&mut self, account: &Account, model: &str) -> Option<Onward> {
        let (id, is_new) = (SpanId::random(), self.context.parent.is_none());
        if !self.context.sampled && !is_new {
            return None;
        }
        if self.context.sampled {
            let mut attributes = self.of_model(model);
            attributes.push(KeyValue::text("gen_ai.provider.name", account.dialect.api().provider()));
            attributes.push(KeyValue::text("tollgate.account", &*account.name));
            if let Some(authority) = account.authority() {
                attributes.push(KeyValue::text("server.address", authority.host()));
                attributes
                    .extend(authority.port_u16().map(|port| KeyValue::number("server.port", port.into())));
            }
            if self.attempts > 0 {
                attributes.push(KeyValue::number("http.request.resend_count", self.attempts));
            }
            let name = format!("{} {model}", self.operation);
            self.attempt = Some(Attempt { id, began: Instant::now(), answered: None, name, attributes });
        }
        self.attempts += 1;
        Some(Onward { traceparent: self.context.header(id)?, is_new })
    }

    /// The head of the account's answer has come.
    pub(super) fn answered(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.answered = Some(Instant::now());
        }
    }

    /// The account that was asked has given no answer worth passing on.
    pub(super) fn failed(&mut self, ending: Ending, status: Option<u16>) {
        self.end_attempt(ending, status, "", Vec::new(), Instant::now());
    }

    /// The request has ended, and this was its row in the log.
    pub(super) fn finish(mut self, record: &EventRecord, outcome: &Outcome) {
        if !self.context.sampled {
            return;
        }
        let Outcome { ending, status, upstream } = *outcome;
        let (now, usage) = (Instant::now(), usage(record));
        let answer = if record.is_stream { "stream" } else { "answer" };
        self.end_attempt(ending, upstream, answer, usage.clone(), now);
        let mut attributes = vec![
            KeyValue::text("http.request.method", record.method.as_str()),
            KeyValue::text("http.route", record.endpoint.as_str()),
            KeyValue::number("http.response.status_code", status.into()),
            KeyValue::text("tollgate.request_id", record.request_id.as_str()),
            KeyValue::text("tollgate.client", record.client_name.as_str()),
        ];
        for (key, value) in [
            ("client.address", &record.client_ip),
            ("user_agent.original", &record.user_agent),
            ("tollgate.account", &record.account_name),
        ] {
            if !value.is_empty() {
                attributes.push(KeyValue::text(key, value.as_str()));
            }
        }
        if !self.operation.is_empty() {
            attributes.extend(self.of_model(&record.original_model));
        }
        attributes.extend(usage);
        attributes.extend(error_type(ending, Some(status)));
        // What a client did wrong is no error of the server.
        let is_error = status >= 500 || matches!(ending, Ending::UpstreamError | Ending::TimedOut);
        let name = format!("{} {}", record.method, record.endpoint);
        let mut span = self.span(self.root, self.context.parent, &name, self.arrived, now);
        span.kind = Kind::Server.into();
        span.flags = FLAGS.0 | FLAGS.1 | self.context.parent.map_or(0, |_| FLAGS.2);
        span.attributes = attributes;
        span.status = is_error.then(failure);
        let mut spans = std::mem::take(&mut self.spans);
        spans.push(span);
        self.tracer.take(spans);
    }

    /// Ends the span of the account that is asked, and within it that of its answer, if one has begun.
    fn end_attempt(
        &mut self,
        ending: Ending,
        status: Option<u16>,
        answer: &str,
        usage: Vec<KeyValue>,
        now: Instant,
    ) {
        let Some(Attempt { id, began, answered, name, mut attributes }) = self.attempt.take() else { return };
        attributes.extend(status.map(|status| KeyValue::number("http.response.status_code", status.into())));
        let error = error_type(ending, status);
        let is_error = error.is_some() && ending != Ending::ClientAborted;
        attributes.extend(error);
        attributes.extend(usage);
        let mut span = self.span(id, Some(self.root), &name, began, now);
        span.kind = Kind::Client.into();
        span.attributes = attributes;
        span.status = is_error.then(failure);
        self.spans.push(span);
        if let Some(answered) = answered {
            self.spans.push(self.span(SpanId::random(), Some(id), answer, answered, now));
        }
    }

    fn of_model(&self, model: &str) -> Vec<KeyValue> {
        vec![
            KeyValue::text("gen_ai.operation.name", self.operation),
            KeyValue::text("gen_ai.request.model", model),
        ]
    }

    fn inside(&self, name: &str, from: Instant, to: Instant) -> Span {
        self.span(SpanId::random(), Some(self.root), name, from, to)
    }

    fn span(&self, id: SpanId, parent: Option<SpanId>, name: &str, from: Instant, to: Instant) -> Span {
        Span {
            trace_id: self.context.trace.to_be_bytes().to_vec(),
            span_id: id.0.to_vec(),
            parent_span_id: parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
            name: name.to_owned(),
            kind: Kind::Internal.into(),
            start_time_unix_nano: self.at(from),
            end_time_unix_nano: self.at(to),
            attributes: Vec::new(),
            status: None,
            flags: FLAGS.0 | FLAGS.1,
        }
    }

    fn at(&self, time: Instant) -> u64 {
        self.arrived_ns.saturating_add(nanoseconds(time.saturating_duration_since(self.arrived)))
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn failure() -> Status {
    Status { code: Code::Error.into() }
}

fn said(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed(_) => "allowed",
        Verdict::Denied { .. } => "denied",
        Verdict::Failed { .. } => "failed",
        Verdict::Busy => "busy",
    }
}

/// What kind of error it was; none: it was none.
fn error_type(ending: Ending, status: Option<u16>) -> Option<KeyValue> {
    let kind = match (ending, status) {
        (Ending::TimedOut, _) => "timeout".to_owned(),
        (Ending::ClientAborted, _) => "client_aborted".to_owned(),
        (_, Some(status)) if status >= 400 => status.to_string(),
        (Ending::UpstreamError, _) => "upstream_error".to_owned(),
        _ => return None,
    };
    Some(KeyValue::text("error.type", kind))
}

/// The tokens that were used, as far as there were any.
fn usage(record: &EventRecord) -> Vec<KeyValue> {
    [
        ("gen_ai.usage.input_tokens", record.input_tokens),
        ("gen_ai.usage.output_tokens", record.output_tokens),
        ("gen_ai.usage.cache_read.input_tokens", record.cache_read_tokens),
        ("gen_ai.usage.cache_creation.input_tokens", record.cache_write_tokens),
    ]
    .into_iter()
    .filter(|(_, tokens)| *tokens > 0)
    .map(|(key, tokens)| KeyValue::number(key, tokens))
    .collect()
}
