//! An account in trouble is passed over, and comes back when its time is up.

use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

async fn two_accounts() -> (Upstream, Server) {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::default()
        .account("first", &upstream, "priority = 1")
        .account("second", &upstream, "priority = 2")
        .start();
    (upstream, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_on_one_account_is_answered_by_another() {
    for trouble in [Behaviour::Refuse { status: 500, retry_after: None }, Behaviour::Break] {
        let (upstream, server) = two_accounts().await;
        upstream.behave_for("first", trouble);
        let client = server.client(&server.key("user", &[]));
        assert_eq!(client.chat("gpt-test").await.status, 200);
        assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_blacklisted_and_not_asked_again() {
    let (upstream, server) = two_accounts().await;
    upstream.behave_for("first", Behaviour::Refuse { status: 401, retry_after: None });
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    eventually("the first account is blacklisted", || async {
        server.cli_ok(&["kv", "list", "blacklist"]).contains("account:").then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(client.chat("gpt-test").await.status, 200);
    }
    assert_eq!((upstream.seen_from("first"), upstream.seen_from("second")), (1, 11));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_out_of_quota_comes_back_after_its_own_retry_after() {
    let (upstream, server) = two_accounts().await;
    upstream.behave_for("first", Behaviour::Refuse { status: 429, retry_after: Some(1) });
    let client = server.client(&server.key("user", &[]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    upstream.behave_for("first", FINE);
    eventually("the first account serves again", || async {
        client.chat("gpt-test").await;
        (upstream.seen_from("first") > 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_account_fails_the_client_gets_the_last_error_and_is_not_charged() {
    let (upstream, server) = two_accounts().await;
    upstream.behave(Behaviour::Refuse { status: 500, retry_after: None });
    let client = server.client(&server.key("user", &["--rpm", "1"]));
    let failed = client.chat("gpt-test").await;
    assert!(failed.status.is_server_error(), "{}", failed.status);
    assert!(failed.json()["error"]["message"].is_string());
    eventually("the failed request is not counted", || async {
        server.cli_ok(&["sql", "gateway", "SELECT count(*) FROM request_logs"]).ends_with('1').then_some(())
    })
    .await;
    // A limit of one would refuse now if the failed request had been charged; blacklisted accounts answer otherwise.
    assert_ne!(client.chat("gpt-test").await.json()["error"]["code"], "rate_limit_exceeded");
}
