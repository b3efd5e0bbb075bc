//! Bytes that the admin API must not swallow.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tollgate::plugin::Engine;
use tollgate::plugin::compile::{Apart, Compiler};

use super::House;
use crate::support::server::ADMIN_TOKEN;

/// What memory may grow by while bytes are refused: buffers, not the component.
const SLACK_KIB: u64 = 48 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_200_mb_is_refused_without_being_held() {
    let house = House::open().await;
    house.serves_on().await;
    let before = house.server.peak_kib();
    for announced in [true, false] {
        let head = push_head(announced.then_some(200 << 20));
        let mut stream = TcpStream::connect(house.server.url().trim_start_matches("http://")).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        send(&mut stream, 200, announced);
        let mut answer = String::new();
        // The server may close before it has read all of it; what it answered is there all the same.
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 413"), "announced: {announced}, {answer:?}");
    }
    let grown = house.server.peak_kib() - before;
    assert!(grown < SLACK_KIB, "memory grew by {grown} KiB");
    assert_eq!(house.server.get("/healthz").await.status, 200);
}

fn push_head(length: Option<usize>) -> String {
    let length =
        length.map_or("transfer-encoding: chunked".to_owned(), |bytes| format!("content-length: {bytes}"));
    format!(
        "PUT /admin/v1/plugins/hostile HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\
         content-type: application/wasm\r\nconnection: close\r\n{length}\r\n\r\n"
    )
}

/// Sends megabytes until they are all sent, or the server takes no more.
fn send(stream: &mut TcpStream, megabytes: usize, plain: bool) {
    let megabyte = vec![0; 1 << 20];
    for _ in 0..megabytes {
        let sent = if plain {
            stream.write_all(&megabyte)
        } else {
            write!(stream, "{:x}\r\n", megabyte.len())
                .and_then(|()| stream.write_all(&megabyte))
                .and_then(|()| stream.write_all(b"\r\n"))
        };
        if sent.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_just_over_its_size_is_refused_by_the_limit() {
    let house = House::open().await;
    refused(&house, &vec![0; (32 << 20) + 1], "larger than this endpoint takes");
    house.serves_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_imports_are_refused_by_name() {
    let house = House::open().await;
    let mut text = String::from("(component ");
    for number in 0..1_000 {
        write!(text, "(import \"import-{number}\" (func)) ").unwrap();
    }
    text.push_str("(instance $hook) (export \"tollgate:policy/lifecycle@0.1.0\" (instance $hook)))");
    refused(&house, &component(&text), "imports import-0, which the manifest does not grant");
    house.serves_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_within_a_component_runs_as_what_it_exports() {
    let house = House::open().await;
    let inner = |body: &str| {
        format!(
            r#"(component
                (component $inner
                    (core module $m (func (export "init") (result i32) {body}) (memory (export "memory") 1))
                    (core instance $i (instantiate $m))
                    (func $init (result (result (error string)))
                        (canon lift (core func $i "init") (memory (core memory $i "memory"))))
                    (instance $hook (export "init" (func $init)))
                    (export "tollgate:policy/lifecycle@0.1.0" (instance $hook)))
                (instance $inner (instantiate $inner))
                (export "tollgate:policy/lifecycle@0.1.0"
                    (instance $inner "tollgate:policy/lifecycle@0.1.0")))"#
        )
    };
    let output = house.push(&component(&inner("i32.const 0")), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    refused(&house, &component(&inner("(loop $on (br $on)) unreachable")), "init: ran over its deadline");
    house.serves_on().await;
}

/// Fifty thousand of them once kept a processor busy for three minutes, and then ended the server by its stack.
#[tokio::test(flavor = "multi_thread")]
async fn components_nested_without_end_are_refused() {
    let house = House::open().await;
    refused(&house, &nested(50_000), "components within each other; at most 16 are allowed");
    house.serves_on().await;
}

/// A component that holds a component that holds a component, and so on.
fn nested(depth: usize) -> Vec<u8> {
    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
    let (mut heads, mut length) = (vec![HEAD.to_vec()], HEAD.len());
    for _ in 0..depth {
        // The section of a component, and its length in LEB128.
        let mut head = [HEAD, b"\x04"].concat();
        let mut left = length;
        while left >= 0x80 {
            head.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        head.push(left as u8);
        length += head.len();
        heads.push(head);
    }
    heads.into_iter().rev().flatten().collect()
}

/// Loops within loops, for which the compiler's time grows with their square.
fn nested_loops(depth: usize) -> Vec<u8> {
    let (loops, ends) = ("loop ".repeat(depth), "end ".repeat(depth));
    component(&format!("(component (core module (func {loops} {ends})))"))
}

#[test]
fn compiling_a_component_ends_at_its_limits() {
    let engine = Engine::new().unwrap();
    let compile = |cpu_seconds, bytes, wasm: &[u8]| {
        let program = env!("CARGO_BIN_EXE_tollgate").into();
        Compiler::Apart(Apart { program, cpu: Duration::from_secs(cpu_seconds), bytes })
            .compile(&engine, wasm)
    };
    let late = compile(1, 1 << 30, &nested_loops(46_000)).unwrap_err().to_string();
    assert!(late.contains("more than 1 s or 1024 MiB"), "{late}");
    let data = "x".repeat(30 << 20);
    let large = component(&format!("(component (core module (memory 512) (data (i32.const 0) \"{data}\")))"));
    let large = compile(60, 64 << 20, &large).unwrap_err().to_string();
    assert!(large.contains("more than 60 s or 64 MiB"), "{large}");
    let wrong = compile(60, 1 << 30, &component("(component (core module (func br 1000)))")).unwrap_err();
    assert!(wrong.to_string().starts_with("not a valid component: "), "{wrong}");
    assert!(compile(60, 1 << 30, &crate::support::Guest::new().build()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute of processor time"]
async fn a_component_that_compiles_for_minutes_is_given_up_while_requests_go_on() {
    let house = House::open().await;
    let output = house.push(&nested_loops(200_000), "");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("more than 60 s"), "{message}");
    house.serves_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deeply_nested_types_are_refused() {
    let house = House::open().await;
    // Each type is a list of the one before; then each a pair of the one before, doubling in size.
    for of in ["(list $tBEFORE)", "(tuple $tBEFORE $tBEFORE)"] {
        let mut text = String::from("(component (type $t0 (tuple u64 u64)) ");
        for number in 1..=5_000 {
            write!(text, "(type $t{number} {}) ", of.replace("BEFORE", &(number - 1).to_string())).unwrap();
        }
        text.push_str("(import \"deep\" (func (param \"p\" $t5000))))");
        refused(&house, &component(&text), "not a valid component");
    }
    house.serves_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_memory_than_any_plugin_may_have_is_refused_at_the_push() {
    let house = House::open().await;
    let guest = crate::support::Guest::new().define("(data (i32.const 0) \"x\")");
    let limits = "memory-bytes = 65536";
    let output = house.push(&guest.build(), limits);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("memory"), "{message}");
    house.serves_on().await;
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn refused(house: &House, wasm: &[u8], reason: &str) {
    let output = house.push(wasm, "init-deadline-ms = 100");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(reason), "{reason:?} is not in {message}");
}
