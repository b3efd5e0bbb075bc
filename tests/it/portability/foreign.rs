//! Plugins that our toolchain did not build: what the runtimes of other languages import is there, and leads nowhere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::npm::{self, Scripts};
use crate::support::component::contracts;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Server, Setup};

/// Asks all of the base that leads out of the sandbox elsewhere; the letter of its error says what went wrong.
const LOOKS_AROUND: &str = r#"(module
    (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
    (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
    (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $directories (param i32)))
    (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
        (func $write (param i32 i32 i32 i32)))
    (import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))
    (memory (export "memory") 1)
    (global $top (mut i32) (i32.const 4096))
    (data (i32.const 700) "written by hand\0a")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (global.get $top)
        (global.set $top (i32.and (i32.add (i32.add (global.get $top) (local.get 3)) (i32.const 7)) (i32.const -8))))
    (func $failed (param $letter i32) (result i32)
        (i32.store8 (i32.const 600) (local.get $letter))
        (i32.store8 (i32.const 512) (i32.const 1))
        (i32.store (i32.const 516) (i32.const 600))
        (i32.store (i32.const 520) (i32.const 1))
        (i32.const 512))
    (func (export "tollgate:policy/lifecycle@0.1.0#init") (result i32)
        (local $began i64)
        (call $environment (i32.const 256))
        (if (i32.load (i32.const 260)) (then (return (call $failed (i32.const 101)))))
        (call $directories (i32.const 264))
        (if (i32.load (i32.const 268)) (then (return (call $failed (i32.const 100)))))
        (call $random (i64.const 16) (i32.const 272))
        (if (i32.or
                (i32.ne (i32.load (i32.const 276)) (i32.const 16))
                (i64.eq (i64.load (i32.load (i32.const 272))) (i64.load offset=8 (i32.load (i32.const 272)))))
            (then (return (call $failed (i32.const 114)))))
        (local.set $began (call $now))
        (loop $until_it_ticks (br_if $until_it_ticks (i64.le_u (call $now) (local.get $began))))
        (call $write (call $stdout) (i32.const 700) (i32.const 16) (i32.const 280))
        (if (i32.load8_u (i32.const 280)) (then (return (call $failed (i32.const 119)))))
        (i32.store8 (i32.const 512) (i32.const 0))
        (i32.const 512)))"#;

/// Makes a component of a core module in text, which may import the base and has the hook `init`.
fn assemble(module: &str) -> Vec<u8> {
    let mut module = wat::parse_str(module).unwrap();
    let mut resolve = contracts();
    for package in ["io", "cli", "clocks", "filesystem", "random"] {
        resolve.push_dir(npm::sources().join("guest/wit/deps").join(package)).unwrap();
    }
    let world = "package test:text; world text {
        import wasi:cli/environment@0.2.0;
        import wasi:cli/stdout@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        import wasi:filesystem/preopens@0.2.0;
        import wasi:random/random@0.2.0;
        export tollgate:policy/lifecycle@0.1.0;
    }";
    let package = resolve.push_str("text.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("text")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_runtime_imports_is_there_and_leads_nowhere() {
    let server = Setup::demo().config("[kv.visits]").start();
    let component = server.home().join("text.wasm");
    std::fs::write(&component, assemble(LOOKS_AROUND)).unwrap();
    let pushed = push(&server, &component);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let line = r#"a plugin wrote plugin="foreign" stream="stdout" line="written by hand""#;
    assert!(server.log().contains(line), "no {line} in\n{}", server.log());
}

/// Makes a component of `tests/portability/guest/guest.js` for one of the worlds beside it.
pub fn build(scripts: &Scripts, world: &str) -> PathBuf {
    scripts.add("guest", "");
    npm::copy(&npm::sources().join("../../wit"), &scripts.path("guest/wit/deps"));
    // The guest has what it uses of wasi:io beside it, and no blobs.
    for package in ["wasi-io", "wasi-blobstore"] {
        std::fs::remove_dir_all(scripts.path("guest/wit/deps").join(package)).unwrap();
    }
    let component = scripts.path(&format!("{world}.wasm"));
    let arguments = "../node_modules/.bin/componentize-qjs --sync --wit guest/wit --js guest/guest.js";
    let mut arguments: Vec<&OsStr> = arguments.split(' ').map(OsStr::new).collect();
    arguments.extend(["--world".as_ref(), world.as_ref(), "--output".as_ref(), component.as_os_str()]);
    scripts.node(&arguments);
    component
}

fn push(server: &Server, component: &Path) -> std::process::Output {
    let manifest = npm::sources().join("guest/plugin.toml");
    let [component, manifest] = [component, manifest.as_path()].map(|path| path.to_str().unwrap());
    server.cli(&["plugin", "push", component, "--name", "foreign", "--manifest", manifest, "--grant"])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn a_plugin_in_javascript_decides_and_finds_nothing_of_the_host() {
    let server = Setup::demo().config("[kv.visits]").start();
    let scripts = Scripts::new();
    let pushed = push(&server, &build(&scripts, "guest"));
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));

    let client = server.client(&server.key("visitor", &[]));
    let answers = [client.chat("demo").await, client.chat("demo").await, client.chat("demo").await];
    assert_eq!(answers.each_ref().map(|answer| answer.status.as_u16()), [200, 200, 429]);
    assert!(answers[2].text().contains("you were here 2 times"), "{}", answers[2].text());

    let path = "/admin/v1/plugins/foreign/jobs/look-around";
    let response = server.client(ADMIN_TOKEN).send(Method::POST, path, Bytes::new()).await;
    let report = response.into_body().collect().await.unwrap().to_bytes();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let seen: Value = serde_json::from_str(report["summary"].as_str().unwrap()).unwrap();
    assert_eq!(seen["environment"], json!([]));
    assert_eq!(seen["arguments"], json!([]));
    assert_eq!(seen["folder"], Value::Null);
    assert_eq!(seen["directories"], json!([]));
    assert_eq!(seen["random"].as_array().unwrap().len(), 32);
    assert_ne!(seen["random"], seen["random_again"]);
    assert!(seen["wall_ms"].as_u64().unwrap() > 1_700_000_000_000, "{seen}");
    assert!(seen["ticks"].as_u64().unwrap() > 0, "{seen}");
    let log = server.log();
    for line in [
        r#"stream="stdout" line="look-around in the time of 60000 ms""#,
        r#"stream="stdout" line="and half a line more""#,
        r#"stream="stderr" line="nothing is wrong""#,
    ] {
        assert!(log.contains(&format!("a plugin wrote plugin=\"foreign\" {line}")), "no {line} in\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the npm registry; .ci/run runs it"]
async fn a_plugin_that_asks_for_the_network_is_refused_by_the_name_of_its_import() {
    let server = Setup::demo().config("[kv.visits]").start();
    let scripts = Scripts::new();
    let pushed = push(&server, &build(&scripts, "networked"));
    assert!(!pushed.status.success());
    let reason = String::from_utf8(pushed.stderr).unwrap();
    assert!(reason.contains("imports wasi:sockets/"), "{reason}");
}
