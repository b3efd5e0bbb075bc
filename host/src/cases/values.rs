//! The values of `wit/policy` from and to JSON. What a case leaves out has a value that stands in no test's way.

use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::plugin::admission::{
    Decision, Ending, Identity, Limit, Limits, Measure, Reached, Request, Subject, SubjectKind, Usage,
};
use crate::plugin::ingestion::{Event, Receipt};
use crate::plugin::job::{Job, Report, Timing};
use crate::plugin::settle::Settlement;

/// A number of 64 bits; as text beyond what JavaScript's numbers or TOML's carry.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "Value")]
struct Wide(u64);

impl TryFrom<Value> for Wide {
    type Error = String;

    fn try_from(value: Value) -> Result<Wide, String> {
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        number.map(Wide).ok_or_else(|| format!("{value} is no number of 0 or more"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawRequest {
    id: String,
    now_ms: Option<Wide>,
    dialect: String,
    endpoint: String,
    model: String,
    prompt_tokens: Option<Wide>,
    estimated_tokens: Wide,
    estimated_cost: Option<Wide>,
    streaming: bool,
}

impl Default for RawRequest {
    fn default() -> RawRequest {
        RawRequest {
            id: "request".to_owned(),
            now_ms: None,
            dialect: "openai".to_owned(),
            endpoint: "/v1/chat/completions".to_owned(),
            model: "model".to_owned(),
            prompt_tokens: None,
            estimated_tokens: Wide(100),
            estimated_cost: None,
            streaming: false,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawKind {
    #[default]
    Client,
    Account,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawLimits {
    rpm: Option<Wide>,
    tpm: Option<Wide>,
    rpd: Option<Wide>,
    further: Vec<RawLimit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawMeasure {
    Rpm,
    Tpm,
    Rpd,
    Concurrency,
    TokensPerDay,
    TokensPerMonth,
    TokensTotal,
    CostPerDay,
    CostPerMonth,
    CostTotal,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLimit {
    measure: RawMeasure,
    most: Wide,
    models: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawSubject {
    kind: RawKind,
    id: String,
    name: String,
    limits: RawLimits,
}

impl Default for RawSubject {
    fn default() -> RawSubject {
        RawSubject {
            kind: RawKind::Client,
            id: "subject".to_owned(),
            name: "subject".to_owned(),
            limits: RawLimits::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawIdentity {
    kind: RawKind,
    id: String,
}

impl Default for RawIdentity {
    fn default() -> RawIdentity {
        let RawSubject { kind, id, .. } = RawSubject::default();
        RawIdentity { kind, id }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawEnding {
    Running,
    #[default]
    Completed,
    ClientAborted,
    UpstreamError,
    TimedOut,
    NeverSent,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawUsage {
    ending: RawEnding,
    status: Option<u16>,
    input_tokens: Wide,
    output_tokens: Wide,
    cost: Option<Wide>,
    duration_ms: Wide,
    retry_after_ms: Option<Wide>,
    reached: Option<RawReached>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawReached {
    measure: RawMeasure,
    #[serde(default)]
    of_model: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct RawSettlement {
    request_id: String,
    now_ms: Option<Wide>,
    model: String,
    subject: RawIdentity,
    ticket: Option<String>,
    usage: RawUsage,
}

impl Default for RawSettlement {
    fn default() -> RawSettlement {
        let RawRequest { id, model, .. } = RawRequest::default();
        RawSettlement {
            request_id: id,
            now_ms: None,
            model,
            subject: RawIdentity::default(),
            ticket: None,
            usage: RawUsage::default(),
        }
    }
}

/// Reads a record of a case; the error says which and names the field.
fn read<T: DeserializeOwned>(what: &str, value: &Value) -> anyhow::Result<T> {
    T::deserialize(value).with_context(|| what.to_owned())
}

pub(super) fn request(value: &Value, now_ms: u64) -> anyhow::Result<Request> {
    let raw: RawRequest = read("request", value)?;
    Ok(Request {
        id: raw.id,
        now_ms: raw.now_ms.map_or(now_ms, |own| own.0),
        dialect: raw.dialect,
        endpoint: raw.endpoint,
        model: raw.model,
        prompt_tokens: raw.prompt_tokens.unwrap_or(raw.estimated_tokens).0,
        estimated_tokens: raw.estimated_tokens.0,
        estimated_cost: raw.estimated_cost.map(|cost| cost.0),
        streaming: raw.streaming,
    })
}

pub(super) fn subject(value: &Value) -> anyhow::Result<Arc<Subject>> {
    Ok(Arc::new(read::<RawSubject>("subject", value)?.into()))
}

impl From<RawSubject> for Subject {
    fn from(RawSubject { kind, id, name, limits }: RawSubject) -> Subject {
        let RawLimits { rpm, tpm, rpd, further } = limits;
        let [rpm, tpm, rpd] = [rpm, tpm, rpd].map(|limit| limit.map(|limit| limit.0));
        let limits = Limits { rpm, tpm, rpd, further: further.into_iter().map(Limit::from).collect() };
        Subject { kind: kind.into(), id: id.into(), name: name.into(), limits }
    }
}

impl From<RawLimit> for Limit {
    fn from(RawLimit { measure, most, models }: RawLimit) -> Limit {
        Limit { measure: measure.into(), most: most.0, models }
    }
}

impl From<RawMeasure> for Measure {
    fn from(measure: RawMeasure) -> Measure {
        match measure {
            RawMeasure::Rpm => Measure::Rpm,
            RawMeasure::Tpm => Measure::Tpm,
            RawMeasure::Rpd => Measure::Rpd,
            RawMeasure::Concurrency => Measure::Concurrency,
            RawMeasure::TokensPerDay => Measure::TokensPerDay,
            RawMeasure::TokensPerMonth => Measure::TokensPerMonth,
            RawMeasure::TokensTotal => Measure::TokensTotal,
            RawMeasure::CostPerDay => Measure::CostPerDay,
            RawMeasure::CostPerMonth => Measure::CostPerMonth,
            RawMeasure::CostTotal => Measure::CostTotal,
        }
    }
}

impl From<RawReached> for Reached {
    fn from(RawReached { measure, of_model }: RawReached) -> Reached {
        Reached { measure: measure.into(), of_model }
    }
}

impl From<RawIdentity> for Identity {
    fn from(RawIdentity { kind, id }: RawIdentity) -> Identity {
        Identity { kind: kind.into(), id: id.into() }
    }
}

impl From<RawKind> for SubjectKind {
    fn from(kind: RawKind) -> SubjectKind {
        match kind {
            RawKind::Client => SubjectKind::Client,
            RawKind::Account => SubjectKind::Account,
        }
    }
}

pub(super) fn settlement(value: &Value, now_ms: u64) -> anyhow::Result<Settlement> {
    let RawSettlement { request_id, now_ms: own, model, subject, ticket, usage } = read("settlement", value)?;
    let ticket =
        ticket.map(hex::decode).transpose().context("ticket: it must be hexadecimal, or its name")?;
    Ok(Settlement {
        request_id: request_id.into(),
        now_ms: own.map_or(now_ms, |own| own.0),
        model: model.into(),
        subject: subject.into(),
        ticket,
        usage: usage.into(),
    })
}

impl From<RawUsage> for Usage {
    fn from(usage: RawUsage) -> Usage {
        Usage {
            ending: match usage.ending {
                RawEnding::Running => Ending::Running,
                RawEnding::Completed => Ending::Completed,
                RawEnding::ClientAborted => Ending::ClientAborted,
                RawEnding::UpstreamError => Ending::UpstreamError,
                RawEnding::TimedOut => Ending::TimedOut,
                RawEnding::NeverSent => Ending::NeverSent,
            },
            status: usage.status,
            input_tokens: usage.input_tokens.0,
            output_tokens: usage.output_tokens.0,
            cost: usage.cost.map(|cost| cost.0),
            duration_ms: usage.duration_ms.0,
            retry_after_ms: usage.retry_after_ms.map(|wait| wait.0),
            reached: usage.reached.map(Reached::from),
        }
    }
}

/// An event; only its sequence must be there.
pub(super) fn event(value: &Value, now_ms: u64) -> anyhow::Result<Event> {
    let mut fields = changed("event", unremarkable(now_ms), value)?;
    if fields.get("sequence") == Some(&Value::Null) {
        bail!("event: missing field `sequence`");
    }
    if let Some(Value::Array(attempts)) = fields.get_mut("attempts") {
        for attempt in attempts {
            *attempt = Value::Object(changed("attempt", failed_attempt(), attempt)?);
        }
    }
    serde_json::from_value(Value::Object(fields)).context("event")
}

/// The fields of a record, those that are given in the place of the others.
fn changed(what: &str, mut fields: Map<String, Value>, given: &Value) -> anyhow::Result<Map<String, Value>> {
    let given = given.as_object().with_context(|| format!("{what}: it must be a record"))?;
    for (name, value) in given {
        let known = fields.get_mut(&name.replace('-', "_"));
        *known.with_context(|| format!("{what}: unknown field `{name}`"))? = value.clone();
    }
    Ok(fields)
}

/// The fields of an event of a good request, all but its sequence.
fn unremarkable(now_ms: u64) -> Map<String, Value> {
    fields(json!({
        "sequence": null, "request_id": "request", "time_ms": now_ms, "client_type": "openai", "client_ip": "127.0.0.1",
        "user_agent": "case", "client_key_hash": "client", "client_name": "client", "api_key_hash": "account",
        "account_name": "account", "model": "model", "original_model": "model", "endpoint": "/v1/chat/completions",
        "method": "POST", "referer": "", "token_source": "reported", "cost": null,
        "response_time_ms": 10, "status_code": 200, "input_tokens": 10, "output_tokens": 20, "cache_read_tokens": 0,
        "cache_write_tokens": 0, "reasoning_tokens": 0, "is_stream": false, "has_error": false, "error_type": "",
        "error_message": null, "request_size": 100, "response_size": 200, "attempts": [],
    }))
}

/// The fields of an attempt on another account.
fn failed_attempt() -> Map<String, Value> {
    fields(json!({
        "api_key_hash": "other", "account_name": "other", "model": "model", "error_type": "upstream",
        "status_code": 500, "message": "the upstream answered 500", "response_time_ms": 5,
    }))
}

fn fields(record: Value) -> Map<String, Value> {
    match record {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// A field of a record that is a number.
pub(super) fn number(value: &Value, name: &str) -> anyhow::Result<u64> {
    let field = value.get(name).with_context(|| format!("missing field `{name}`"))?;
    Ok(read::<Wide>(name, field)?.0)
}

pub(super) fn decision(decision: Decision) -> Value {
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

pub(super) fn receipt(receipt: Receipt) -> Value {
    json!({ "stored": receipt.stored, "repeated": receipt.repeated })
}

pub(super) fn job(job: Job) -> Value {
    let timing = match job.timing {
        Timing::Every(ms) => json!({ "every": wide(ms) }),
        Timing::Cron(expression) => json!({ "cron": expression }),
    };
    json!({ "name": job.name, "timing": timing })
}

pub(super) fn report(report: Report) -> Value {
    json!({ "changed": wide(report.changed), "summary": report.summary })
}

/// A number of 64 bits: as text where JavaScript's numbers would not carry it.
fn wide(number: u64) -> Value {
    if number <= 1 << 53 { json!(number) } else { json!(number.to_string()) }
}
