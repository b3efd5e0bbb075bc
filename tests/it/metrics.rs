//! `/metrics`: what is counted, that it goes with whom it is about, and that its manual has all of it.

use std::collections::BTreeSet;
use std::path::Path;

use http::StatusCode;

use crate::support::{Behaviour, Server, Setup, Upstream, eventually};

const FINE: Behaviour = Behaviour::Answer { input: 5, output: 2 };

/// The metrics that the server shows, by the lines of their types, and the text.
async fn shown(server: &Server) -> (BTreeSet<String>, String) {
    let text = server.get("/metrics").await.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    (types.map(|line| line.split(' ').next().unwrap().to_owned()).collect(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_denials_and_attempts_are_counted_by_how_they_ended() {
    let upstream = Upstream::start(FINE).await;
    upstream.behave_for("bad", Behaviour::Refuse { status: 500, retry_after: None });
    upstream.behave_for("gone", Behaviour::Break);
    let server = Setup::default()
        .account("bad", &upstream, "")
        .account("gone", &upstream, "priority = 1")
        .account("good", &upstream, "priority = 2")
        .start();
    let client = server.client(&server.key("user", &["--rpm", "2"]));
    assert_eq!(client.chat("m").await.status, StatusCode::OK);
    server.cli_ok(&["blacklist", "add", "--account", "bad", "--reason", "for the test"]);
    assert_eq!(client.chat("m").await.status, StatusCode::OK);
    assert_eq!(client.chat("m").await.status, StatusCode::TOO_MANY_REQUESTS);
    let counted = async |name: &str, labels: &[&str]| server.metric_with(name, labels).await;
    let openai = "dialect=\"openai\"";
    for (name, labels, expected) in [
        ("tollgate_requests_total", &[openai, "status=\"2xx\""][..], 2.0),
        ("tollgate_request_seconds_count", &[openai, "status=\"2xx\""], 2.0),
        ("tollgate_request_seconds_count", &[openai, "status=\"429\""], 1.0),
        ("tollgate_first_byte_seconds_count", &[openai], 2.0),
        ("tollgate_denials_total", &["subject=\"client\"", "measure=\"rpm\""], 1.0),
        ("tollgate_upstream_attempts_total", &["account=\"bad\"", "end=\"error\""], 1.0),
        ("tollgate_upstream_attempts_total", &["account=\"good\"", "end=\"answered\""], 2.0),
        ("tollgate_upstream_attempts_total", &["end=\"answered\""], 2.0),
    ] {
        assert_eq!(counted(name, labels).await, expected, "{name} {labels:?}");
    }
    assert!(
        counted("tollgate_upstream_attempts_total", &["account=\"gone\"", "end=\"unreachable\""]).await
            >= 1.0
    );
    assert!(
        counted("tollgate_denials_total", &["subject=\"account\"", "measure=\"blacklisted\""]).await >= 1.0
    );
    let (sum, whole) = (
        counted("tollgate_request_seconds_sum", &[openai]).await,
        counted("tollgate_request_seconds_bucket", &[openai, "status=\"2xx\"", "le=\"+Inf\""]).await,
    );
    assert!(sum > 0.0 && sum < 60.0 && whole == 2.0, "{sum} {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_requests_cost_is_counted_by_account_as_the_log_has_it() {
    let upstream = Upstream::start(Behaviour::Answer { input: 7, output: 3 }).await;
    let prices = "[[price]]\nmodel = \"priced\"\ninput = 0.1\noutput = 0.7\n";
    let server = Setup::default()
        .config(prices)
        .account("cheap", &upstream, "models = [\"priced\", \"unpriced\"]")
        .account("unused", &upstream, "models = [\"other\"]")
        .start();
    let client = server.client(&server.key("user", &[]));
    for model in ["priced", "unpriced", "priced", "priced"] {
        assert_eq!(client.chat(model).await.status, StatusCode::OK);
    }
    upstream.behave(Behaviour::Refuse { status: 400, retry_after: None });
    assert_eq!(client.chat("priced").await.status, StatusCode::BAD_REQUEST);
    crate::accounting::logged(&server, 5).await;
    let counted = async |account: &str| {
        let label = format!("account=\"{account}\"");
        server.metric_with("tollgate_cost_billionths_total", &[&label]).await
    };
    let logged = server.count("SELECT sum(cost) FROM request_logs WHERE account_name = 'cheap'");
    // 100 and 700 billionths a token.
    assert_eq!((logged, counted("cheap").await), (8_400, 8_400.0));
    assert!(shown(&server).await.1.contains("tollgate_cost_billionths_total{account=\"unused\"} 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_of_an_account_goes_when_it_does() {
    let upstream = Upstream::start(FINE).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("user", &[]));
    for round in 0..3 {
        let name = format!("passing-{round}");
        server.cli_ok(&["account", "create", "--name", &name, "--base-url", upstream.url(), "--no-api-key"]);
        let label = format!("account=\"{name}\"");
        assert!(shown(&server).await.1.contains(&label), "{label}");
        server.cli_ok(&["account", "delete", &name]);
        eventually("its metrics are gone", async || (!shown(&server).await.1.contains(&label)).then_some(()))
            .await;
    }
    assert_eq!(client.chat("m").await.status, StatusCode::OK);
    let text = shown(&server).await.1;
    assert!(text.contains("tollgate_upstream_seconds_count{account=\"main\"} 1"), "{text}");
    assert!(text.contains("plugin=\"quota\""), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manual_has_every_metric_and_no_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(folder.join("METRICS.md")).unwrap();
    let named: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next().unwrap().to_owned()))
        .collect();
    let mut counted = BTreeSet::new();
    crate::architecture::each_source("host/src", |_, code| {
        let words = code.split('"').filter(|word| {
            word.starts_with("tollgate_")
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        counted.extend(words.map(str::to_owned));
    });
    assert_eq!(named, counted);

    let upstream = Upstream::start(FINE).await;
    let server = Setup::with(&upstream).start();
    assert_eq!(server.client(&server.key("user", &[])).chat("m").await.status, StatusCode::OK);
    let (shown, text) = shown(&server).await;
    assert!(shown.is_subset(&named), "{:?}", shown.difference(&named));
    for name in &shown {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
    assert!(shown.len() > 30, "{shown:?}");
}
