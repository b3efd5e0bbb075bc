//! Components that answer requests under a route: one written for any host of WASI, and hostile ones.
//!
//! `tests/components/guestbook` is written against the published interfaces alone; `tollgate plugin build` in
//! `tests/components` makes its component anew.

use std::path::PathBuf;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::component::of_text;
use crate::support::{Server, Setup, eventually};

fn components() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/components")
}

/// The component of the guestbook.
fn guestbook() -> PathBuf {
    components().join("prebuilt/guestbook.wasm")
}

fn manifest() -> String {
    std::fs::read_to_string(components().join("guestbook/plugin.toml")).unwrap()
}

fn started() -> Server {
    Setup::demo().config("[kv.guestbook]").start()
}

/// Pushes a component with a manifest; the error is what the command says.
fn push(server: &Server, name: &str, wasm: &[u8], manifest: &str) -> Result<(), String> {
    let (file, toml) = (server.home().join("pushed.wasm"), server.home().join("pushed.toml"));
    std::fs::write(&file, wasm).unwrap();
    std::fs::write(&toml, manifest).unwrap();
    let [file, toml] = [&file, &toml].map(|path| path.to_str().unwrap());
    let output = server.cli(&["plugin", "push", file, "--name", name, "--manifest", toml, "--grant"]);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

fn push_guestbook(server: &Server, manifest: &str) {
    let wasm = std::fs::read(guestbook()).unwrap();
    push(server, "guestbook", &wasm, manifest).unwrap();
}

/// A handler that does this and never answers.
fn handler(body: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) {body}))"#
    );
    of_text(&module, "export wasi:http/incoming-handler@0.2.0;")
}

/// A connection on which a request has been sent as far as this.
async fn connect(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// What comes until this text does.
async fn read_to(stream: &mut TcpStream, text: &str) -> String {
    let (mut read, mut piece) = (Vec::new(), [0; 1024]);
    while !String::from_utf8_lossy(&read).contains(text) {
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "{:?} ends without {text:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(read).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_written_for_any_host_keeps_its_entries_in_the_store_that_it_was_granted() {
    let server = started();
    push_guestbook(&server, &manifest());
    let client = server.client(&server.key("reader", &[]));
    for (entry, number) in [("first", "1\n"), ("second", "2\n")] {
        let answer = client.call(Method::POST, "/guestbook/entries", &[], entry).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, number.to_owned()));
    }
    let listed = client.get("/guestbook/entries?page=1").await;
    assert_eq!(listed.text(), "Welcome, visitor 1\nfirst\nsecond\n");
    assert!(listed.headers.contains_key("x-request-id"));
    assert_eq!(server.cli_ok(&["kv", "get", "guestbook", "entry/000002"]), "second");
    let denied = client.get("/guestbook/denied").await;
    assert_eq!(denied.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(
        denied.text().contains("AccessDenied") || denied.text().contains("NoSuchStore"),
        "{}",
        denied.text()
    );
    assert_eq!(client.get("/guestbook/elsewhere").await.status, StatusCode::NOT_FOUND);
    let log = server.cli_ok(&["plugin", "logs", "guestbook"]);
    assert!(log.contains("info") && log.contains("guestbook: entry 2"), "{log}");
    let calls = ["plugin=\"guestbook\"", "hook=\"handle\""];
    assert_eq!(server.metric_with("tollgate_plugin_calls_total", &calls).await, 5.0);
    let inspected = server.cli_ok(&["plugin", "inspect", guestbook().to_str().unwrap()]);
    for line in ["hooks: http", "[grants.kv] NAME = \"read-write\"", "wasi:keyvalue@0.2.0-draft2"] {
        assert!(inspected.contains(line), "{inspected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_is_refused_unless_the_route_is_public_and_the_component_never_sees_the_key() {
    let server = started();
    push_guestbook(&server, &manifest());
    for stranger in [server.client("tg-nobody"), server.client("")] {
        let refused = stranger.get("/guestbook/entries").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(
            refused.json()["error"]["message"].as_str().unwrap().contains("api key"),
            "{}",
            refused.text()
        );
    }
    let calls = ["plugin=\"guestbook\"", "hook=\"handle\""];
    assert_eq!(server.metric_with("tollgate_plugin_calls_total", &calls).await, 0.0);
    let key = server.key("alice", &[]);
    let pretended = [("tollgate-client", "somebody else")];
    let who = server.client(&key).call(Method::GET, "/guestbook/who", &pretended, "").await;
    assert_eq!(who.text(), "tollgate-client: alice\n");
    // What a client sends in the other place for keys is not for the component either.
    let both = server.client("another-secret");
    let both = both.call(Method::GET, "/guestbook/who", &[("x-api-key", &key)], "").await;
    assert_eq!((both.status, both.text()), (StatusCode::OK, "tollgate-client: alice\n".to_owned()));
    push_guestbook(&server, &manifest().replace("[http]", "[http]\npublic = true"));
    assert_eq!(server.client("").get("/guestbook/entries").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_answer_stream_through_the_component_side_by_side() {
    let server = started();
    push_guestbook(&server, &manifest());
    let key = server.key("streamer", &[]);
    let head = format!(
        "POST /guestbook/echo HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut stream = connect(&server, &format!("{head}5\r\nfirst\r\n")).await;
    let answer = read_to(&mut stream, "first").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.write_all(b"6\r\nsecond\r\n").await.unwrap();
    read_to(&mut stream, "second").await;
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    read_to(&mut stream, "0\r\n\r\n").await;
    // A body of megabytes comes through whole.
    let large = vec![b'x'; 3_000_000];
    let answer = server.client(&key).call(Method::POST, "/guestbook/echo", &[], large.clone()).await;
    assert_eq!(answer.body.len(), large.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_mid_answer_breaks_it_off_rather_than_end_it_well() {
    let server = started();
    push_guestbook(&server, &manifest());
    let key = server.key("unlucky", &[]);
    let head = format!("POST /guestbook/trap HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {key}\r\n");
    let mut stream = connect(&server, &format!("{head}content-length: 0\r\n\r\n")).await;
    let mut answer = String::new();
    // A reset is as good as an end: what matters is that it is no good one.
    let _ = stream.read_to_string(&mut answer).await;
    assert!(!answer.contains("0\r\n\r\n"), "{answer}");
    let traps = ["plugin=\"guestbook\"", "hook=\"handle\""];
    eventually("the trap is counted", async || {
        (server.metric_with("tollgate_plugin_traps_total", &traps).await == 1.0).then_some(())
    })
    .await;
    assert_eq!(server.client(&key).get("/guestbook/entries").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_body_is_its_clients_fault_and_not_the_components() {
    let server = started();
    push_guestbook(&server, &manifest());
    let key = server.key("careless", &[]);
    let head = format!("POST /guestbook/entries HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {key}\r\n");
    let mut stream =
        connect(&server, &format!("{head}transfer-encoding: chunked\r\n\r\nno number\r\n")).await;
    assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let traps = ["plugin=\"guestbook\"", "hook=\"handle\""];
    assert_eq!(server.metric_with("tollgate_plugin_traps_total", &traps).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_handlers_and_bodies_end_with_the_right_status_and_a_reason() {
    let server = started();
    let client = server.client(&server.key("victim", &[]));
    let hostile = [
        ("loops", "(loop $on (br $on))", StatusCode::GATEWAY_TIMEOUT, "limit of time"),
        ("traps", "unreachable", StatusCode::BAD_GATEWAY, "failed"),
        ("silent", "", StatusCode::BAD_GATEWAY, "without an answer"),
        (
            "grows",
            "(loop $on (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable",
            StatusCode::BAD_GATEWAY,
            "failed",
        ),
    ];
    for (name, body, status, reason) in hostile {
        let manifest =
            format!("name = \"{name}\"\n[http]\nroute = \"/{name}/\"\n[limits]\nhttp-deadline-ms = 50");
        push(&server, name, &handler(body), &manifest).unwrap();
        let answer = client.get(&format!("/{name}/")).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(reason) && message.contains(name), "{message}");
    }
    let large = "POST /silent/ HTTP/1.1\r\nhost: here\r\ncontent-length: 104857601\r\n";
    let key = server.key("large", &[]);
    let mut stream = connect(&server, &format!("{large}authorization: Bearer {key}\r\n\r\n")).await;
    assert!(read_to(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 413"));
    // None of them has done harm to the others.
    assert_eq!(client.chat("demo").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_belongs_to_one_plugin_and_follows_its_versions() {
    let server = started();
    push_guestbook(&server, &manifest());
    let client = server.client(&server.key("visitor", &[]));
    let refused = |name: &str, route: &str| {
        let manifest = format!("name = \"{name}\"\n[http]\nroute = \"{route}\"");
        push(&server, name, &handler(""), &manifest).unwrap_err()
    };
    assert!(refused("thief", "/guestbook/").contains("\"guestbook\" answers under /guestbook/ already"));
    assert!(refused("thief", "/v1/models/").contains("/v1/"));
    assert!(refused("thief", "guestbook").contains("slash"));
    push_guestbook(&server, &manifest().replace("/guestbook/", "/book/").replace("Welcome", "Hello"));
    assert!(client.get("/book/entries").await.text().starts_with("Hello, visitor"));
    assert_eq!(client.get("/guestbook/entries").await.status, StatusCode::NOT_FOUND);
    server.cli_ok(&["plugin", "rollback", "guestbook"]);
    assert!(client.get("/guestbook/entries").await.text().starts_with("Welcome, visitor"));
    assert_eq!(client.get("/book/entries").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_sends_requests_to_the_hosts_that_it_was_granted_and_to_no_others() {
    let server = started();
    let client = server.client(&server.key("asker", &[]));
    let wasm = std::fs::read(components().join("prebuilt/fetcher.wasm")).unwrap();
    let manifest = std::fs::read_to_string(components().join("fetcher/plugin.toml")).unwrap();
    let refused = push(&server, "fetcher", &wasm, &manifest.replace("[grants.http]", "")).unwrap_err();
    assert!(refused.contains("wasi:http/outgoing-handler@0.2"), "{refused}");
    let here = server.url().strip_prefix("http://").unwrap();
    let named = here.replace("127.0.0.1", "localhost");
    let (denied, prohibited) = ((502, "HttpRequestDenied"), (502, "DestinationIpProhibited"));
    for (grant, target, (status, text)) in [
        (String::new(), here, denied),
        (format!("{here:?} = \"public\""), here, prohibited),
        (format!("{named:?} = \"public\""), named.as_str(), prohibited),
        (format!("{named:?} = \"private\""), here, denied),
        (format!("{named:?} = \"private\""), named.as_str(), (200, "")),
        (format!("{here:?} = \"private\""), here, (200, "")),
    ] {
        push(&server, "fetcher", &wasm, &format!("{manifest}{grant}\n")).unwrap();
        let answer = client.get(&format!("/fetcher/?{target}/healthz")).await;
        assert!(answer.status == status && answer.text().contains(text), "{grant}: {target}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_without_a_push() {
    let server = started();
    push_guestbook(&server, &manifest());
    let client = server.client(&server.key("reader", &[]));
    let greeting =
        async || client.get("/guestbook/entries").await.text().split(',').next().unwrap().to_owned();
    assert_eq!(greeting().await, "Welcome");
    let said = server.cli_ok(&["plugin", "set", "guestbook", "greeting=Good day", "other=x"]);
    assert!(said.contains("serves"), "{said}");
    assert_eq!(greeting().await, "Good day");
    server.cli_ok(&["plugin", "set", "guestbook", "--unset", "greeting", "--unset", "other"]);
    assert_eq!(greeting().await, "");
    let unknown = server.cli(&["plugin", "set", "guestbook", "--unset", "greeting"]);
    assert!(unknown.status.code() == Some(1), "{unknown:?}");
    server.cli_ok(&["plugin", "rollback", "guestbook"]);
    assert_eq!(greeting().await, "Good day");
    // The grants are what they were: without them the component would not load.
    let inspected = server.cli_ok(&["plugin", "inspect", "guestbook"]);
    assert!(inspected.contains("kv.guestbook = \"read-write\""), "{inspected}");
    assert!(server.cli_ok(&["audit", "list"]).contains("plugin config"));
}
