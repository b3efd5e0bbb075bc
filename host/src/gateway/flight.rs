//! A request under way: the leases it holds, its place on an account and the row that will be logged.
//!
//! Invariant: a flight ends exactly once. Whoever ends it (the handler, the answer's last byte, a timeout, or the drop of
//! its guard when the client left) takes everything out of it, settles both leases and records one event.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    Settings,
    begun::Begun,
    cause::Cause,
    dialect::Dialect,
    forward::Failure,
    limits::{LOGGED_BYTES, RENEW_EVERY, SWEEP_EVERY},
    metrics::{Ended, Metrics},
    place::Place,
    prices::Price,
    request::Outline,
    trace::{Onward, Outcome, Trace},
    unasked::Unasked,
    usage::{self, Tokens, UsageReader},
};
use crate::plugin::{
    AttemptRecord, EventQueue, EventRecord, Lease, RecordError,
    admission::{Ending, Usage},
};

/// The status logged for a client that went away.
pub(super) const CLIENT_CLOSED: u16 = 499;

const SHARDS: usize = 16;

/// All requests under way, and what is needed to end them.
pub(super) struct Flights {
    shards: [Mutex<HashMap<u64, Weak<Flight>>>; SHARDS],
    next: AtomicU64,
    count: AtomicUsize,
    events: EventQueue,
    pub(super) metrics: Metrics,
    settings: Arc<ArcSwap<Settings>>,
}

impl Flights {
    pub(super) fn new(
        events: EventQueue,
        metrics: Metrics,
        settings: Arc<ArcSwap<Settings>>,
    ) -> Arc<Flights> {
        let flights = Arc::new(Flights {
            shards: Default::default(),
            next: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            events,
            metrics,
            settings,
        });
        tokio::spawn(look_after(Arc::downgrade(&flights)));
        flights
    }

    /// Begins a flight; `record` is filled in as more becomes known.
    pub(super) fn begin(
        self: &Arc<Flights>,
        dialect: Dialect,
        record: EventRecord,
        arrived: Instant,
        trace: Option<Box<Trace>>,
    ) -> Guard {
        let flight = Arc::new(Flight {
            flights: self.clone(),
            number: self.next.fetch_add(1, Ordering::Relaxed),
            dialect,
            open: Mutex::new(Some(Box::new(Open {
                record,
                arrived,
                renewed: arrived,
                client: None,
                account: None,
                place: None,
                sent: arrived,
                failed: None,
                prompt_tokens: 0,
                price: None,
                answer: None,
                first_byte: None,
                trace,
            }))),
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        self.metrics.in_flight.increment(1);
        if let Some(shard) = self.shard(flight.number) {
            shard.lock().insert(flight.number, Arc::downgrade(&flight));
        }
        Guard(flight)
    }

    /// Requests under way.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn shard(&self, number: u64) -> Option<&Mutex<HashMap<u64, Weak<Flight>>>> {
        self.shards.get(number as usize % SHARDS)
    }

    fn remove(&self, number: u64) {
        if let Some(shard) = self.shard(number) {
            shard.lock().remove(&number);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.metrics.in_flight.decrement(1);
    }

    /// Renews leases and ends what has run out of time.
    pub(super) fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            let flights: Vec<Arc<Flight>> = shard.lock().values().filter_map(Weak::upgrade).collect();
            flights.iter().for_each(|flight| flight.look_after(now));
        }
    }
}

async fn look_after(flights: Weak<Flights>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(flights) = flights.upgrade() else { return };
        flights.sweep(Instant::now());
    }
}

/// A request under way.
pub(super) struct Flight {
    flights: Arc<Flights>,
    number: u64,
    dialect: Dialect,
    /// None once it has ended.
    open: Mutex<Option<Box<Open>>>,
}

/// What a flight holds until it ends.
pub(super) struct Open {
    pub(super) record: EventRecord,
    arrived: Instant,
    renewed: Instant,
    client: Option<Lease>,
    account: Option<Lease>,
    place: Option<Place>,
    /// When the present attempt began.
    sent: Instant,
    /// The last attempt, if it failed. Either another one follows it, or the request ends by it.
    failed: Option<AttemptRecord>,
    prompt_tokens: u64,
    /// What the model costs, if that is known.
    price: Option<Price>,
    pub(super) answer: Option<Answer>,
    /// Time from arrival to the first byte of the answer, once it has come.
    first_byte: Option<Duration>,
    /// None: there are no traces.
    trace: Option<Box<Trace>>,
}

/// The answer that an upstream is giving.
pub(super) struct Answer {
    pub(super) body: Begun,
    pub(super) reader: UsageReader,
    /// Keeps from the client what it has not asked for; none: it gets everything.
    pub(super) unasked: Option<Unasked>,
    pub(super) status: u16,
    /// Since when nothing has moved: the last frame, or the last time the client asked for one.
    pub(super) since: Instant,
    /// Whom to wake when it is cut; some while the upstream is waited for, none while the client is.
    pub(super) waiting: Option<Waker>,
}

/// How a flight ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub(super) ending: Ending,
    /// The status that the client got.
    pub(super) status: u16,
    /// The status of the upstream, where it is not the same.
    pub(super) upstream: Option<u16>,
    /// Why it failed, where neither the ending nor an answer tells.
    pub(super) cause: Option<Cause>,
    pub(super) error: Option<String>,
    /// Bytes of an answer that the gateway gave itself.
    pub(super) response_size: u64,
}

impl End {
    pub(super) fn new(ending: Ending, status: u16) -> End {
        End { ending, status, upstream: None, cause: None, error: None, response_size: 0 }
    }

    pub(super) fn error(self, message: impl Into<String>) -> End {
        End { error: Some(message.into()), ..self }
    }
}

impl Flight {
    /// Works on what the flight holds; none once it has ended.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Open) -> T) -> Option<T> {
        self.open.lock().as_deref_mut().map(work)
    }

    /// Works on the trace, if there is one and the flight has not ended.
    pub(super) fn traced(&self, work: impl FnOnce(&mut Trace)) {
        self.with(|open| open.trace.as_deref_mut().map(work));
    }

    /// Takes what is known of the request's body.
    pub(super) fn outlined(&self, read: &Outline, price: Option<Price>) {
        self.with(|open| {
            read.model.clone_into(&mut open.record.model);
            read.model.clone_into(&mut open.record.original_model);
            open.record.is_stream = read.streaming;
            open.prompt_tokens = read.prompt_tokens;
            open.price = price;
        });
    }

    /// Takes the client's lease.
    pub(super) fn hold_client(&self, lease: Lease) {
        self.with(|open| open.client = Some(lease));
    }

    /// Takes the place and the lease of the account that the request is being sent to; what that account is to be told of the
    /// trace.
    pub(super) fn hold_account(&self, place: Place, lease: Lease) -> Option<Onward> {
        let onward = self.with(|open| {
            open.account = Some(lease);
            open.sent = Instant::now();
            open.record.attempts.extend(open.failed.take());
            let account = &open.place.insert(place).account();
            account.key_hash.as_ref().clone_into(&mut open.record.api_key_hash);
            account.name.as_ref().clone_into(&mut open.record.account_name);
            let asked = &open.record.original_model;
            account.alias(asked).unwrap_or(asked).clone_into(&mut open.record.model);
            open.trace.as_deref_mut()?.attempt(account, &open.record.model)
        });
        onward.flatten()
    }

    /// Settles the account's lease after an attempt that failed; the flight goes on.
    pub(super) fn drop_account(&self, failure: &Failure) {
        let held = self.with(|open| {
            open.place = None;
            open.failed = Some(open.attempt(failure));
            if let Some(trace) = &mut open.trace {
                trace.failed(failure.ending, failure.answered);
            }
            (open.account.take(), open.duration_ms())
        });
        if let Some((Some(lease), duration_ms)) = held {
            lease.settle(Usage {
                ending: failure.ending,
                status: failure.status,
                input_tokens: 0,
                output_tokens: 0,
                cost: None,
                duration_ms,
                retry_after_ms: failure.told.retry_after_ms,
                reached: failure.told.reached,
            });
        }
    }

    /// Takes the upstream's answer, of which nothing has been passed on yet.
    pub(super) fn answering(&self, body: Begun, reader: UsageReader, unasked: Option<Unasked>, status: u16) {
        let since = Instant::now();
        self.with(|open| {
            open.answer = Some(Answer { body, reader, unasked, status, since, waiting: None });
            if let Some(trace) = &mut open.trace {
                trace.answered();
            }
        });
    }

    /// Ends the flight, unless it has ended.
    pub(super) fn end(&self, end: End) {
        let open = self.open.lock().take();
        if let Some(open) = open {
            self.close(*open, end);
        }
    }

    /// The way a flight ends when its guard is dropped: usually the client went away.
    fn abandon(&self) {
        // A client that has seen the last event has no reason to wait for the end of the body.
        let complete =
            self.with(|open| open.answer.as_ref().filter(|answer| answer.reader.is_done()).map(|a| a.status));
        match complete.flatten() {
            Some(status) => self.end(End::new(Ending::Completed, status)),
            None => self.end(End::new(Ending::ClientAborted, CLIENT_CLOSED).error("the client went away")),
        }
    }

    fn close(&self, mut open: Open, end: End) {
        let tokens = open.tokens();
        let source = open.token_source();
        let cost = open.price.map(|price| price.of(&tokens));
        let duration_ms = open.duration_ms();
        let upstream = open.answer.as_ref().map(|answer| answer.status).or(end.upstream);
        let reported = open.answer.as_ref().and_then(|answer| answer.reader.failure());
        let ending = match end.ending {
            // An answer that is an error, as a whole or in mid-stream: only requests without error count.
            Ending::Completed if reported.is_some() || upstream.is_some_and(|status| status >= 400) => {
                Ending::UpstreamError
            }
            ending => ending,
        };
        let error = end.error.or(reported).map(|message| bounded(&message, LOGGED_BYTES));
        let usage = || Usage {
            ending,
            status: upstream,
            input_tokens: tokens.input,
            output_tokens: tokens.output,
            cost,
            duration_ms,
            retry_after_ms: None,
            reached: None,
        };
        // Settled before it is recorded, so that whoever sees the row finds the counters right.
        [open.account.take(), open.client.take()]
            .into_iter()
            .flatten()
            .for_each(|lease| lease.settle(usage()));
        if end.ending == Ending::ClientAborted {
            open.leave_failed();
        }
        if let Some((place, cost)) = open.place.as_ref().zip(cost) {
            place.account().metrics.cost.increment(cost);
        }
        let record = &mut open.record;
        record.response_time_ms = duration_ms;
        record.status_code = end.status.into();
        record.input_tokens = tokens.input;
        record.output_tokens = tokens.output;
        record.cache_read_tokens = tokens.cache_read;
        record.cache_write_tokens = tokens.cache_write;
        record.reasoning_tokens = tokens.reasoning;
        record.token_source = source.to_owned();
        record.cost = cost;
        record.has_error = end.status >= 400 || error.is_some();
        let cause = end.cause.or_else(|| Cause::of_end(ending, upstream, record.has_error));
        record.error_type = cause.map(Cause::name).unwrap_or_default().to_owned();
        record.error_message = error;
        record.response_size += end.response_size;
        if let Some(trace) = open.trace.take() {
            trace.finish(record, &Outcome { ending, status: end.status, upstream });
        }
        if let Err(RecordError::Unavailable { request_id, reason }) = self.flights.events.record(open.record)
        {
            tracing::error!(request_id, reason, "request not recorded");
            self.flights.metrics.unrecorded.increment(1);
        }
        self.flights.metrics.ended(&Ended {
            dialect: self.dialect,
            status: end.status,
            tokens,
            took: open.arrived.elapsed(),
            first_byte: open.first_byte,
        });
        self.flights.remove(self.number);
    }

    fn look_after(&self, now: Instant) {
        let mut held = self.open.lock();
        let Some(open) = held.as_deref_mut() else { return };
        if now.saturating_duration_since(open.renewed) >= RENEW_EVERY {
            open.renewed = now;
            open.renew();
        }
        let Some(end) = open.overdue(now, &self.flights.settings.load()) else { return };
        let open = held.take();
        drop(held);
        if let Some(mut open) = open {
            let waiting = open.answer.as_mut().and_then(|answer| answer.waiting.take());
            self.close(*open, end);
            // The body must find that it was cut.
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Open {
    /// Takes note of bytes of the answer that are on their way to the client.
    pub(super) fn passed(&mut self, bytes: usize, now: Instant) {
        self.first_byte.get_or_insert_with(|| now.saturating_duration_since(self.arrived));
        self.record.response_size += bytes as u64;
    }

    fn tokens(&self) -> Tokens {
        match (&self.answer, &self.place) {
            (Some(answer), _) => answer.reader.tokens(self.prompt_tokens),
            // Sent, and nothing seen yet: the prompt is being read.
            (None, Some(_)) => Tokens { input: self.prompt_tokens, ..Tokens::default() },
            (None, None) => Tokens::default(),
        }
    }

    /// Where those tokens are from, as the log says it.
    fn token_source(&self) -> &'static str {
        match (&self.answer, &self.place) {
            (Some(answer), _) => answer.reader.source(),
            (None, Some(_)) => usage::ESTIMATED,
            (None, None) => "",
        }
    }

    /// The present attempt, which failed.
    fn attempt(&self, failure: &Failure) -> AttemptRecord {
        let EventRecord { api_key_hash, account_name, model, .. } = &self.record;
        AttemptRecord {
            api_key_hash: api_key_hash.clone(),
            account_name: account_name.clone(),
            model: model.clone(),
            error_type: failure.cause.name().to_owned(),
            status_code: failure.answered.unwrap_or_default().into(),
            message: bounded(&failure.detail, LOGGED_BYTES),
            response_time_ms: self.sent.elapsed().as_millis() as u64,
        }
    }

    /// Whoever leaves while waiting for another account is not the last one's affair: its attempt stands for itself.
    fn leave_failed(&mut self) {
        let Some(failed) = self.failed.take() else { return };
        let record = &mut self.record;
        record.attempts.push(failed);
        record.api_key_hash.clear();
        record.account_name.clear();
        record.model.clone_from(&record.original_model);
    }

    fn duration_ms(&self) -> u64 {
        self.arrived.elapsed().as_millis() as u64
    }

    fn renew(&self) {
        let tokens = self.tokens();
        for lease in [&self.client, &self.account].into_iter().flatten() {
            lease.renew(Usage {
                ending: Ending::Running,
                status: self.answer.as_ref().map(|answer| answer.status),
                input_tokens: tokens.input,
                output_tokens: tokens.output,
                cost: self.price.map(|price| price.of(&tokens)),
                duration_ms: self.duration_ms(),
                retry_after_ms: None,
                reached: None,
            });
        }
    }

    fn overdue(&self, now: Instant, settings: &Settings) -> Option<End> {
        // Until there is an answer the handler keeps the time.
        let answer = self.answer.as_ref()?;
        let longer = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if longer(self.arrived, settings.total_timeout) {
            return Some(End::new(Ending::TimedOut, answer.status).error("the answer took too long"));
        }
        match answer.waiting {
            Some(_) => longer(answer.since, settings.idle_timeout)
                .then(|| End::new(Ending::TimedOut, answer.status).error("the upstream fell silent")),
            None => longer(answer.since, settings.stall_timeout)
                .then(|| End::new(Ending::ClientAborted, CLIENT_CLOSED).error("the client stopped reading")),
        }
    }
}

/// Holds a flight; whoever drops it ends it.
pub(super) struct Guard(Arc<Flight>);

impl std::ops::Deref for Guard {
    type Target = Flight;

    fn deref(&self) -> &Flight {
        &self.0
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The beginning of a text, cut between characters.
pub(super) fn bounded(text: &str, bytes: usize) -> String {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
}
