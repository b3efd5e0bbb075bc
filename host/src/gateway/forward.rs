//! Sends a request to one account and waits for the head of its answer.

use std::{
    borrow::Cow,
    error::Error,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH},
};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tollgate_store::Clock;

use super::{
    account::Account,
    begun::Begun,
    cause::Cause,
    connection::Received,
    dial::causes,
    dialect::{Dialect, Endpoint},
    error::{Class, Problem},
    host::SendError,
    limited::{Refused, Told},
    limits::{ERROR_BYTES, ERROR_TIMEOUT},
    renamed::Sending,
    route::Route,
    trace::Onward,
};
use crate::plugin::admission::Ending;

/// What is sent: the same for every account that is tried.
pub(super) struct Outgoing<'a> {
    pub(super) endpoint: &'static Endpoint,
    /// The path and query that the client asked for.
    pub(super) uri: &'a Uri,
    /// The model that it asked for.
    pub(super) model: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
    /// Whether it asks for a stream.
    pub(super) streaming: bool,
    /// How long to wait for the answer's head.
    pub(super) timeout: Duration,
    /// When the request has taken too long, whatever is tried.
    pub(super) deadline: Instant,
    /// The time of day, which an upstream may name.
    pub(super) clock: &'a Clock,
}

/// An answer that is worth passing on.
pub(super) struct Answered {
    pub(super) response: Response<Begun>,
    /// Whether the gateway asked for its usage and the client did not.
    pub(super) is_usage_unasked: bool,
}

/// Why an account gave no answer that is worth passing on.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) ending: Ending,
    pub(super) cause: Cause,
    /// The upstream's status.
    pub(super) answered: Option<u16>,
    /// The same as policies know it: the one that other dialects have for what it says.
    pub(super) status: Option<u16>,
    /// What else it said, if it answered.
    pub(super) told: Told,
    /// What the client is told, should this be the last attempt.
    pub(super) problem: Problem,
    /// What the log is told.
    pub(super) detail: Box<str>,
}

/// Sends to an account. An answer that tells of trouble with the account is a failure; any other is passed on.
///
/// `onward` tells the upstream whose trace it is part of; without it, what the client says of that is passed on.
pub(super) async fn send(
    account: &Account,
    outgoing: &Outgoing<'_>,
    onward: Option<Onward>,
) -> Result<Answered, Failure> {
    let begun = Instant::now();
    let timeout = outgoing.timeout.min(outgoing.deadline.saturating_duration_since(begun));
    let (mut request, is_usage_unasked) = request(account, outgoing)?;
    if let Some(onward) = onward {
        onward.tell(request.headers_mut());
    }
    let sent = tokio::time::timeout(timeout, exchange(account, request)).await;
    let mut failure = match sent {
        Ok(Ok(response)) => match judged(account.dialect, response, outgoing.clock).await {
            Ok(response) => {
                account.answered(begun.elapsed());
                return Ok(Answered { response, is_usage_unasked });
            }
            Err(failure) => failure,
        },
        Ok(Err(error)) => error.failure(),
        Err(_) => timed_out(timeout),
    };
    account.failed();
    if let Some(proxy) = &account.spec.proxy {
        failure.detail = format!("{} (through proxy {})", failure.detail, proxy.url).into();
    }
    Err(failure)
}

/// Asks an account for something small, such as its models.
pub(super) async fn get(account: &Account, path: &str, query: Option<&str>, limit: usize) -> Option<Bytes> {
    let mut request = Request::get(account.uri(path, query)?).body(Sending::default()).ok()?;
    authorize(account, request.headers_mut());
    let response = exchange(account, request).await.ok()?;
    let success = response.status().is_success();
    let body = Limited::new(response.into_body(), limit).collect().await.ok()?;
    success.then(|| body.to_bytes())
}

/// Asks an account for its models; the status of its answer, if there is one.
pub(super) async fn ask_for_models(account: &Account) -> Option<StatusCode> {
    let listing = account.dialect.api().listing();
    let mut request =
        Request::get(account.uri(listing.path, listing.query)?).body(Sending::default()).ok()?;
    authorize(account, request.headers_mut());
    Some(exchange(account, request).await.ok()?.status())
}

async fn exchange(account: &Account, request: Request<Sending>) -> Result<Response<Received>, Unreachable> {
    match &account.route {
        Route::Plain(host) => host.send(request).await.map_err(|error| match error {
            SendError::Connect(error) => Unreachable::connecting(&error),
            SendError::Broken(error) => Unreachable::talking(&error),
        }),
        Route::Pooled(client) => {
            let response = client.request(request).await.map_err(|error| {
                let source = error.source().unwrap_or(&error);
                if error.is_connect() {
                    Unreachable::connecting(source)
                } else {
                    Unreachable::talking(source)
                }
            })?;
            Ok(response.map(Received::from))
        }
    }
}

/// The request for an account; also whether it asks for usage and the client's does not.
fn request(account: &Account, outgoing: &Outgoing<'_>) -> Result<(Request<Sending>, bool), Failure> {
    let (endpoint, own) = (outgoing.endpoint, account.alias(outgoing.model));
    let path = match endpoint.path.split_once("{model}").zip(own) {
        Some(((before, after), own)) => {
            Cow::Owned(format!("{before}{}{after}", utf8_percent_encode(own, IN_PATH)))
        }
        None => Cow::Borrowed(outgoing.uri.path()),
    };
    let query = outgoing.uri.query().and_then(|query| account.dialect.api().upstream_query(query));
    let uri = match query {
        None if endpoint.is_fixed() => account.endpoint(endpoint).cloned(),
        query => account.uri(&path, query.as_deref()),
    };
    let Some(uri) = uri else {
        return Err(internal("the address for the upstream cannot be built"));
    };
    let (api, body) = (account.dialect.api(), &outgoing.body);
    let mut changes = match account.spec.stream_usage && outgoing.streaming {
        true => api.ask_for_usage(endpoint.path, body),
        false => Vec::new(),
    };
    let is_usage_unasked = !changes.is_empty();
    if let Some(own) = own {
        let renamed = api.rename(body, outgoing.model, own);
        changes.extend(renamed.ok_or_else(|| internal("the model's place in the request is not found"))?);
    }
    let body = if changes.is_empty() { body.clone().into() } else { Sending::changed(body, changes) };
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = outgoing_headers(account, outgoing.headers);
    Ok((request, is_usage_unasked))
}

/// What is encoded of a model's name in a path: names have slashes and colons in them.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

fn outgoing_headers(account: &Account, headers: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(headers);
    let mut kept = HeaderMap::with_capacity(headers.len() + 2);
    for (name, value) in headers {
        let dropped = is_hop_by_hop(name)
            || named.contains(name)
            || is_of_this_way_in(name)
            || Dialect::ALL.iter().any(|dialect| dialect.api().is_credential(name));
        if !dropped {
            kept.append(name, value.clone());
        }
    }
    // Usage is read from the answer, so that it must come as it is.
    kept.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    authorize(account, &mut kept);
    kept
}

fn authorize(account: &Account, headers: &mut HeaderMap) {
    if let Some((name, value)) = &account.authorization {
        headers.insert(name.clone(), value.clone());
    }
    account.dialect.api().complete(headers);
}

/// The headers of an answer that the client may see.
pub(super) fn answer_headers(dialect: Dialect, mut headers: HeaderMap) -> HeaderMap {
    let named = named_by_connection(&headers);
    let is_dropped = |name: &&HeaderName| {
        is_hop_by_hop(name)
            || named.contains(name)
            || matches!(name.as_str(), "set-cookie" | "alt-svc" | "strict-transport-security")
            || dialect.api().tells_account(name)
    };
    let dropped: Vec<HeaderName> = headers.keys().filter(is_dropped).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    headers
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(','));
    // A framing header named there would smuggle; it is set anew in any case.
    names.filter_map(|name| name.trim().parse().ok()).filter(|name| *name != CONTENT_LENGTH).collect()
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// Headers about the way from the client to here, or for here.
fn is_of_this_way_in(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "expect"
                | "cookie"
                | "forwarded"
                | "accept-encoding"
                | "x-real-ip"
                | "x-request-id"
        )
}

/// Whether a status tells of trouble with the account, or with its proxy (407), not with the request. Nobody asks for another
/// protocol (101), and a client that was told so would take what follows for one.
fn is_trouble(status: StatusCode) -> bool {
    status.is_informational()
        || status.is_server_error()
        || matches!(status.as_u16(), 401..=403 | 407 | 408 | 429)
}

/// Tells an answer to be passed on from one that tells of trouble with the account.
async fn judged(
    dialect: Dialect,
    response: Response<Received>,
    clock: &Clock,
) -> Result<Response<Begun>, Failure> {
    let (head, body) = response.into_parts();
    let mut body = Begun::new(body);
    let doubtful = dialect.api().doubtful() == Some(head.status);
    if !doubtful && !is_trouble(head.status) {
        return Ok(Response::from_parts(head, body));
    }
    let read = tokio::time::timeout(ERROR_TIMEOUT, body.read(ERROR_BYTES)).await;
    let said = if matches!(read, Ok(Ok(()))) { body.begun() } else { &[] };
    let refused_as = dialect.api().refused_as(head.status, said);
    if doubtful && refused_as.is_none() {
        return Ok(Response::from_parts(head, body));
    }
    let told = dialect.api().told(&Refused::new(&head.headers, said, clock()));
    let detail = match dialect.api().error_message(said) {
        Some(said) => format!("the upstream answered {}: {said}", head.status.as_u16()),
        None => format!("the upstream answered {}", head.status.as_u16()),
    };
    Err(refused(head.status, refused_as, told, detail))
}

fn refused(answered: StatusCode, refused_as: Option<StatusCode>, told: Told, detail: String) -> Failure {
    let status = refused_as.unwrap_or(answered).as_u16();
    // What an upstream says about an account's key or organization is not for the client.
    let problem = match status {
        429 => Problem::new(Class::RequestLimit, "the upstream is at its limit").after(told.retry_after_ms),
        status if Dialect::is_overload(status) => {
            Problem::new(Class::Unavailable, detail.clone()).after(told.retry_after_ms)
        }
        408 | 504 => Problem::new(Class::UpstreamTimeout, detail.clone()),
        ..200 | 500.. => Problem::new(Class::Upstream, detail.clone()),
        _ => Problem::new(Class::Upstream, "the upstream refused the gateway's account"),
    };
    let reached = told.reached.filter(|_| status == 429);
    Failure {
        ending: Ending::UpstreamError,
        cause: Cause::of_trouble(status),
        answered: Some(answered.as_u16()),
        status: Some(status),
        told: Told { reached, ..told },
        problem,
        detail: detail.into(),
    }
}

/// Why there is no answer at all.
struct Unreachable {
    message: &'static str,
    cause: String,
}

impl Unreachable {
    fn connecting(cause: &dyn Error) -> Unreachable {
        Unreachable { message: "the upstream cannot be reached", cause: causes(cause) }
    }

    fn talking(cause: &dyn Error) -> Unreachable {
        Unreachable { message: "the upstream broke off", cause: causes(cause) }
    }

    fn failure(self) -> Failure {
        let Unreachable { message, cause } = self;
        let problem = Problem::new(Class::Upstream, message);
        let detail = format!("{message}: {cause}");
        unanswered(Ending::UpstreamError, Cause::Upstream, problem, detail)
    }
}

fn timed_out(after: Duration) -> Failure {
    let detail = format!("the upstream gave no answer within {} s", after.as_secs_f32());
    let problem = Problem::new(Class::UpstreamTimeout, "the upstream gave no answer in time");
    unanswered(Ending::TimedOut, Cause::UpstreamTimeout, problem, detail)
}

fn internal(message: &'static str) -> Failure {
    let problem = Problem::new(Class::Internal, message);
    unanswered(Ending::NeverSent, Cause::Internal, problem, message.to_owned())
}

fn unanswered(ending: Ending, cause: Cause, problem: Problem, detail: String) -> Failure {
    Failure {
        ending,
        cause,
        answered: None,
        status: None,
        told: Told::default(),
        problem,
        detail: detail.into(),
    }
}
