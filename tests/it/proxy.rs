//! The way to upstreams: over TLS, and through proxies.

use serde_json::{Value, json};

use crate::support::proxy::{Kind, Proxy};
use crate::support::{Behaviour, Server, Setup, Upstream, eventually, server::ADMIN_TOKEN, tls::Authority};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

/// Makes account `main` with further fields.
async fn account(server: &Server, fields: Value) {
    let mut body = json!({ "name": "main", "api_key": "upstream-main" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let answer = server.client(ADMIN_TOKEN).post("/admin/v1/accounts", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

async fn change(server: &Server, fields: Value) {
    let body = fields.to_string().into();
    let answer = server.client(ADMIN_TOKEN).send(http::Method::PATCH, "/admin/v1/accounts/main", body).await;
    assert_eq!(answer.status(), 200);
}

/// The statuses of three requests, one of them a stream.
async fn ask(server: &Server) -> [u16; 3] {
    use http_body_util::BodyExt as _;
    let client = server.client(&server.key(&format!("user{}", fastrand::u64(..)), &[]));
    let (one, two) = (client.chat("m").await.status, client.chat("m").await.status);
    let stream = client.chat_stream("m").await;
    let status = stream.status();
    let body = stream.into_body().collect().await.unwrap().to_bytes();
    assert!(status != 200 || body.ends_with(b"data: [DONE]\n\n"));
    [one.as_u16(), two.as_u16(), status.as_u16()]
}

/// What the log says of the last request that failed.
async fn failure(server: &Server) -> String {
    let client = server.client(&server.key(&format!("user{}", fastrand::u64(..)), &[]));
    let answer = client.chat("m").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    eventually("the failure is in the log", || async {
        let rows = server.sql(&format!("SELECT error_message FROM request_logs WHERE id = '{id}'"));
        rows.first().map(|row| row[0].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_over_tls_is_trusted_by_the_accounts_own_certificates_only() {
    let (upstream, authority) = (Upstream::start(FINE).await, Authority::new());
    let port = authority.serve(upstream.router()).await;
    let server = Setup::demo().start();
    account(&server, json!({ "base_url": format!("https://localhost:{port}"), "ca": authority.pem() })).await;
    assert_eq!(ask(&server).await, [200; 3]);
    assert_eq!(upstream.seen_from("main"), 3);
    change(&server, json!({ "ca": Authority::new().pem() })).await;
    let said = failure(&server).await;
    assert!(said.contains("certificate"), "{said}");
    change(&server, json!({ "ca": null })).await;
    assert!(failure(&server).await.contains("certificate"), "the system does not know the authority");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_over_tls_is_trusted_by_the_systems_certificates_and_by_a_file_in_the_configuration() {
    let (upstream, authority) = (Upstream::start(FINE).await, Authority::new());
    let port = authority.serve(upstream.router()).await;
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let base_url = format!("https://localhost:{port}/v1");
    let system = Setup::demo().environment("SSL_CERT_FILE", file.to_str().unwrap()).start();
    account(&system, json!({ "base_url": base_url })).await;
    assert_eq!(ask(&system).await, [200; 3]);
    let configured = format!(
        "[[account]]\nname = \"main\"\nbase_url = \"{base_url}\"\napi_key = \"k\"\nca_file = \"{}\"",
        file.display()
    );
    assert_eq!(ask(&Setup::demo().config(&configured).start()).await, [200; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_reached_through_its_proxy_in_plain_and_over_tls() {
    let (upstream, authority) = (Upstream::start(FINE).await, Authority::new());
    let port = authority.serve(upstream.router()).await;
    let server = Setup::demo().start();
    account(&server, json!({ "base_url": upstream.url(), "ca": authority.pem() })).await;
    for kind in [Kind::Http, Kind::Socks5] {
        for credentials in [None, Some(("me", "pass word"))] {
            let proxy = Proxy::start(kind, credentials).await;
            let way = json!({
                "proxy": proxy.url(),
                "proxy_user": credentials.map(|(user, _)| user),
                "proxy_password": credentials.map(|(_, password)| password),
            });
            for base_url in [upstream.url().to_owned(), format!("https://localhost:{port}")] {
                let (before, seen) = (proxy.connected(), upstream.seen());
                let mut fields = way.clone();
                fields["base_url"] = base_url.clone().into();
                change(&server, fields).await;
                assert_eq!(ask(&server).await, [200; 3], "{} {base_url}", proxy.url());
                assert_eq!(upstream.seen() - seen, 3);
                // Plain and streamed answers leave the connection open for the next request.
                assert_eq!(proxy.connected() - before, 1, "{} {base_url}", proxy.url());
            }
            let names = proxy.targets();
            assert_eq!(names.last(), Some(&format!("localhost:{port}")), "the proxy resolves names");
        }
    }
    let shown = server.get("/admin/v1/accounts/main").await.text();
    assert!(shown.contains("socks5://") && !shown.contains("pass word"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_silent_or_is_not_there_is_named_in_the_log() {
    let (upstream, authority) = (Upstream::start(FINE).await, Authority::new());
    let port = authority.serve(upstream.router()).await;
    let server = Setup::demo().config("[gateway]\nconnect_timeout_ms = 300").start();
    account(&server, json!({ "base_url": upstream.url(), "ca": authority.pem() })).await;
    let tls = format!("https://localhost:{port}");
    for (kind, base_url, part) in [
        (Kind::Http, upstream.url(), "407"),
        (Kind::Http, &tls, "proxy authorization required"),
        (Kind::Socks5, upstream.url(), "at its proxy"),
        (Kind::Socks5, &tls, "at its proxy"),
    ] {
        let proxy = Proxy::start(kind, Some(("me", "right"))).await;
        let way = json!({
            "base_url": base_url, "proxy": proxy.url(), "proxy_user": "me", "proxy_password": "wrong-password",
        });
        change(&server, way).await;
        let said = failure(&server).await;
        assert!(said.contains(part) && said.contains(&proxy.url()), "{said}");
        assert!(!said.contains("wrong-password"), "{said}");
        unban(&server).await;
    }
    let silent = Proxy::start(Kind::Silent, None).await;
    change(&server, json!({ "proxy": silent.url(), "proxy_user": null, "proxy_password": null })).await;
    let said = failure(&server).await;
    assert!(said.contains("no connection within 0.3 s") && said.contains(&silent.url()), "{said}");
    unban(&server).await;
    change(&server, json!({ "proxy": "socks5://127.0.0.1:1" })).await;
    let said = failure(&server).await;
    assert!(said.contains("socks5://127.0.0.1:1") && said.contains("refused"), "{said}");
    unban(&server).await;
    // A proxy that cannot reach the upstream.
    let proxy = Proxy::start(Kind::Socks5, None).await;
    change(&server, json!({ "base_url": "http://127.0.0.1:1", "proxy": proxy.url() })).await;
    let said = failure(&server).await;
    assert!(said.contains(&proxy.url()), "{said}");
}

/// Takes the account off the blacklist, should its failures have put it there.
async fn unban(server: &Server) {
    let path = "/admin/v1/blacklist/account/main";
    let answer = server.client(ADMIN_TOKEN).send(http::Method::DELETE, path, bytes::Bytes::new()).await;
    assert!([200, 404].contains(&answer.status().as_u16()));
}
