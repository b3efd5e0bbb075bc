//! A server that is told to stop finishes what is under way, and forgets nothing of it.

use std::time::Duration;

use http_body_util::BodyExt;

use crate::support::{Behaviour, Setup, Upstream, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_under_way_is_finished_and_logged_before_the_server_ends_with_0() {
    let pause = Duration::from_millis(10);
    let upstream = Upstream::start(Behaviour::Slow { input: 10, output: 50, pause }).await;
    let mut server = Setup::with(&upstream).start();
    let client = server.client(&server.key("reader", &[]));
    let mut body = client.chat_stream("gpt-test").await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"data: "));
    let rest = tokio::spawn(async move { body.collect().await.unwrap().to_bytes() });
    assert_eq!(tokio::task::block_in_place(|| server.terminate()), Some(0));
    let rest = String::from_utf8(rest.await.unwrap().to_vec()).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "the stream was cut: {rest}");
    server.crash_and_restart();
    eventually("the request is in the log", || async {
        (server.count("SELECT count(*) FROM request_logs WHERE status_code = 200") == 1).then_some(())
    })
    .await;
}
