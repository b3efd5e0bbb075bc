//! The way of a request.

use std::{borrow::Cow, io, net::SocketAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{body::Body, response::Response};
use http::{
    header::{CONTENT_LENGTH, REFERER, USER_AGENT},
    request,
};
use http_body::Body as _;
use tollgate_store::Clock;

use super::{
    Parts, Peer, Settings,
    account::Account,
    accounts::{Accounts, Candidates},
    cause::Cause,
    dialect::{Dialect, Endpoint},
    error::{Class, Problem},
    flight::{End, Flights, Guard, bounded},
    forward::{self, Answered, Failure, Outgoing, answer_headers},
    limits::{ATTEMPTS, LOGGED_BYTES},
    metrics::Metrics,
    models::{self, Listings},
    permission,
    place::Place,
    prices::{Price, Prices},
    queue::{self, Patience},
    refusal::{Refusals, busy, denied, failed},
    request::{Bodies, Outline, model_in_path, read_body},
    sessions::{Session, SessionName, Sessions},
    stream::AnswerBody,
    trace::Trace,
    unasked::Unasked,
    usage::UsageReader,
};
use crate::{
    keys::{ClientKey, Keys},
    plugin::{
        Admissions, EventRecord, Lease, Mounts, Verdict,
        admission::{self, Ending, Usage},
    },
    request_ids::RequestIds,
    telemetry::Tracer,
};

/// What every request needs.
pub(super) struct Inner {
    pub(super) keys: Keys,
    pub(super) accounts: Accounts,
    admissions: Admissions,
    pub(super) mounts: Mounts,
    events: crate::plugin::EventQueue,
    pub(super) prices: ArcSwap<Prices>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    clock: Clock,
    tracer: Tracer,
    pub(super) flights: Arc<Flights>,
    pub(super) listings: Listings,
    sessions: Sessions,
    bodies: Bodies,
    pub(super) ids: RequestIds,
}

impl Inner {
    pub(super) fn new(parts: Parts) -> io::Result<Arc<Inner>> {
        let Parts { keys, accounts, admissions, mounts, events, prices, settings, clock, tracer } = parts;
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        Ok(Arc::new(Inner {
            flights: Flights::new(events.clone(), Metrics::new(), settings.clone()),
            listings: Listings::new(),
            sessions: Sessions::new(),
            bodies: Bodies::default(),
            ids: RequestIds::new()?,
            keys,
            accounts,
            admissions,
            mounts,
            events,
            prices: ArcSwap::from_pointee(prices),
            settings,
            clock,
            tracer,
        }))
    }
}

/// Why a request ends without an upstream's answer.
pub(super) struct Stop {
    problem: Problem,
    ending: Ending,
    cause: Cause,
    upstream: Option<u16>,
    /// What the log is told, where the client is told less.
    detail: Option<String>,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Stop {
        let cause = Cause::of_refusal(problem.class);
        Stop { problem, ending: Ending::NeverSent, cause, upstream: None, detail: None }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        let Failure { ending, cause, status, problem, detail, .. } = failure;
        Stop { problem, ending, cause, upstream: status, detail: Some(detail.into()) }
    }
}

impl From<Refusals> for Stop {
    fn from(refusals: Refusals) -> Stop {
        let problem = refusals.problem();
        let cause = Cause::of_accounts(problem.class);
        Stop { cause, detail: refusals.detail(&problem), ..problem.into() }
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

/// Takes a request to an upstream; `model` is as in the path, if it stands there.
pub(super) async fn forwarded(
    inner: &Inner,
    endpoint: &'static Endpoint,
    model: Option<&str>,
    head: &request::Parts,
    body: Body,
    id: &str,
) -> Response {
    let client = match identify(inner, endpoint.dialect, endpoint.path, head, id).await {
        Ok(client) => client,
        Err(problem) => return endpoint.dialect.api().refuse(&problem, id),
    };
    match run(inner, endpoint, model, &client, head, body).await {
        Ok(answer) => {
            let mut response = answer.map(|_| Body::empty());
            *response.body_mut() = Body::new(AnswerBody::new(client.flight));
            response
        }
        Err(stop) => refuse(endpoint.dialect, &client, stop),
    }
}

/// Finds out who asks, and begins the flight. Whoever has no valid key is counted and not logged: strangers must not be
/// able to fill the log.
pub(super) async fn identify(
    inner: &Inner,
    dialect: Dialect,
    path: &str,
    head: &request::Parts,
    id: &str,
) -> Result<Admitted, Problem> {
    let arrived = Instant::now();
    if !inner.events.has_room() {
        return Err(
            Problem::new(Class::Unavailable, "requests cannot be recorded at the moment").after(Some(1_000))
        );
    }
    let refused = |message: Cow<'static, str>| {
        inner.flights.metrics.unauthenticated.increment(1);
        Problem::new(Class::Key, message)
    };
    let Some(key) = dialect.api().credentials(head) else {
        let place = dialect.api().place_of_key();
        return Err(refused(format!("no api key was sent: put it into {place}").into()));
    };
    let key = match inner.keys.lookup(key).await {
        Ok(Some(key)) => key,
        Ok(None) => return Err(refused("the api key is not valid".into())),
        Err(error) => {
            tracing::error!(request_id = id, %error, "key lookup failed");
            return Err(
                Problem::new(Class::Unavailable, "keys cannot be checked at the moment").after(Some(1_000))
            );
        }
    };
    let now_ms = (inner.clock)();
    let said = |name| {
        let value = head.headers.get(name);
        value.map_or_else(String::new, |value| {
            bounded(&String::from_utf8_lossy(value.as_bytes()), LOGGED_BYTES)
        })
    };
    let peer =
        head.extensions.get::<Peer>().map(|Peer(peer)| SocketAddr::ip(peer).to_canonical().to_string());
    let record = EventRecord {
        request_id: id.to_owned(),
        time_ms: now_ms,
        client_type: dialect.api().client_type().to_owned(),
        client_ip: peer.unwrap_or_default(),
        user_agent: said(USER_AGENT),
        referer: said(REFERER),
        method: head.method.as_str().to_owned(),
        client_key_hash: key.id.to_string(),
        client_name: key.name.to_string(),
        endpoint: path.to_owned(),
        ..EventRecord::default()
    };
    let trace = Trace::begin(&inner.tracer, &head.headers, arrived);
    let flight = inner.flights.begin(dialect, record, arrived, trace);
    Ok(Admitted { key, id: id.to_owned(), now_ms, arrived, flight })
}

/// Ends the flight with a refusal.
pub(super) fn refuse(dialect: Dialect, client: &Admitted, stop: Stop) -> Response {
    let response = dialect.api().refuse(&stop.problem, &client.id);
    client.flight.end(End {
        ending: stop.ending,
        status: response.status().as_u16(),
        upstream: stop.upstream,
        cause: Some(stop.cause),
        error: Some(stop.detail.unwrap_or_else(|| stop.problem.message.into_owned())),
        response_size: response.body().size_hint().exact().unwrap_or(0),
    });
    response
}

/// From the body to the head of an upstream's answer, which the flight then holds.
async fn run(
    inner: &Inner,
    endpoint: &'static Endpoint,
    model: Option<&str>,
    client: &Admitted,
    head: &request::Parts,
    body: Body,
) -> Result<Response<()>, Stop> {
    if head.headers.values().any(|value| std::str::from_utf8(value.as_bytes()).is_err()) {
        return Err(Problem::new(Class::Invalid, "a header is not UTF-8").into());
    }
    permission::check(&client.key, endpoint.dialect, &head.headers)?;
    let settings = inner.settings.load_full();
    let body = read_body(
        &inner.bodies,
        &client.key.id,
        &head.headers,
        body,
        settings.body_bytes,
        settings.body_timeout,
    )
    .await?;
    let size = body.len() as u64;
    client.flight.with(|open| open.record.request_size = size);
    let model = model.map(model_in_path).transpose()?;
    let read = (endpoint.outline)(&body, model.map(Cow::into_owned))?;
    let price = inner.prices.load().of(&read.model);
    client.flight.outlined(&read, price);
    client.flight.traced(|trace| trace.operation = endpoint.operation());
    let unknown = |model: &str| Problem::of(Class::Model, "model", models::unknown(model));
    if !client.key.may_use(&read.model) {
        return Err(unknown(&read.model).into());
    }
    let timeout = if read.streaming { settings.first_byte_timeout } else { settings.answer_timeout };
    let deadline = client.arrived + settings.total_timeout;
    let session =
        SessionName::of_headers(&head.headers).or(read.session).filter(|_| settings.sticky_sessions);
    let session = session.map(|name| Session::new(&client.key.id, &read.model, name));
    let request = asked(endpoint, client, read, price);
    let (uri, model, headers) = (&head.uri, request.model.as_str(), &head.headers);
    let (streaming, clock) = (request.streaming, &inner.clock);
    let outgoing = Outgoing { endpoint, uri, model, headers, body, streaming, timeout, deadline, clock };
    let mut candidates =
        inner.accounts.candidates(endpoint.dialect, &request.model, client.now_ms, settings.strategy);
    if candidates.are_none() {
        return Err(unknown(&request.model).into());
    }
    if let Some(name) = session.and_then(|session| inner.sessions.account(session)) {
        candidates.prefer(&name);
    }
    // Whoever must wait for a place is admitted before: the queue is no way around a client's limits.
    let first = candidates.next();
    let account = first.as_ref().map(|place| &**place.account());
    let verdict = admit(inner, client, &request, account).await?;
    let mut search = Search {
        candidates,
        patience: Patience {
            key: client.key.id.clone(),
            most: settings.queue_requests,
            until: deadline.min(Instant::now() + settings.queue_timeout),
            number: None,
            since: None,
        },
        asked: first.zip(verdict),
        session,
    };
    let answer = attempt(inner, client, &request, &outgoing, &mut search).await?;
    Ok(answered(endpoint, client, answer))
}

fn asked(
    endpoint: &Endpoint,
    client: &Admitted,
    read: Outline,
    price: Option<Price>,
) -> Arc<admission::Request> {
    Arc::new(admission::Request {
        id: client.id.clone(),
        now_ms: client.now_ms,
        dialect: endpoint.dialect.api().client_type().to_owned(),
        endpoint: endpoint.path.to_owned(),
        model: read.model,
        prompt_tokens: read.prompt_tokens,
        estimated_tokens: read.estimated_tokens,
        estimated_cost: price.map(|price| price.at_most(read.prompt_tokens, read.estimated_tokens)),
        streaming: read.streaming,
    })
}

/// Asks for the client, and in the same call for the first account if there is one; returns the account's verdict.
async fn admit(
    inner: &Inner,
    client: &Admitted,
    request: &Arc<admission::Request>,
    account: Option<&Account>,
) -> Result<Option<Verdict>, Stop> {
    let subjects = [Some(&client.key.subject), account.map(|account| &account.subject)];
    let subjects = subjects.into_iter().flatten().map(|subject| subject.for_model(&request.model)).collect();
    let began = Instant::now();
    let verdicts = inner.admissions.admit(request.clone(), subjects).await;
    decided(inner, client, began, account, &verdicts);
    let mut verdicts = verdicts.into_iter();
    let (of_client, of_account) = (verdicts.next(), verdicts.next());
    let problem = match of_client {
        Some(Verdict::Allowed(lease)) => {
            client.flight.hold_client(lease);
            return Ok(of_account);
        }
        Some(Verdict::Denied { denial, .. }) => denied(&denial),
        Some(Verdict::Failed { plugin, reason }) => failed(&client.id, &plugin, &reason),
        Some(Verdict::Busy) | None => busy(),
    };
    if let Some(Verdict::Allowed(lease)) = of_account {
        never_sent(lease, client);
    }
    Err(problem.into())
}

/// Takes note of what policies, asked from then on, said of the client or the account, or of both in this order.
fn decided(
    inner: &Inner,
    client: &Admitted,
    began: Instant,
    account: Option<&Account>,
    verdicts: &[Verdict],
) {
    for (index, verdict) in verdicts.iter().enumerate() {
        if let Verdict::Denied { denial, .. } = verdict {
            let is_account = account.is_some() && index + 1 == verdicts.len();
            inner.flights.metrics.denied(is_account, &denial.limit_name);
        }
    }
    client.flight.traced(|trace| trace.admitted(began, account, verdicts));
}

fn never_sent(lease: Lease, client: &Admitted) {
    lease.settle(Usage {
        ending: Ending::NeverSent,
        status: None,
        input_tokens: 0,
        output_tokens: 0,
        cost: None,
        duration_ms: client.arrived.elapsed().as_millis() as u64,
        retry_after_ms: None,
        reached: None,
    });
}

/// Where a request may go.
struct Search<'a> {
    candidates: Candidates<'a>,
    patience: Patience,
    /// The first account, if policies have been asked about it.
    asked: Option<(Place, Verdict)>,
    session: Option<Session>,
}

impl Search<'_> {
    /// A place on the next account, and what policies say about it; none: no account is left.
    async fn next(
        &mut self,
        inner: &Inner,
        client: &Admitted,
        request: &Arc<admission::Request>,
    ) -> Result<Option<(Place, Verdict)>, Problem> {
        if let Some(asked) = self.asked.take() {
            return Ok(Some(asked));
        }
        let waiting = Waiting { client, patience: &mut self.patience };
        let place = queue::next_place(&inner.accounts, &mut self.candidates, waiting.patience).await;
        drop(waiting);
        let Some(place) = place? else { return Ok(None) };
        let subjects = vec![place.account().subject.for_model(&request.model)];
        let began = Instant::now();
        let mut verdicts = inner.admissions.admit(request.clone(), subjects).await;
        decided(inner, client, began, Some(&**place.account()), &verdicts);
        Ok(Some((place, verdicts.pop().unwrap_or(Verdict::Busy))))
    }
}

/// A request that may have to wait for a place. Its drop tells the trace if it did, also when the client has left.
struct Waiting<'a> {
    client: &'a Admitted,
    patience: &'a mut Patience,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.patience.since.take() {
            self.client.flight.traced(|trace| trace.queued(since));
        }
    }
}

/// Sends to one account after the other until one answers.
async fn attempt(
    inner: &Inner,
    client: &Admitted,
    request: &Arc<admission::Request>,
    outgoing: &Outgoing<'_>,
    search: &mut Search<'_>,
) -> Result<Answered, Stop> {
    let (mut attempts, mut last, mut refusals) = (0, None, Refusals::default());
    loop {
        let may_try = attempts < ATTEMPTS && Instant::now() < outgoing.deadline;
        let next = if may_try { search.next(inner, client, request).await } else { Ok(None) };
        let (place, verdict) = match next {
            Ok(Some(next)) => next,
            Ok(None) => return Err(given_up(last, refusals)),
            Err(no_place) if last.is_none() => return Err(no_place.into()),
            Err(_) => return Err(given_up(last, refusals)),
        };
        match verdict {
            Verdict::Allowed(lease) => {
                let account = place.account().clone();
                let onward = client.flight.hold_account(place, lease);
                let failure: Failure = match forward::send(&account, outgoing, onward).await {
                    Ok(answer) => {
                        account.metrics.answered();
                        search.session.inspect(|session| inner.sessions.answered(*session, &account));
                        return Ok(answer);
                    }
                    Err(failure) => failure,
                };
                client.flight.drop_account(&failure);
                inner.flights.metrics.retries.increment(1);
                account.metrics.failed(failure.ending, failure.status);
                tracing::debug!(request_id = client.id, account = %account.name, detail = &*failure.detail, "attempt failed");
                refusals.may_wait(failure.told.retry_after_ms);
                last = Some(failure);
                attempts += 1;
            }
            refused => refusals.note(&client.id, &place.account().name, refused),
        }
    }
}

/// What ends a request that no account served: the last failure, if any was asked, with the shortest wait of them all.
fn given_up(last: Option<Failure>, refusals: Refusals) -> Stop {
    let Some(failure) = last else { return refusals.into() };
    let mut stop = Stop::from(failure);
    if stop.problem.retry_after_ms.is_some() {
        stop.problem.retry_after_ms = refusals.retry_after_ms();
    }
    stop
}

fn answered(endpoint: &Endpoint, client: &Admitted, answer: Answered) -> Response<()> {
    let (mut parts, body) = answer.response.into_parts();
    let is_stream = parts
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let dialect = endpoint.dialect;
    let reader = match is_stream {
        _ if !parts.status.is_success() => UsageReader::error(dialect),
        true => UsageReader::events(dialect),
        false => UsageReader::json(dialect, endpoint.uses),
    };
    let reader = reader.decoding(&parts.headers, &client.id);
    // What is encoded or no stream stays as it is.
    let is_read = is_stream && parts.status.is_success() && reader.is_plain();
    let unasked = (answer.is_usage_unasked && is_read).then(|| Unasked::new(dialect));
    if unasked.is_some() {
        parts.headers.remove(CONTENT_LENGTH);
    }
    client.flight.answering(body, reader, unasked, parts.status.as_u16());
    let mut response = Response::new(());
    *response.status_mut() = parts.status;
    *response.headers_mut() = answer_headers(dialect, parts.headers);
    response
}
