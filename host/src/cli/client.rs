//! Calls the admin API of a running server, over HTTP or through the socket in its data directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::UnixStream;

use super::args::Connection;
use super::failure::Failure;
use crate::admin::{PREFIX, SOCKET};
use crate::config::limits::DATA;

/// A push waits for compiling and `init`; a query for its rows. Past it the server is stuck.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Answers are held in memory; a query for more should be split.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A success, whose body is read as it comes.
pub(super) struct Reply(Response<Incoming>);

/// A way to one server.
pub(super) struct Client {
    target: Target,
}

enum Target {
    Socket { data: PathBuf },
    Url { base: String, token: String },
}

impl Client {
    pub(super) fn new(connection: Connection) -> Result<Self, Failure> {
        let Some(url) = connection.server else {
            let data = connection.data.unwrap_or_else(|| DATA.into());
            return Ok(Self { target: Target::Socket { data } });
        };
        let valid = url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
        if !valid {
            return Err(Failure::Usage(format!(
                "--server must be a URL such as http://127.0.0.1:8080, not `{url}`"
            )));
        }
        let Some(token) = connection.token else {
            return Err(Failure::Usage(
                "--server needs the admin token: --token or TOLLGATE_ADMIN_TOKEN".to_owned(),
            ));
        };
        Ok(Self { target: Target::Url { base: url.trim_end_matches('/').to_owned(), token } })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::GET, path, None, Bytes::new()).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(Method::DELETE, path, None, Bytes::new()).await
    }

    pub(super) async fn json(&self, method: Method, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(method, path, Some("application/json"), body.to_string().into()).await
    }

    pub(super) async fn put(&self, path: &str, kind: &'static str, body: Vec<u8>) -> Result<Value, Failure> {
        self.call(Method::PUT, path, Some(kind), body.into()).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        kind: Option<&'static str>,
        body: Bytes,
    ) -> Result<Value, Failure> {
        let work = async { self.send(request(method, path, kind, body)?).await?.json().await };
        match tokio::time::timeout(TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(late()),
        }
    }

    /// Sends a request to a path of the API; what the server refuses is a failure. It may take any time.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Reply, Failure> {
        let base = match &self.target {
            Target::Socket { .. } => "",
            Target::Url { base, .. } => base,
        };
        let uri = format!("{base}{PREFIX}{}", request.uri()).parse::<Uri>();
        *request.uri_mut() = uri.map_err(|error| Failure::Failed(error.into()))?;
        let response = match &self.target {
            Target::Socket { data } => through_socket(data, request).await?,
            Target::Url { base, token } => {
                let value = http::HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| Failure::Usage("the token has characters that no header takes".into()))?;
                request.headers_mut().insert(AUTHORIZATION, value);
                over_http(base, request).await?
            }
        };
        if response.status().is_success() { Ok(Reply(response)) } else { Err(refusal(response).await) }
    }
}

impl Reply {
    /// Bytes of the body, if the server said so.
    pub(super) fn length(&self) -> Option<u64> {
        self.0.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The next bytes of the body; none at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = tokio::time::timeout(TIMEOUT, self.0.body_mut().frame()).await.map_err(|_| late())?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broke_off(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    // Trailers, or nothing.
                    _ => {}
                },
            }
        }
    }

    /// The body as JSON.
    pub(super) async fn json(self) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&whole(self.0).await?).unwrap_or_default())
    }
}

/// A request to a path below the API's prefix.
pub(super) fn request(
    method: Method,
    path: &str,
    kind: Option<&'static str>,
    body: Bytes,
) -> Result<Request<Body>, Failure> {
    let mut builder = Request::builder().method(method).uri(path);
    if let Some(kind) = kind {
        builder = builder.header(CONTENT_TYPE, kind);
    }
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    builder.body(body).map_err(|error| Failure::Failed(error.into()))
}

fn late() -> Failure {
    Failure::Failed(anyhow::anyhow!("no answer within {} s", TIMEOUT.as_secs()))
}

fn broke_off(error: impl Into<anyhow::Error>) -> Failure {
    Failure::Failed(error.into().context("the server broke off"))
}

async fn through_socket(data: &Path, mut request: Request<Body>) -> Result<Response<Incoming>, Failure> {
    let stream = UnixStream::connect(data.join(SOCKET)).await.map_err(|error| closed(data, &error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
    // Its end shows in the request's own result.
    tokio::spawn(connection);
    request.headers_mut().insert(HOST, http::HeaderValue::from_static("localhost"));
    sender.send_request(request).await.map_err(broke_off)
}

/// Why the socket of a data directory could not be opened.
fn closed(data: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Failure::NotOurs(data.join(SOCKET)),
        _ => Failure::NoSocket(data.to_path_buf()),
    }
}

async fn over_http(base: &str, request: Request<Body>) -> Result<Response<Incoming>, Failure> {
    // A second call is no error: somebody else in this process has installed one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| anyhow::Error::new(error).context("cannot read the system's certificates"))?
        .https_or_http()
        .enable_http1()
        .build();
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    client.request(request).await.map_err(|error| {
        if error.is_connect() {
            let causes: Vec<_> = anyhow::Error::new(error).chain().skip(1).map(ToString::to_string).collect();
            Failure::NoServer { url: base.to_owned(), reason: causes.join(": ") }
        } else {
            broke_off(error)
        }
    })
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
    let body = body.map_err(|error| Failure::Failed(anyhow::anyhow!("the server broke off: {error}")))?;
    Ok(body.to_bytes())
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    match whole(response).await {
        Ok(body) => refused(&serde_json::from_slice(&body).unwrap_or_default(), || {
            format!("the server answered {status}")
        }),
        Err(failure) => failure,
    }
}

/// What an error of the API says.
pub(super) fn refused(answer: &Value, otherwise: impl FnOnce() -> String) -> Failure {
    let error = answer.get("error");
    let part = |name| error.and_then(|error| error.get(name)).and_then(Value::as_str).map(str::to_owned);
    Failure::Refused { message: part("message").unwrap_or_else(otherwise), hint: part("hint") }
}

/// A string of an answer.
pub(super) fn text<'a>(answer: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    answer
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| anyhow::anyhow!("the server's answer has no `{name}`; is it another version?"))
}

/// Text as one segment of a path or one value of a query.
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_socket_of_another_user_is_told_from_one_that_nobody_listens_on() {
        let told = |kind| {
            let failure = closed(Path::new("/var/lib/tollgate"), &Error::from(kind));
            (failure.message(), failure.hint().unwrap(), failure.exit_code())
        };
        let (message, hint, code) = told(ErrorKind::PermissionDenied);
        assert_eq!(message, "/var/lib/tollgate/admin.sock belongs to another user");
        assert!(hint.contains("run as that user") && hint.contains("--server and --token"), "{hint}");
        for kind in [ErrorKind::NotFound, ErrorKind::ConnectionRefused] {
            let (message, _, other) = told(kind);
            assert_eq!(message, "no server is running on data directory /var/lib/tollgate");
            assert_eq!(other, code);
        }
        assert_eq!(code, std::process::ExitCode::from(2));
    }
}
