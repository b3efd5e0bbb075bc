//! The values of `wit/policy` from and to JSON, for the runtime whose values are Rust's.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tollgate::plugin::admission::{Decision, Ending, Limits, Request, Subject, SubjectKind, Usage};
use tollgate::plugin::ingestion::{Event, Receipt};
use tollgate::plugin::job::{Job, Report, Timing};
use tollgate::plugin::settle::Settlement;

pub fn request(value: &Value) -> Request {
    Request {
        id: text(value, "id"),
        now_ms: number(value, "now-ms"),
        dialect: text(value, "dialect"),
        endpoint: text(value, "endpoint"),
        model: text(value, "model"),
        estimated_tokens: number(value, "estimated-tokens"),
        streaming: value["streaming"].as_bool().unwrap(),
    }
}

pub fn subject(value: &Value) -> Arc<Subject> {
    let limits = &value["limits"];
    Arc::new(Subject {
        kind: match text(value, "kind").as_str() {
            "client" => SubjectKind::Client,
            "account" => SubjectKind::Account,
            other => panic!("no kind of subject: {other}"),
        },
        id: text(value, "id"),
        name: text(value, "name"),
        limits: Limits {
            rpm: optional(limits, "rpm"),
            tpm: optional(limits, "tpm"),
            rpd: optional(limits, "rpd"),
        },
    })
}

pub fn settlement(value: &Value) -> Settlement {
    Settlement {
        request_id: text(value, "request-id").into(),
        now_ms: number(value, "now-ms"),
        model: text(value, "model").into(),
        subject: subject(&value["subject"]),
        ticket: value["ticket"].as_str().map(|bytes| hex::decode(bytes).unwrap()),
        usage: usage(&value["usage"]),
    }
}

fn usage(value: &Value) -> Usage {
    Usage {
        ending: match text(value, "ending").as_str() {
            "running" => Ending::Running,
            "completed" => Ending::Completed,
            "client-aborted" => Ending::ClientAborted,
            "upstream-error" => Ending::UpstreamError,
            "timed-out" => Ending::TimedOut,
            "never-sent" => Ending::NeverSent,
            other => panic!("no ending: {other}"),
        },
        status: optional(value, "status").map(|status| u16::try_from(status).unwrap()),
        input_tokens: number(value, "input-tokens"),
        output_tokens: number(value, "output-tokens"),
        duration_ms: number(value, "duration-ms"),
        retry_after_ms: optional(value, "retry-after-ms"),
    }
}

pub fn event(value: &Value) -> Event {
    let fields = value.as_object().unwrap();
    let fields = fields.iter().map(|(name, value)| (name.replace('-', "_"), value.clone()));
    serde_json::from_value(Value::Object(fields.collect::<Map<_, _>>())).unwrap()
}

pub fn decision(decision: Decision) -> Value {
    match decision {
        Decision::Allow(ticket) => json!({ "allow": ticket.map(hex::encode) }),
        Decision::Deny(denial) => json!({ "deny": {
            "limit-name": denial.limit_name,
            "reason": denial.reason,
            "current": denial.current.map(wide),
            "limit": denial.limit.map(wide),
            "retry-after-ms": denial.retry_after_ms.map(wide),
        }}),
    }
}

pub fn receipt(receipt: Receipt) -> Value {
    json!({ "stored": receipt.stored, "repeated": receipt.repeated })
}

pub fn job(job: Job) -> Value {
    let timing = match job.timing {
        Timing::Every(ms) => json!({ "every": wide(ms) }),
        Timing::Cron(expression) => json!({ "cron": expression }),
    };
    json!({ "name": job.name, "timing": timing })
}

pub fn report(report: Report) -> Value {
    json!({ "changed": wide(report.changed), "summary": report.summary })
}

/// A number of 64 bits: as text where JavaScript's numbers would not carry it.
fn wide(number: u64) -> Value {
    if number <= 1 << 53 { json!(number) } else { json!(number.to_string()) }
}

pub fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} of {value} is no text")).to_owned()
}

pub fn number(value: &Value, name: &str) -> u64 {
    optional(value, name).unwrap_or_else(|| panic!("{name} of {value} is no number"))
}

fn optional(value: &Value, name: &str) -> Option<u64> {
    let number = value.get(name).unwrap_or_else(|| panic!("{value} has no {name}"));
    number.as_u64().or_else(|| number.as_str().map(|text| text.parse().unwrap()))
}
