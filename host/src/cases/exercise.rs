//! Calls every hook of a plugin with random valid input, to see that it never traps.

use std::sync::Arc;

use anyhow::{Context, bail};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::Before;
use super::home::Home;
use super::run::Plugin;
use super::values;
use crate::plugin::admission::{
    Decision, Ending, Limit, Limits, Measure, Reached, Request, Subject, SubjectKind, Ticket, Usage,
};
use crate::plugin::settle::Settlement;
use crate::plugin::{CallError, Engine, Generation, limits};

/// When the first call is made: some time in 2023.
const START_MS: u64 = 1_700_000_000_000;

/// Milliseconds between two calls at most: some fall into one second, some into another day.
const STEP_MS: u64 = 10_000_000;

/// Events of one batch at most.
const EVENTS: usize = 20;

/// What the calls came to. None of them trapped.
#[derive(Debug, Default)]
pub struct Exercised {
    /// Calls made.
    pub calls: u32,
    /// Calls that the plugin answered with an error.
    pub errors: u32,
    /// The first of these errors.
    pub first_error: Option<String>,
}

/// Makes `rounds` of calls of each hook that a plugin has, over empty stores. The same seed makes the same calls. An error
/// is a trap, an overrun, or an answer that the host would not take.
pub async fn exercise(engine: &Engine, plugin: &Plugin, rounds: u32, seed: u64) -> anyhow::Result<Exercised> {
    let home = Home::new(std::iter::once(&plugin.manifest().grants), &Before::default())?;
    let stores = home.stores();
    let plugin = plugin.start(engine, &stores)?;
    let hooks = plugin.hooks();
    let mut calls = Calls { plugin, rng: Rng::with_seed(seed), now_ms: START_MS, made: Exercised::default() };
    calls.init().await?;
    let jobs = if hooks.jobs { calls.schedule().await? } else { Vec::new() };
    let mut sequence = 0;
    for _ in 0..rounds {
        calls.now_ms += calls.rng.u64(..STEP_MS);
        home.set_clock(calls.now_ms);
        if hooks.admission {
            calls.admit_and_settle().await?;
        }
        if hooks.ingestion {
            calls.ingest(&mut sequence).await?;
        }
        if let Some(job) = calls.rng.choice(&jobs) {
            calls.run(job).await?;
        }
    }
    home.close().await?;
    Ok(calls.made)
}

struct Calls {
    plugin: Generation,
    rng: Rng,
    now_ms: u64,
    made: Exercised,
}

impl Calls {
    /// Counts a call, and hands its answer on; none: the plugin's own error.
    fn count<T>(
        &mut self,
        what: &dyn Fn() -> String,
        answer: Result<T, CallError>,
    ) -> anyhow::Result<Option<T>> {
        self.made.calls += 1;
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(CallError::Guest(text)) => {
                self.made.errors += 1;
                self.made.first_error.get_or_insert_with(|| format!("{}: {text}", what()));
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("call {}, {}", self.made.calls, what())),
        }
    }

    async fn init(&mut self) -> anyhow::Result<()> {
        let answer = self.plugin.init().await;
        self.count(&|| "init".to_owned(), answer).map(|_| ())
    }

    async fn schedule(&mut self) -> anyhow::Result<Vec<String>> {
        let answer = self.plugin.schedule().await;
        let jobs = self.count(&|| "schedule".to_owned(), answer)?.unwrap_or_default();
        Ok(jobs.into_iter().map(|job| job.name).collect())
    }

    async fn run(&mut self, job: &str) -> anyhow::Result<()> {
        let answer = self.plugin.run_job(job, self.now_ms).await;
        self.count(&|| format!("run {job:?}"), answer).map(|_| ())
    }

    async fn admit_and_settle(&mut self) -> anyhow::Result<()> {
        let request = Arc::new(self.request());
        let subjects: Arc<[_]> = (0..self.rng.usize(1..=3)).map(|_| Arc::new(self.subject())).collect();
        let answer = self.plugin.admit(request.clone(), subjects.clone()).await;
        let what = || cut(format!("admit {request:?} {subjects:?}"));
        let Some(decisions) = self.count(&what, answer)? else { return Ok(()) };
        if decisions.len() != subjects.len() {
            bail!("{}: {} decisions for {} subjects", what(), decisions.len(), subjects.len());
        }
        let mut settlements = Vec::new();
        for (decision, subject) in decisions.into_iter().zip(subjects.iter()) {
            let Decision::Allow(ticket) = decision else { continue };
            if let Some(bytes) = ticket.as_ref().map(Vec::len).filter(|bytes| *bytes > limits::TICKET_BYTES) {
                bail!("{}: a ticket of {bytes} bytes; at most {} are allowed", what(), limits::TICKET_BYTES);
            }
            settlements.push(self.settlement(&request, subject, ticket));
        }
        // A settlement may come again.
        let times = if settlements.is_empty() { 0 } else { self.rng.u32(1..=2) };
        let settlements = Arc::new(settlements);
        for _ in 0..times {
            let answer = self.plugin.settle(settlements.clone()).await;
            self.count(&|| cut(format!("settle {request:?} {subjects:?}")), answer)?;
        }
        Ok(())
    }

    async fn ingest(&mut self, sequence: &mut u64) -> anyhow::Result<()> {
        // An event may come again.
        *sequence = sequence.saturating_sub(self.rng.u64(..3));
        let mut events = Vec::new();
        for _ in 0..self.rng.usize(1..=EVENTS) {
            *sequence += self.rng.u64(1..3);
            events.push(values::event(&self.event(*sequence), self.now_ms)?);
        }
        let answer = self.plugin.ingest(events.into()).await;
        self.count(&|| format!("ingest up to sequence {sequence}"), answer).map(|_| ())
    }

    fn request(&mut self) -> Request {
        Request {
            id: self.text(),
            now_ms: self.now_ms,
            dialect: self.rng.choice(["openai", "claude", "gemini"]).unwrap_or_default().to_owned(),
            endpoint: "/v1/chat/completions".to_owned(),
            model: self.text(),
            prompt_tokens: self.number(),
            estimated_tokens: self.number(),
            estimated_cost: self.limit(),
            streaming: self.rng.bool(),
        }
    }

    fn subject(&mut self) -> Subject {
        Subject {
            kind: if self.rng.bool() { SubjectKind::Client } else { SubjectKind::Account },
            // Few, so that limits are reached.
            id: format!("{:064x}", self.rng.u8(..4)).into(),
            name: self.text().into(),
            limits: self.limits(),
        }
    }

    fn limits(&mut self) -> Limits {
        let mut further = Vec::new();
        while self.rng.u8(..3) == 0 {
            further.push(Limit {
                measure: self.measure(),
                most: self.number(),
                models: self
                    .rng
                    .bool()
                    .then(|| self.rng.choice(["gpt-*", "gpt-4o"]).unwrap_or_default().to_owned()),
            });
        }
        Limits { rpm: self.limit(), tpm: self.limit(), rpd: self.limit(), further }
    }

    fn measure(&mut self) -> Measure {
        let measures = [
            Measure::Rpm,
            Measure::Tpm,
            Measure::Rpd,
            Measure::Concurrency,
            Measure::TokensPerDay,
            Measure::TokensPerMonth,
            Measure::TokensTotal,
            Measure::CostPerDay,
            Measure::CostPerMonth,
            Measure::CostTotal,
        ];
        self.rng.choice(measures).unwrap_or(Measure::Rpm)
    }

    fn limit(&mut self) -> Option<u64> {
        self.rng.bool().then(|| self.number())
    }

    fn settlement(&mut self, request: &Request, subject: &Subject, ticket: Option<Ticket>) -> Settlement {
        let endings = [
            Ending::Running,
            Ending::Completed,
            Ending::ClientAborted,
            Ending::UpstreamError,
            Ending::TimedOut,
            Ending::NeverSent,
        ];
        let usage = Usage {
            ending: self.rng.choice(endings).unwrap_or(Ending::Completed),
            status: self.rng.bool().then(|| self.rng.u16(100..600)),
            input_tokens: self.number(),
            output_tokens: self.number(),
            cost: self.limit(),
            duration_ms: self.number(),
            retry_after_ms: self.limit(),
            reached: self.rng.bool().then(|| Reached { measure: self.measure(), of_model: self.rng.bool() }),
        };
        Settlement {
            request_id: request.id.as_str().into(),
            now_ms: self.now_ms + self.rng.u64(..STEP_MS),
            model: request.model.as_str().into(),
            subject: subject.identity(),
            ticket,
            usage,
        }
    }

    fn event(&mut self, sequence: u64) -> Value {
        let mut fields = Map::new();
        fields.insert("sequence".to_owned(), json!(sequence));
        for name in
            ["request-id", "client-ip", "user-agent", "client-name", "account-name", "model", "endpoint"]
        {
            fields.insert(name.to_owned(), json!(self.text()));
        }
        for name in ["input-tokens", "output-tokens", "response-time-ms", "request-size", "response-size"] {
            fields.insert(name.to_owned(), json!(self.number()));
        }
        fields.insert("status-code".to_owned(), json!(self.rng.u16(100..600)));
        fields.insert("has-error".to_owned(), json!(self.rng.bool()));
        let message = self.rng.bool().then(|| self.text());
        fields.insert("error-message".to_owned(), json!(message));
        fields.insert("error-type".to_owned(), json!(self.text()));
        let attempts: Vec<Value> = (0..self.rng.usize(..3)).map(|_| self.attempt()).collect();
        fields.insert("attempts".to_owned(), json!(attempts));
        Value::Object(fields)
    }

    fn attempt(&mut self) -> Value {
        json!({
            "account-name": self.text(), "model": self.text(), "error-type": self.text(), "message": self.text(),
            "status-code": self.rng.u16(..), "response-time-ms": self.number(),
        })
    }

    /// Text as clients send it: none, much, of any letters.
    fn text(&mut self) -> String {
        match self.rng.u8(..6) {
            0 => String::new(),
            1 => "gpt-4o".to_owned(),
            2 => "größer 🚧 \u{0}\n'\"/".to_owned(),
            3 => "x".repeat(limits::MAX_EVENT_TEXT_BYTES),
            _ => (0..self.rng.usize(1..40)).map(|_| self.rng.char(..)).collect(),
        }
    }

    /// A number, often at an end of its range.
    fn number(&mut self) -> u64 {
        match self.rng.u8(..5) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << 53,
            _ => self.rng.u64(..1_000),
        }
    }
}

/// Text of an input, for people.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limits::TEXT_BYTES));
    text
}
