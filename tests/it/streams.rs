//! Streams that clients cut leave nothing behind, and count as far as they went.

use http_body_util::BodyExt;
use std::time::Duration;

use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

/// Streams cut by the client in [`streams_cut_at_random_points_leave_no_lease_and_count_what_was_seen`].
const STREAMS: u64 = 1_000;

/// Streams open at once.
const AT_ONCE: u64 = 50;

/// Events of a whole stream; the client leaves before the last.
const EVENTS: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn streams_cut_at_random_points_leave_no_lease_and_count_what_was_seen() {
    let pause = Duration::from_millis(2);
    let upstream = Upstream::start(Behaviour::Slow { input: 10, output: EVENTS, pause }).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("cutter", &["--rpm", "1000000", "--tpm", "100000000"]));
    for batch in 0..STREAMS / AT_ONCE {
        let cuts: Vec<_> = (0..AT_ONCE)
            .map(|place| {
                let client = client.clone();
                // Spread over the whole stream and repeatable: no two runs differ in where they cut.
                let frames = ((batch * AT_ONCE + place) * 7 % EVENTS) as usize;
                tokio::spawn(async move {
                    let mut body = client.chat_stream("gpt-test").await.into_body();
                    for _ in 0..frames {
                        body.frame().await.unwrap().unwrap();
                    }
                })
            })
            .collect();
        for cut in cuts {
            cut.await.unwrap();
        }
    }
    eventually("every lease is settled", || async {
        (server.metric("tollgate_leases_open").await == 0.0).then_some(())
    })
    .await;
    logged(&server, STREAMS).await;
    let aborted = server.count("SELECT count(*) FROM request_logs WHERE status_code = 499");
    assert!(aborted > STREAMS / 2, "only {aborted} of {STREAMS} were seen as cut");
    let unseen = server.count("SELECT count(*) FROM request_logs WHERE input_tokens = 0");
    assert_eq!(unseen, 0, "the prompt of a cut stream is counted");
    let whole = server.count(&format!(
        "SELECT count(*) FROM request_logs WHERE status_code = 499 AND output_tokens > 4 * {EVENTS}"
    ));
    assert_eq!(whole, 0, "a cut stream is counted as far as it was seen");
    let seen =
        server.count("SELECT count(*) FROM request_logs WHERE status_code = 499 AND output_tokens > 0");
    assert!(seen > STREAMS / 2, "only {seen} cut streams count what they had answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_as_the_upstream_sent_it() {
    let upstream = Upstream::start(Behaviour::Answer { input: 10, output: 5 }).await;
    let server = Setup::with(&upstream).start();
    let key = server.key("reader", &[]);
    let through =
        server.client(&key).chat_stream("gpt-test").await.into_body().collect().await.unwrap().to_bytes();
    let direct = crate::support::Client::new(upstream.url(), "upstream-main");
    let direct = direct.chat_stream("gpt-test").await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&through), String::from_utf8_lossy(&direct));
}

/// Waits until `rows` requests are in the log.
async fn logged(server: &Server, rows: u64) {
    eventually("the log has every request", || async {
        (server.count("SELECT count(*) FROM request_logs") == rows).then_some(())
    })
    .await;
}
