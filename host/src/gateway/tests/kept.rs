//! Connections to upstreams, which are kept for the next request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::Method;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::support::{Upstream, World, json_response};
use crate::gateway::AccountSpec;

const CHAT: &str = r#"{"model":"m","messages":[]}"#;
const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}";
const TROUBLE: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}";
const BEGUN: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n";

/// An upstream that gives on each connection the same answers in turn and then closes it without a word.
struct Scripted {
    url: String,
    connections: Arc<AtomicUsize>,
    closed: mpsc::UnboundedReceiver<()>,
}

impl Scripted {
    async fn start(answers: &'static [&'static str]) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let (close, closed) = mpsc::unbounded_channel();
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let close = close.clone();
                tokio::spawn(async move {
                    answer(stream, answers).await;
                    close.send(()).ok();
                });
            }
        });
        Scripted { url, connections, closed }
    }

    async fn world(&self) -> World {
        let upstream = Upstream::start(|_| Some(json_response(200, "{}"))).await;
        World::start(vec![AccountSpec { base_url: self.url.clone(), ..upstream.account("first") }]).await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn answer(mut stream: TcpStream, answers: &[&str]) {
    let mut request = Vec::new();
    for answer in answers {
        request.clear();
        while !request.ends_with(CHAT.as_bytes()) {
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn one_connection_carries_one_answer_after_the_other_however_they_end() {
    let upstream = Scripted::start(&[WHOLE, CHUNKED, EMPTY, REFUSED, TROUBLE, WHOLE]).await;
    let world = upstream.world().await;
    for status in [200, 200, 200, 400, 502, 200] {
        assert_eq!(world.chat(CHAT).await.status, status);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_the_upstream_has_closed_is_not_used_again() {
    let mut upstream = Scripted::start(&[WHOLE]).await;
    let world = upstream.world().await;
    for count in 1..=5 {
        assert_eq!(world.chat(CHAT).await.status, 200);
        upstream.closed.recv().await.unwrap();
        assert_eq!(upstream.connections(), count);
    }
}

#[tokio::test]
async fn a_connection_whose_answer_was_not_read_to_its_end_is_closed() {
    let mut upstream = Scripted::start(&[BEGUN, WHOLE]).await;
    let world = upstream.world().await;
    let mut response = world.send(Method::POST, "/v1/chat/completions", CHAT).await;
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "{}");
    drop(response);
    upstream.closed.recv().await.unwrap();
    let event = world.event().await;
    assert_eq!(event.status_code, 499);
}

#[tokio::test]
async fn requests_at_the_same_time_have_a_connection_each() {
    let upstream = Scripted::start(&[WHOLE; 10]).await;
    let world = upstream.world().await;
    let answers = futures_util::future::join_all((0..8).map(|_| world.chat(CHAT))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!((1..=8).contains(&upstream.connections()));
    let before = upstream.connections();
    assert_eq!(world.chat(CHAT).await.status, 200);
    assert_eq!(upstream.connections(), before, "one of them is used again");
}
