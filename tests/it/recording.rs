//! What the gateway admits it records; when it cannot, it admits no more.

use http::StatusCode;

use crate::support::{Behaviour, Setup, Upstream};

/// At once: some are under way when the queue fills.
const CLIENTS: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_when_no_more_can_be_recorded_and_none_that_was_admitted_is_forgotten() {
    let upstream = Upstream::start(Behaviour::Answer { input: 5, output: 2 }).await;
    // Nobody takes the events.
    let config = "[storage]\nevent_queue_bytes = 20000\n[[plugin]]\nname = \"ingestion\"\nenabled = false";
    let server = Setup::with(&upstream).config(config).start();
    let client = server.client(&server.key("user", &[]));
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut served = 0_u64;
                loop {
                    match client.chat("gpt-test").await.status {
                        StatusCode::OK => served += 1,
                        refused => return (served, refused),
                    }
                }
            })
        })
        .collect();
    let mut served = 0_u64;
    for task in tasks {
        let (own, refused) = task.await.unwrap();
        assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
        served += own;
    }
    assert!(served > CLIENTS, "only {served} requests were served");
    assert_eq!(upstream.seen(), served);
    assert_eq!(server.metric("tollgate_unrecorded_total").await, 0.0);
    let refused = client.chat("gpt-test").await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
}
