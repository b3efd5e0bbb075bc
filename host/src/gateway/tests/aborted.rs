//! Requests that do not come to their end.

use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::support::{BREAK, Upstream, World, streaming_upstream};
use crate::gateway::{AccountSpec, Settings, serve::serve_and_drain};

const STREAM: &str = r#"{"model":"m","stream":true,"messages":[{"content":"123456"}]}"#;
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"abcdef\"}}]}\n\n";

async fn begun(world: &World) -> http::Response<Incoming> {
    let mut response = world.send(Method::POST, "/v1/chat/completions", STREAM).await;
    response.body_mut().frame().await.unwrap().unwrap();
    response
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_stream_pays_for_what_it_saw() {
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    feed.send(EVENT).await.unwrap();
    drop(begun(&world).await);
    let event = world.event().await;
    assert_eq!((event.status_code, event.has_error, event.error_type.as_str()), (499, true, "client_closed"));
    assert_eq!((event.input_tokens, event.output_tokens), (2, 2));
    assert_eq!((event.response_size, event.account_name.as_str()), (EVENT.len() as u64, "main"));
    // The upstream is told as well: nobody takes its events any more.
    feed.closed().await;
    assert_eq!(world.gateway.in_flight(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_after_the_last_event_has_had_its_answer() {
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    feed.send("data: {\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n")
        .await
        .unwrap();
    drop(begun(&world).await);
    let event = world.event().await;
    assert_eq!((event.status_code, event.has_error), (200, false));
    assert_eq!((event.input_tokens, event.output_tokens), (4, 3));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_is_recorded() {
    let upstream = Upstream::start(|_| None).await;
    let world = World::start(vec![upstream.account("main")]).await;
    let sent = world.send(Method::POST, "/v1/chat/completions", STREAM);
    let reached = async {
        while upstream.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = sent => panic!("nobody answers"),
        () = reached => {}
    }
    let event = world.event().await;
    assert_eq!((event.status_code, event.input_tokens, event.output_tokens), (499, 2, 0));
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut_and_recorded_before_serving_ends() {
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let served =
        tokio::spawn(serve_and_drain(listener, world.gateway.router(), stopped, Duration::from_millis(10)));
    feed.send(EVENT).await.unwrap();
    let request = Request::post(url).header("authorization", format!("Bearer {}", world.key));
    let mut response = world.request(request.body(Full::from(STREAM)).unwrap()).await;
    response.body_mut().frame().await.unwrap().unwrap();
    stop.cancel();
    served.await.unwrap();
    assert_eq!(world.gateway.in_flight(), 0);
    assert_eq!((world.event().await.status_code, world.event().await.output_tokens), (499, 2));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_recorded_and_the_client_sees_the_break() {
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    feed.send(EVENT).await.unwrap();
    let mut response = begun(&world).await;
    feed.send(BREAK).await.unwrap();
    let mut broke = false;
    while let Some(frame) = response.body_mut().frame().await {
        broke |= frame.is_err();
    }
    assert!(broke, "a cut answer must not look like a whole one");
    let event = world.event().await;
    assert_eq!((event.status_code, event.has_error, event.output_tokens), (200, true, 2));
    assert_eq!(event.error_type, "stream");
    assert!(event.error_message.unwrap().contains("broke off"));
}

#[tokio::test]
async fn what_came_before_a_break_reaches_the_client_though_both_come_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"}") {
            socket.read_buf(&mut read).await.unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 1000\r\n\r\n";
        socket.write_all(format!("{head}{EVENT}").as_bytes()).await.unwrap();
    });
    let account = AccountSpec { name: "main".to_owned(), base_url, ..AccountSpec::default() };
    let world = World::start(vec![account]).await;
    let mut response = begun(&world).await;
    assert!(
        response.body_mut().frame().await.unwrap().is_err(),
        "a cut answer must not look like a whole one"
    );
    let event = world.event().await;
    assert_eq!((event.status_code, event.has_error, event.output_tokens), (200, true, 2));
}

#[tokio::test]
async fn an_error_in_mid_stream_is_recorded_as_one() {
    let (upstream, feed) = streaming_upstream().await;
    let world = World::start(vec![upstream.account("main")]).await;
    feed.send("data: {\"error\":{\"message\":\"overloaded\"}}\n\n").await.unwrap();
    let response = begun(&world).await;
    drop(feed);
    response.into_body().collect().await.unwrap();
    let event = world.event().await;
    assert_eq!((event.has_error, event.error_message.as_deref()), (true, Some("overloaded")));
}

#[tokio::test]
async fn a_silent_upstream_is_cut_off() {
    let settings = Settings { idle_timeout: Duration::from_millis(10), ..Settings::default() };
    let (upstream, feed) = streaming_upstream().await;
    let world = World::with(vec![upstream.account("main")], settings).await;
    feed.send(EVENT).await.unwrap();
    let mut response = begun(&world).await;
    assert!(response.body_mut().frame().await.unwrap().is_err(), "the client is told");
    let event = world.event().await;
    assert_eq!(event.error_message.as_deref(), Some("the upstream fell silent"));
    assert_eq!(event.error_type, "upstream_timeout");
    feed.closed().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_answer() {
    let settings = Settings { stall_timeout: Duration::from_millis(10), ..Settings::default() };
    let upstream = Upstream::start(|_| {
        // More than the buffers on the way hold.
        let body = axum::body::Body::from(vec![b'\n'; 64 << 20]);
        Some(
            axum::response::Response::builder()
                .header("content-type", "text/event-stream")
                .body(body)
                .unwrap(),
        )
    })
    .await;
    let world = World::with(vec![upstream.account("main")], settings).await;
    let _unread = world.send(Method::POST, "/v1/chat/completions", STREAM).await;
    let event = world.event().await;
    assert_eq!(event.error_message.as_deref(), Some("the client stopped reading"));
    assert!(event.response_size < 64 << 20);
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_cut_off() {
    let (upstream, feed) = streaming_upstream().await;
    let settings = Settings { total_timeout: Duration::from_secs(3_600), ..Settings::default() };
    let world = World::with(vec![upstream.account("main")], settings).await;
    feed.send(EVENT).await.unwrap();
    let response = begun(&world).await;
    // An hour later, for whoever looks after running requests.
    world.gateway.0.flights.sweep(Instant::now() + Duration::from_secs(3_601));
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(world.event().await.error_message.as_deref(), Some("the answer took too long"));
}
