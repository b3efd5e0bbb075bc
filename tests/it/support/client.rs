//! A small HTTP client for what no SDK would send.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// Sends requests with one bearer token.
#[derive(Clone)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    url: String,
    key: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Client {
    /// A client of the server at `url` that presents `key`.
    pub fn new(url: &str, key: &str) -> Client {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Client { http, url: url.to_owned(), key: key.to_owned() }
    }

    /// A chat completion, whole.
    pub async fn chat(&self, model: &str) -> Answer {
        self.post("/v1/chat/completions", &chat_body(model, false)).await
    }

    /// A chat completion that may break off, as it does when the server is killed.
    pub async fn try_chat(&self, model: &str) -> Option<StatusCode> {
        let body = chat_body(model, false).to_string().into();
        let response =
            self.http.request(self.request(Method::POST, "/v1/chat/completions", body)).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        Some(status)
    }

    /// Posts what may not be answered.
    pub async fn try_post(&self, path: &str, body: String) -> Option<StatusCode> {
        let response = self.http.request(self.request(Method::POST, path, body.into())).await.ok()?;
        Some(response.status())
    }

    /// A chat completion as a stream whose body has not been read.
    pub async fn chat_stream(&self, model: &str) -> http::Response<Incoming> {
        self.send(Method::POST, "/v1/chat/completions", chat_body(model, true).to_string().into()).await
    }

    /// Posts JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.send(Method::POST, path, body.to_string().into()).await).await
    }

    /// Posts JSON with the key in another header.
    pub async fn post_with(&self, path: &str, header: &'static str, key: &str, body: &Value) -> Answer {
        let mut request = self.request(Method::POST, path, body.to_string().into());
        request.headers_mut().remove("authorization");
        request.headers_mut().insert(header, key.parse().unwrap());
        Answer::of(self.http.request(request).await.unwrap()).await
    }

    /// A request without a body.
    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.send(Method::GET, path, Bytes::new()).await).await
    }

    /// Any request.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> http::Response<Incoming> {
        self.http.request(self.request(method, path, body)).await.unwrap()
    }

    /// Any request with headers of its own, and no content type but theirs; the whole answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = self.request(method, path, body.into());
        request.headers_mut().remove("content-type");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        Answer::of(self.http.request(request).await.unwrap()).await
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap()
    }
}

impl Answer {
    async fn of(response: http::Response<Incoming>) -> Answer {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A header's value; it must be there.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.headers));
        value.to_str().unwrap()
    }

    /// The status, and the code of the error in the body.
    pub fn error(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), code)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }
}

/// A chat request of one short message, answered with at most 16 tokens.
pub fn chat_body(model: &str, stream: bool) -> Value {
    json!({
        "model": model,
        "stream": stream,
        "max_tokens": 16,
        "messages": [{ "role": "user", "content": "Say hello." }],
    })
}
