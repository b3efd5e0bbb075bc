//! Whatever a client sends, it gets the right status in its own dialect, and the next client is served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

async fn started() -> (Upstream, Server, String) {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::default().account("main", &upstream, "models = [\"gpt-test\"]").start();
    let key = server.key("user", &[]);
    (upstream, server, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_is_answered_400_in_openais_shape_and_never_sent_on() {
    let (upstream, server, key) = started().await;
    let client = server.client(&key);
    let deep = format!("{{\"model\":\"gpt-test\",\"messages\":{}", "[".repeat(200_000));
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{\"model\": 7, \"messages\": []}",
        b"{\"messages\": []}",
        b"{\"model\": \"gpt-test\", \"messages\": \"\xff\xfe\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let response = client.send(Method::POST, "/v1/chat/completions", body.to_vec().into()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(response.status(), 400, "{shown}");
        assert_openai_error(response, "invalid_request_error").await;
    }
    assert_eq!(upstream.seen(), 0);
    assert_eq!(client.chat("gpt-test").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_path_or_method_is_not_found_in_openais_shape() {
    let (_upstream, server, key) = started().await;
    let client = server.client(&key);
    let unknown = client.chat("no-such-model").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    let path = client.get("/v1/no/such/path").await;
    assert_eq!(path.status, 404);
    assert!(path.json()["error"]["message"].is_string());
    let method = client.get("/v1/chat/completions").await;
    assert_eq!(method.status, 405);
    assert!(method.json()["error"]["message"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_413_whether_it_says_its_length_or_not() {
    let (upstream, server, key) = started().await;
    let large =
        json!({ "model": "gpt-test", "messages": [{ "role": "user", "content": "x".repeat(40 << 20) }] });
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    );
    let body = large.to_string();
    let announced = format!("{head}content-length: {}\r\n\r\n", body.len());
    assert_eq!(status_of(&server, &announced, body.as_bytes()), "413");
    let mut chunked = format!("{:x}\r\n", body.len()).into_bytes();
    chunked.extend_from_slice(body.as_bytes());
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    assert_eq!(status_of(&server, &format!("{head}transfer-encoding: chunked\r\n\r\n"), &chunked), "413");
    assert_eq!(upstream.seen(), 0);
    assert_eq!(server.client(&key).chat("gpt-test").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_utf8_is_401_and_a_broken_request_400() {
    let (_upstream, server, key) = started().await;
    let not_utf8 = b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer \xff\xfe\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(raw(&server, not_utf8, &[]), "401");
    let mut stream = connect(&server);
    stream.write_all(not_utf8).unwrap();
    let answer = read_answer(&mut stream);
    assert!(answer.contains("\"code\":\"invalid_api_key\""), "{answer}");
    assert_eq!(raw(&server, b"\x00\x01\x02 nonsense\r\n\r\n", &[]), "400");
    let agent = format!(
        "GET /v1/models HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\nuser-agent: \u{ff}\u{fe}\r\n\r\n"
    );
    assert_eq!(status_of(&server, &agent, &[]), "200", "a strange user agent harms nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_slowly_keeps_nobody_else_waiting_and_is_ended() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    let server = Setup::with(&upstream).config("[gateway]\nbody_timeout_ms = 300").start();
    let key = server.key("user", &[]);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {key}\r\ncontent-length: 1000\r\n\r\n"
    );
    let mut slow = connect(&server);
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(b"{\"model\":").unwrap();
    assert_eq!(server.client(&key).chat("gpt-test").await.status, 200);
    assert_eq!(read_status(&mut slow), "408");
}

const WRONG_KEY: &str =
    "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nauthorization: Bearer wrong\r\ncontent-length: 40\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_body_does_not_end_the_connection_under_the_clients_next_request() {
    let (_upstream, server, _key) = started().await;
    let mut stream = connect(&server);
    for round in 0..50 {
        stream.write_all(format!("{WRONG_KEY}\r\n").as_bytes()).unwrap();
        std::thread::yield_now();
        stream.write_all(&[b' '; 40]).unwrap();
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 401 "), "round {round}: {answer}");
        assert!(!answer.contains("connection: close"), "round {round}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_client_that_never_sends_its_body_says_that_the_connection_ends() {
    let (_upstream, server, _key) = started().await;
    for expecting in ["", "expect: 100-continue\r\n"] {
        let mut stream = connect(&server);
        stream.write_all(format!("{WRONG_KEY}{expecting}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

async fn assert_openai_error(response: http::Response<hyper::body::Incoming>, kind: &str) {
    use http_body_util::BodyExt;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["error"]["type"], kind, "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
}

fn status_of(server: &Server, head: &str, body: &[u8]) -> String {
    raw(server, head.as_bytes(), body)
}

fn raw(server: &Server, head: &[u8], body: &[u8]) -> String {
    let mut stream = connect(server);
    stream.write_all(head).unwrap();
    // The server may answer and close before it has read everything: that is no failure of the test.
    let _ = stream.write_all(body);
    read_status(&mut stream)
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

fn read_status(stream: &mut TcpStream) -> String {
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    String::from_utf8_lossy(&start[9..]).into_owned()
}

/// Head and body of an answer that says its length.
fn read_answer(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_query_is_in_no_log() {
    let server = Setup::demo().log("tollgate=trace,hyper=trace,hyper_util=trace,axum=trace,h2=trace").start();
    let key = server.key("user", &["--rpm", "1"]);
    // Nothing but the query identifies this client.
    let client = server.client("");
    let body = json!({ "contents": [{ "parts": [{ "text": "hi" }] }] });
    for (target, status) in [
        (format!("/v1beta/models/demo-chat:generateContent?key={key}"), 200),
        (format!("/v1/models/demo-chat:streamGenerateContent?alt=sse&key={key}"), 429),
        ("/v1beta/models/demo-chat:generateContent?key=tg-somebody-elses".to_owned(), 401),
        (format!("/v1beta/models/demo-chat:foo?key={key}"), 404),
        (format!("/v1beta/models/../demo-chat:countTokens?key={key}"), 404),
        (format!("/no/such/path?key={key}"), 404),
    ] {
        let answer = client.post(&target, &body).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert!(!answer.text().contains(&key), "{}", answer.text());
    }
    assert_eq!(client.get(&format!("/v1beta/models?key={key}")).await.status, 200);
    eventually("the log has every request of the client", || async {
        (server.count("SELECT count(*) FROM request_logs") == 4).then_some(())
    })
    .await;
    let logs = [server.log(), server.cli_ok(&["sql", "gateway", "SELECT * FROM request_logs"])];
    assert!(logs[0].contains("TRACE") && logs[1].contains("demo-chat"), "{logs:?}");
    for log in logs {
        assert!(!log.contains(&key[3..]) && !log.contains("somebody-elses"), "{log}");
    }
}
