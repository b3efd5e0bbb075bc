//! Traces: what a collector is sent of a request, and that no collector costs a request anything.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tollgate::telemetry::otlp::{Kind, Span};

use crate::support::collector::{Answer, attribute};
use crate::support::tls::Authority;
use crate::support::{Behaviour, Collector, Server, Setup, Upstream, eventually, python};

const FINE: Behaviour = Behaviour::Answer { input: 7, output: 3 };
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn config(endpoint: &str, more: &str) -> String {
    format!("[telemetry]\nendpoint = \"{endpoint}\"\n{more}")
}

async fn chat(
    server: &Server,
    key: &str,
    stream: bool,
    traceparent: Option<&str>,
) -> crate::support::client::Answer {
    let body = serde_json::json!({
        "model": "gpt-test", "stream": stream, "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "a secret question" }],
    });
    let mut headers = vec![("tracestate", "vendor=1")];
    headers.extend(traceparent.map(|value| ("traceparent", value)));
    server.client(key).call(Method::POST, "/v1/chat/completions", &headers, body.to_string()).await
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

fn inside(span: &Span, whole: &Span) -> bool {
    span.parent_span_id == whole.span_id
        && span.start_time_unix_nano >= whole.start_time_unix_nano
        && span.end_time_unix_nano <= whole.end_time_unix_nano
        && span.start_time_unix_nano <= span.end_time_unix_nano
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_from_the_client_to_the_account_that_answers() {
    let upstream = Upstream::start(FINE).await;
    upstream.behave_for("first", Behaviour::Refuse { status: 503, retry_after: None });
    let collector = Collector::new();
    let server = Setup::default()
        .account("first", &upstream, "")
        .account("second", &upstream, "priority = 1\naliases = { gpt-test = \"gpt-own\" }")
        .config(&config(&collector.start().await, "service_name = \"edge\""))
        .start();
    let key = server.key("alice", &[]);
    let answer = chat(&server, &key, true, Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
    assert_eq!(answer.status, StatusCode::OK);

    let spans = collector.traces(1).await;
    assert!(spans.iter().all(|span| hex::encode(&span.trace_id) == TRACE && span.flags & 1 == 1));
    let root = one(&spans, "POST /v1/chat/completions");
    assert_eq!((hex::encode(&root.parent_span_id).as_str(), root.kind), (PARENT, Kind::Server as i32));
    assert_eq!((&root.status, root.flags), (&None, 0x301));
    for (name, expected) in [
        ("tollgate.request_id", answer.header("x-request-id")),
        ("tollgate.client", "alice"),
        ("tollgate.account", "second"),
        ("http.request.method", "POST"),
        ("http.route", "/v1/chat/completions"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "gpt-test"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "3"),
    ] {
        assert_eq!(attribute(root, name).as_deref(), Some(expected), "{name}");
    }

    let attempts: Vec<_> = spans.iter().filter(|span| span.kind == Kind::Client as i32).collect();
    let [failed, answered] = attempts[..] else { panic!("{attempts:#?}") };
    assert!(inside(failed, root) && inside(answered, root));
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("503"));
    assert!(failed.status.is_some() && answered.status.is_none());
    assert_eq!((failed.name.as_str(), answered.name.as_str()), ("chat gpt-test", "chat gpt-own"));
    let port = upstream.url().rsplit(':').next().unwrap().to_owned();
    for (name, expected) in [
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-own"),
        ("gen_ai.usage.output_tokens", "3"),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
        ("http.request.resend_count", "1"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(answered, name).as_deref(), Some(expected), "{name}");
    }
    assert!(inside(one(&spans, "stream"), answered));
    let admissions: Vec<_> = spans.iter().filter(|span| span.name == "admission").collect();
    assert!(admissions.len() == 2 && admissions.iter().all(|span| inside(span, root)), "{admissions:#?}");
    assert_eq!(attribute(admissions[0], "tollgate.client.verdict").as_deref(), Some("allowed"));
    assert_eq!(attribute(admissions[1], "tollgate.client.verdict"), None);
    assert_eq!(attribute(admissions[1], "tollgate.account.verdict").as_deref(), Some("allowed"));

    for (account, attempt) in [("first", failed), ("second", answered)] {
        let told = upstream.header_from(account, "traceparent").unwrap();
        assert_eq!(told, format!("00-{TRACE}-{}-01", hex::encode(&attempt.span_id)));
        assert_eq!(upstream.header_from(account, "tracestate").as_deref(), Some("vendor=1"));
    }
    let (headers, body) = collector.messages().swap_remove(0);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("service.name") && text.contains("edge"));
    for secret in
        [key.as_str(), "upstream-first", "upstream-second", "a secret question", "hello", "told to refuse"]
    {
        assert!(!text.contains(secret), "{secret} is in the trace");
    }
    assert!(server.metric("tollgate_spans_sent_total").await >= spans.len() as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_in_a_trace_with_the_limit_and_strangers_are_in_none() {
    let upstream = Upstream::start(FINE).await;
    let collector = Collector::new();
    let server = Setup::default()
        .account("main", &upstream, "rpd = 1")
        .config(&config(&collector.start().await, ""))
        .start();
    let key = server.key("bob", &["--rpm", "1"]);
    assert_eq!(chat(&server, "tg-nobody", false, None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(chat(&server, &key, false, None).await.status, StatusCode::OK);
    assert_eq!(chat(&server, &key, false, None).await.status, StatusCode::TOO_MANY_REQUESTS);
    let spans = collector.traces(2).await;
    let roots: Vec<_> = spans.iter().filter(|span| span.kind == Kind::Server as i32).collect();
    assert_eq!(roots.len(), 2, "{roots:#?}");
    assert!(
        roots[0].trace_id != roots[1].trace_id && roots.iter().all(|root| root.parent_span_id.is_empty())
    );
    assert_eq!(attribute(roots[1], "error.type").as_deref(), Some("429"));
    assert_eq!(roots[1].status, None, "what a client does wrong is no error of the server");
    let refused: Vec<_> = spans.iter().filter(|span| inside(span, roots[1])).collect();
    let [admission] = refused[..] else { panic!("{refused:#?}") };
    for (name, expected) in [
        ("tollgate.account", "main"),
        ("tollgate.client.verdict", "denied"),
        ("tollgate.client.plugin", "quota"),
        ("tollgate.client.limit", "rpm"),
        ("tollgate.account.verdict", "denied"),
        ("tollgate.account.plugin", "quota"),
        ("tollgate.account.limit", "rpd"),
    ] {
        assert_eq!(attribute(admission, name).as_deref(), Some(expected), "{name}");
    }
    for span in &spans {
        let keys: BTreeSet<_> = span.attributes.iter().map(|attribute| &attribute.key).collect();
        assert_eq!(keys.len(), span.attributes.len(), "an attribute is said once: {span:#?}");
    }
    assert!(spans.iter().any(|span| span.name == "answer"));
    // Without a trace of its own, what a client says beside it is of none.
    assert_eq!(upstream.header_from("main", "tracestate"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_kept_as_its_caller_says_and_else_by_the_ratio() {
    let upstream = Upstream::start(FINE).await;
    let collector = Collector::new();
    let server = Setup::with(&upstream).config(&config(&collector.start().await, "sample_ratio = 0")).start();
    let key = server.key("carol", &[]);
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    chat(&server, &key, false, Some(&unsampled)).await;
    assert_eq!(upstream.header_from("main", "traceparent"), Some(unsampled));
    assert_eq!(upstream.header_from("main", "tracestate").as_deref(), Some("vendor=1"));
    chat(&server, &key, false, None).await;
    let begun = upstream.header_from("main", "traceparent").unwrap();
    assert!(begun.ends_with("-00") && !begun.contains(TRACE), "{begun}");
    chat(&server, &key, false, Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
    let spans = collector.traces(1).await;
    assert!(spans.iter().all(|span| hex::encode(&span.trace_id) == TRACE), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_over_tls_gets_its_headers_and_the_last_spans_when_the_server_stops() {
    let (upstream, authority, collector) = (Upstream::start(FINE).await, Authority::new(), Collector::new());
    let port = authority.serve(collector.router()).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let more = format!(
        "ca_file = \"{}\"\nheaders = {{ x-tenant = \"main\" }}\nheaders_env = {{ authorization = \"OTLP_KEY\" }}\n",
        ca.display()
    );
    let mut server = Setup::with(&upstream)
        .config(&config(&format!("https://localhost:{port}"), &more))
        .environment("OTLP_KEY", "Bearer collector-secret")
        .log("debug")
        .start();
    let key = server.key("dave", &[]);
    chat(&server, &key, false, None).await;
    assert_eq!(server.terminate(), Some(0));
    assert!(collector.spans().iter().any(|span| span.kind == Kind::Server as i32));
    let (headers, _) = collector.messages().swap_remove(0);
    assert_eq!(
        (headers["x-tenant"].as_bytes(), headers["authorization"].as_bytes()),
        (&b"main"[..], &b"Bearer collector-secret"[..])
    );
    assert!(!server.log().contains("collector-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_collector_cannot_take_now_is_sent_again_and_what_it_refuses_is_dropped_and_counted() {
    let (upstream, collector) = (Upstream::start(FINE).await, Collector::new());
    let server = Setup::with(&upstream).config(&config(&collector.start().await, "")).start();
    let key = server.key("erin", &[]);
    collector.answer(Answer::Refuse(503, Some(0)));
    chat(&server, &key, false, None).await;
    let spans = collector.traces(1).await;
    assert_eq!((collector.asked(), collector.messages().len()), (2, 1));
    let sent = async || server.metric("tollgate_spans_sent_total").await as usize;
    eventually("they count as sent", async || (sent().await == spans.len()).then_some(())).await;

    collector.answer(Answer::Refuse(400, None));
    chat(&server, &key, false, None).await;
    let refused = async || server.metric_with("tollgate_spans_dropped_total", &["cause=\"refused\""]).await;
    let dropped =
        eventually("a message is refused", async || Some(refused().await).filter(|n| *n > 0.0)).await;
    assert!(dropped as usize <= spans.len());
    collector.answer(Answer::TakeWithout(1));
    chat(&server, &key, false, None).await;
    eventually("one span is not taken", async || (refused().await == dropped + 1.0).then_some(())).await;
    collector.answer(Answer::TakeWithout(1));
    chat(&server, &key, false, None).await;
    eventually("another is not taken", async || (refused().await == dropped + 2.0).then_some(())).await;

    // Each kind of trouble has a line, in the order in which they came.
    let (log, mut from) = (server.log(), 0);
    for said in [
        "it answered 503",
        "takes traces again",
        "it answered 400",
        "it rejected 1 of 4 spans: told to\\nforged",
    ] {
        from += log[from..].find(said).unwrap_or_else(|| panic!("{said}: {log}"));
    }
    assert_eq!(log.matches("it rejected 1 of 4 spans").count(), 1, "{log}");
    assert!(log.lines().all(|line| line.len() < 1_000 && !line.starts_with("forged")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_costs_requests_nothing_and_stopping_no_more_than_its_time() {
    /// Each has four spans; 8,192 may wait, and 512 are on their way.
    const REQUESTS: usize = 2_400;
    let upstream = Upstream::start(FINE).await;
    // Connections wait in its backlog; nobody takes them.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut server = Setup::with(&upstream)
        .config(&config(&endpoint, ""))
        .environment("TOLLGATE_LOG_FORMAT", "json")
        .start();
    let client = server.client(&server.key("frank", &[]));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..REQUESTS / 16 {
                    assert_eq!(client.chat("gpt-test").await.status, StatusCode::OK);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    eventually("all have ended", async || {
        (server.metric("tollgate_requests_total").await == REQUESTS as f64).then_some(())
    })
    .await;
    let full = server.metric_with("tollgate_spans_dropped_total", &["cause=\"full\""]).await;
    assert!(full > 0.0 && full < (4 * REQUESTS - 8_192) as f64, "{full}");
    let dropped = server.metric("tollgate_spans_dropped_total").await as u64;
    let begin = Instant::now();
    assert_eq!(server.terminate(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let log = server.log();
    let last = log.lines().find(|line| line.contains("did not take the last spans in time")).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    let uncounted = 4 * REQUESTS as u64 - dropped - last["fields"]["spans"].as_u64().unwrap();
    // A message whose own time was over while the server stopped was counted where nobody could read it any more.
    let is_known = uncounted == 0 || uncounted == 512 && log.contains("no answer within");
    assert!(is_known, "{uncounted} are lost uncounted");
}

/// OpenTelemetry's own code reads what is sent.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "sets up a virtual environment from the package index; .ci/run runs it"]
async fn opentelemetrys_own_messages_read_the_same() {
    let (upstream, collector) = (Upstream::start(FINE).await, Collector::new());
    let server = Setup::with(&upstream).config(&config(&collector.start().await, "")).start();
    chat(&server, &server.key("grace", &[]), true, Some(&format!("00-{TRACE}-{PARENT}-01"))).await;
    let spans = collector.traces(1).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/otlp");
    let environment = python::environment("otlp-venv", &folder.join("requirements.txt"));
    let mut read = Vec::new();
    for (number, (_, body)) in collector.messages().iter().enumerate() {
        let file = server.home().join(format!("message-{number}"));
        std::fs::write(&file, body).unwrap();
        let output = Command::new(environment.join("bin/python"))
            .arg(folder.join("read.py"))
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        read.extend(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned));
    }
    let expected: Vec<_> = spans
        .iter()
        .map(|span| {
            let attributes: Vec<_> = span
                .attributes
                .iter()
                .map(|known| format!("{}={}", known.key, attribute(span, &known.key).unwrap()))
                .collect();
            format!(
                "{} {} {} {} {} {} {} {} {} {}",
                hex::encode(&span.trace_id),
                hex::encode(&span.span_id),
                hex::encode(&span.parent_span_id),
                span.kind,
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                span.flags,
                span.status.as_ref().map_or(0, |status| status.code),
                span.name,
                attributes.join(" ")
            )
            .trim_end()
            .to_owned()
        })
        .collect();
    assert_eq!(read, expected);
}
