//! The way of a request.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    response::Response,
    routing::{get, post},
};
use http::{HeaderName, HeaderValue, Request, header::USER_AGENT, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tollgate_store::Clock;

use super::{
    Parts, Peer, Settings,
    accounts::{Account, Accounts, Candidates},
    dialect::{Dialect, Endpoint, Shape},
    error::{Class, Problem},
    flight::{End, Flights, Guard, bounded},
    forward::{Failure, Outgoing, Upstreams, answer_headers},
    limits::{ATTEMPTS, LOGGED_BYTES},
    metrics::Metrics,
    models::{self, Listings},
    request::{Outline, outline, read_body},
    stream::AnswerBody,
    usage::UsageReader,
};
use crate::{
    keys::{ClientKey, Keys},
    plugin::{
        Admissions, EventRecord, Lease, Verdict,
        admission::{self, Denial, Ending, Usage},
    },
};

/// What every request needs.
pub(super) struct Inner {
    keys: Keys,
    pub(super) accounts: Accounts,
    admissions: Admissions,
    events: crate::plugin::EventQueue,
    settings: Settings,
    clock: Clock,
    pub(super) flights: Arc<Flights>,
    pub(super) upstreams: Upstreams,
    pub(super) listings: Listings,
    ids: Ids,
}

impl Inner {
    pub(super) fn new(parts: Parts) -> io::Result<Arc<Inner>> {
        let Parts { keys, accounts, admissions, events, settings, clock } = parts;
        let metrics = Metrics::new(&accounts);
        Ok(Arc::new(Inner {
            flights: Flights::new(events.clone(), metrics, settings.clone()),
            upstreams: Upstreams::new(&accounts, settings.connect_timeout)?,
            listings: Listings::new(),
            ids: Ids::new()?,
            keys,
            accounts,
            admissions,
            events,
            settings,
            clock,
        }))
    }
}

/// The routes of every dialect.
pub(super) fn router(inner: Arc<Inner>) -> Router {
    let mut router = Router::new();
    for endpoint in Dialect::ALL.into_iter().flat_map(Dialect::endpoints) {
        let inner = inner.clone();
        let handler = move |request: Request<Body>| async move { forwarded(inner, endpoint, request).await };
        router = router.route(endpoint.path, post(handler));
    }
    let (all, one) = (inner.clone(), inner);
    router
        .route("/v1/models", get(move |request: Request<Body>| models::list(all.clone(), request)))
        .route(
            "/v1/models/{*id}",
            get(move |path, request: Request<Body>| models::show(one.clone(), path, request)),
        )
        .fallback(|request: Request<Body>| async move {
            let message = format!("there is nothing at {}", bounded(request.uri().path(), 200));
            Dialect::OpenAi.refuse(&Problem::new(Class::Path, message))
        })
        .method_not_allowed_fallback(|request: Request<Body>| async move {
            let message = format!("{} is not allowed here", bounded(request.method().as_str(), 20));
            Dialect::OpenAi.refuse(&Problem::new(Class::Method, message))
        })
}

/// Ids of requests: unique over restarts, and cheap.
struct Ids {
    boot: u64,
    next: AtomicU64,
}

impl Ids {
    fn new() -> io::Result<Ids> {
        Ok(Ids { boot: getrandom::u64().map_err(io::Error::other)?, next: AtomicU64::new(1) })
    }

    fn next(&self) -> String {
        format!("req_{:016x}{:08x}", self.boot, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Why a request ends without an upstream's answer.
pub(super) struct Stop {
    problem: Problem,
    ending: Ending,
    upstream: Option<u16>,
    /// What the log is told, where the client is told less.
    detail: Option<String>,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Stop {
        Stop { problem, ending: Ending::NeverSent, upstream: None, detail: None }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        let Failure { ending, status, problem, detail, .. } = failure;
        Stop { problem, ending, upstream: status, detail: Some(detail) }
    }
}

/// A request of a known client.
pub(super) struct Admitted {
    pub(super) key: Arc<ClientKey>,
    pub(super) id: String,
    pub(super) now_ms: u64,
    pub(super) arrived: Instant,
    pub(super) flight: Guard,
}

async fn forwarded(inner: Arc<Inner>, endpoint: &'static Endpoint, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let client = match identify(&inner, endpoint.dialect, endpoint.path, &parts).await {
        Ok(client) => client,
        Err(problem) => return endpoint.dialect.refuse(&problem),
    };
    let id = client.id.clone();
    let response = match run(&inner, endpoint, &client, &parts, body).await {
        Ok(answer) => {
            let mut response = answer.map(|_| Body::empty());
            *response.body_mut() = Body::new(AnswerBody::new(client.flight));
            response
        }
        Err(stop) => refuse(endpoint.dialect, &client.flight, stop),
    };
    with_id(response, &id)
}

/// Finds out who asks, and begins the flight. Whoever has no valid key is counted and not logged: strangers must not be
/// able to fill the log.
pub(super) async fn identify(
    inner: &Inner,
    dialect: Dialect,
    path: &str,
    parts: &request::Parts,
) -> Result<Admitted, Problem> {
    let arrived = Instant::now();
    if !inner.events.has_room() {
        return Err(
            Problem::new(Class::Unavailable, "requests cannot be recorded at the moment").after(Some(1_000))
        );
    }
    let refused = |message: &'static str| {
        inner.flights.metrics.unauthenticated.increment(1);
        Problem::new(Class::Key, message)
    };
    let Some(key) = dialect.credentials(&parts.headers) else {
        return Err(refused("no api key was sent: put it into the authorization header, as bearer token"));
    };
    let key = match inner.keys.lookup(key).await {
        Ok(Some(key)) => key,
        Ok(None) => return Err(refused("the api key is not valid")),
        Err(error) => {
            tracing::error!(%error, "key lookup failed");
            return Err(
                Problem::new(Class::Unavailable, "keys cannot be checked at the moment").after(Some(1_000))
            );
        }
    };
    let (id, now_ms) = (inner.ids.next(), (inner.clock)());
    let agent = parts
        .headers
        .get(USER_AGENT)
        .map_or_else(String::new, |agent| bounded(&String::from_utf8_lossy(agent.as_bytes()), LOGGED_BYTES));
    let peer =
        parts.extensions.get::<Peer>().map(|Peer(peer)| SocketAddr::ip(peer).to_canonical().to_string());
    let record = EventRecord {
        request_id: id.clone(),
        time_ms: now_ms,
        client_type: dialect.name().to_owned(),
        client_ip: peer.unwrap_or_default(),
        user_agent: agent,
        client_key_hash: key.id.to_string(),
        client_name: key.name.to_string(),
        endpoint: path.to_owned(),
        ..EventRecord::default()
    };
    let flight = inner.flights.begin(dialect, record, arrived);
    Ok(Admitted { key, id, now_ms, arrived, flight })
}

/// Ends the flight with a refusal.
pub(super) fn refuse(dialect: Dialect, flight: &Guard, stop: Stop) -> Response {
    let response = dialect.refuse(&stop.problem);
    flight.end(End {
        ending: stop.ending,
        status: response.status().as_u16(),
        upstream: stop.upstream,
        error: Some(stop.detail.unwrap_or_else(|| stop.problem.message.into_owned())),
        response_size: response.body().size_hint().exact().unwrap_or(0),
    });
    response
}

pub(super) fn with_id(mut response: Response, id: &str) -> Response {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(HeaderName::from_static("x-request-id"), id);
    }
    response
}

/// From the body to the head of an upstream's answer, which the flight then holds.
async fn run(
    inner: &Inner,
    endpoint: &'static Endpoint,
    client: &Admitted,
    parts: &request::Parts,
    body: Body,
) -> Result<Response<()>, Stop> {
    if parts.headers.values().any(|value| std::str::from_utf8(value.as_bytes()).is_err()) {
        return Err(Problem::new(Class::Invalid, "a header is not UTF-8").into());
    }
    let settings = &inner.settings;
    let body = read_body(&parts.headers, body, settings.body_bytes, settings.body_timeout).await?;
    let size = body.len() as u64;
    client.flight.with(|open| open.record.request_size = size);
    let read = outline(endpoint.shape, &body)?;
    client.flight.outlined(&read.model, read.streaming, read.prompt_tokens);
    let unknown = || Problem::of(Class::Model, "model", models::unknown(&read.model));
    if !client.key.may_use(&read.model) {
        return Err(unknown().into());
    }
    let mut candidates = inner.accounts.candidates(endpoint.dialect, &read.model);
    let first = candidates.next().ok_or_else(unknown)?;
    let timeout = if read.streaming { settings.first_byte_timeout } else { settings.answer_timeout };
    let deadline = client.arrived + settings.total_timeout;
    let (query, headers) = (parts.uri.query(), &parts.headers);
    let outgoing = Outgoing { endpoint, query, headers, body, timeout, deadline };
    let request = asked(endpoint, client, read);
    let verdict = admit_both(inner, client, &request, &first).await?;
    let answer = attempt(inner, client, &request, &outgoing, (first, verdict), candidates).await?;
    Ok(answered(endpoint, client, answer))
}

fn asked(endpoint: &Endpoint, client: &Admitted, read: Outline) -> Arc<admission::Request> {
    Arc::new(admission::Request {
        id: client.id.clone(),
        now_ms: client.now_ms,
        dialect: endpoint.dialect.name().to_owned(),
        endpoint: endpoint.path.to_owned(),
        model: read.model,
        estimated_tokens: read.estimated_tokens,
        streaming: read.streaming,
    })
}

/// Asks for the client and the first account in one call; returns the account's verdict.
async fn admit_both(
    inner: &Inner,
    client: &Admitted,
    request: &Arc<admission::Request>,
    account: &Account,
) -> Result<Verdict, Stop> {
    let subjects = vec![client.key.subject.clone(), account.subject.clone()];
    let mut verdicts = inner.admissions.admit(request.clone(), subjects).await.into_iter();
    let (of_client, of_account) = (verdicts.next(), verdicts.next().unwrap_or(Verdict::Busy));
    let problem = match of_client {
        Some(Verdict::Allowed(lease)) => {
            client.flight.hold_client(lease);
            return Ok(of_account);
        }
        Some(Verdict::Denied { denial, .. }) => denied(&denial),
        Some(Verdict::Failed { plugin, reason }) => failed(&plugin, &reason),
        Some(Verdict::Busy) | None => busy(),
    };
    if let Verdict::Allowed(lease) = of_account {
        never_sent(lease, client);
    }
    Err(problem.into())
}

fn never_sent(lease: Lease, client: &Admitted) {
    lease.settle(Usage {
        ending: Ending::NeverSent,
        status: None,
        input_tokens: 0,
        output_tokens: 0,
        duration_ms: client.arrived.elapsed().as_millis() as u64,
        retry_after_ms: None,
    });
}

/// Sends to one account after the other until one answers.
async fn attempt(
    inner: &Inner,
    client: &Admitted,
    request: &Arc<admission::Request>,
    outgoing: &Outgoing<'_>,
    (mut account, mut verdict): (Arc<Account>, Verdict),
    mut candidates: Candidates,
) -> Result<http::Response<Incoming>, Stop> {
    let (mut attempts, mut last, mut refusals) = (0, None, Refusals::default());
    loop {
        match verdict {
            Verdict::Allowed(lease) => {
                client.flight.hold_account(&account, lease);
                let begun = Instant::now();
                let failure = match inner.upstreams.send(&account, outgoing).await {
                    Ok(answer) => {
                        inner.flights.metrics.answered(&account.name, begun.elapsed());
                        return Ok(answer);
                    }
                    Err(failure) => failure,
                };
                client.flight.drop_account(failure.ending, failure.status, failure.retry_after_ms);
                inner.flights.metrics.retries.increment(1);
                tracing::debug!(request = client.id, account = %account.name, detail = failure.detail, "attempt failed");
                last = Some(failure);
                attempts += 1;
            }
            refused => refusals.note(refused),
        }
        let may_try = attempts < ATTEMPTS && Instant::now() < outgoing.deadline;
        let next = if may_try { candidates.next() } else { None };
        let Some(next) = next else {
            return Err(last.map_or_else(|| refusals.problem().into(), Stop::from));
        };
        account = next;
        let subjects = vec![account.subject.clone()];
        verdict = inner.admissions.admit(request.clone(), subjects).await.pop().unwrap_or(Verdict::Busy);
    }
}

fn answered(endpoint: &Endpoint, client: &Admitted, answer: http::Response<Incoming>) -> Response<()> {
    let (parts, body) = answer.into_parts();
    let is_stream = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let dialect = endpoint.dialect;
    let reader = match is_stream {
        _ if !parts.status.is_success() => UsageReader::error(dialect),
        true => UsageReader::events(dialect),
        false => UsageReader::json(dialect, endpoint.shape != Shape::Embeddings),
    };
    client.flight.answering(body, reader, parts.status.as_u16());
    let mut response = Response::new(());
    *response.status_mut() = parts.status;
    *response.headers_mut() = answer_headers(dialect, &parts.headers);
    response
}

/// Why accounts could not be asked.
#[derive(Default)]
struct Refusals {
    limit: Option<Denial>,
    retry_after_ms: Option<u64>,
}

impl Refusals {
    fn note(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Denied { denial, .. } => {
                self.retry_after_ms =
                    [self.retry_after_ms, denial.retry_after_ms].into_iter().flatten().min();
                if denial.limit.is_some() {
                    self.limit = Some(denial);
                }
            }
            Verdict::Failed { plugin, reason } => drop(failed(&plugin, &reason)),
            Verdict::Busy | Verdict::Allowed(_) => {}
        }
    }

    /// What the client is told: a limit if one stands in the way, for that goes away by itself. Nothing is said about
    /// single accounts.
    fn problem(self) -> Problem {
        let problem = match &self.limit {
            Some(denial) => {
                Problem::new(limit_class(denial), "every upstream account for this model is at its limit")
            }
            None => Problem::new(Class::Unavailable, "no upstream account for this model is available"),
        };
        problem.after(self.retry_after_ms)
    }
}

fn denied(denial: &Denial) -> Problem {
    let class = match (denial.limit, denial.retry_after_ms) {
        (None, None) => Class::Forbidden,
        _ => limit_class(denial),
    };
    let message = match (denial.current, denial.limit) {
        (Some(current), Some(limit)) => {
            format!("{} ({}: {current} of {limit})", denial.reason, denial.limit_name)
        }
        _ => denial.reason.clone(),
    };
    Problem::new(class, message).after(denial.retry_after_ms)
}

fn limit_class(denial: &Denial) -> Class {
    if denial.limit_name == "tpm" { Class::TokenLimit } else { Class::RequestLimit }
}

fn failed(plugin: &str, reason: &str) -> Problem {
    tracing::warn!(plugin, reason, "admission failed");
    Problem::new(Class::Unavailable, "a policy of this gateway is failing").after(Some(1_000))
}

fn busy() -> Problem {
    Problem::new(Class::Unavailable, "too many requests are under way").after(Some(1_000))
}
