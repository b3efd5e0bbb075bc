//! Calls the admin API of a running server, over HTTP or through the socket in its data directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
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
        let work = async {
            let response = match &self.target {
                Target::Socket { data } => {
                    let request = request(method, &format!("{PREFIX}{path}"), kind, body)?;
                    through_socket(data, request).await?
                }
                Target::Url { base, token } => {
                    let mut request = request(method, &format!("{base}{PREFIX}{path}"), kind, body)?;
                    let value = http::HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                        Failure::Usage("the token has characters that no header takes".into())
                    })?;
                    request.headers_mut().insert(AUTHORIZATION, value);
                    over_http(base, request).await?
                }
            };
            answer(response).await
        };
        match tokio::time::timeout(TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Failed(anyhow::anyhow!("no answer within {} s", TIMEOUT.as_secs()))),
        }
    }
}

fn request(
    method: Method,
    uri: &str,
    kind: Option<&'static str>,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut builder = Request::builder().method(method).uri(uri);
    if let Some(kind) = kind {
        builder = builder.header(CONTENT_TYPE, kind);
    }
    builder.body(Full::new(body)).map_err(|error| Failure::Failed(error.into()))
}

async fn through_socket(
    data: &Path,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure> {
    let stream =
        UnixStream::connect(data.join(SOCKET)).await.map_err(|_| Failure::NoSocket(data.to_path_buf()))?;
    let failed =
        |error: hyper::Error| Failure::Failed(anyhow::Error::new(error).context("the server broke off"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Its end shows in the request's own result.
    tokio::spawn(connection);
    request.headers_mut().insert(HOST, http::HeaderValue::from_static("localhost"));
    sender.send_request(request).await.map_err(failed)
}

async fn over_http(base: &str, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
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
            Failure::Failed(anyhow::Error::new(error).context("the server broke off"))
        }
    })
}

async fn answer(response: Response<Incoming>) -> Result<Value, Failure> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT)
        .collect()
        .await
        .map_err(|error| Failure::Failed(anyhow::anyhow!("the server broke off: {error}")))?
        .to_bytes();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let error = value.get("error");
    let part = |name| error.and_then(|error| error.get(name)).and_then(Value::as_str).map(str::to_owned);
    Err(Failure::Refused {
        message: part("message").unwrap_or_else(|| format!("the server answered {status}")),
        hint: part("hint"),
    })
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
