//! Plugins that our toolchain did not build: what the runtimes of other languages import is there, and leads nowhere.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::npm::{self, Scripts};
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Server, Setup};

/// Makes a component of `tests/portability/guest/guest.js` for one of the worlds beside it.
fn build(scripts: &Scripts, world: &str) -> PathBuf {
    npm::copy(&npm::sources().join("../../wit"), &scripts.path("guest/wit/deps"));
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
    server.cli(&["plugin", "push", component, "--name", "foreign", "--manifest", manifest])
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
