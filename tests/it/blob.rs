//! Plugins that keep blobs: in pieces through a small memory, within their grants and limits.

use http::StatusCode;
use serde_json::Value;
use tollgate_store::{BlobOptions, GetOptions, Got, Options, Store};

use crate::support::component::trapping;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Guest, Server, Setup, eventually};

/// The cases of the error variant.
const ACCESS_DENIED: &str = "0";
const NO_SUCH_STORE: &str = "1";
const TOO_LARGE: &str = "2";
const INVALID: &str = "4";

/// Writes 50 pieces of 60,000 sevens and reads them back in other pieces; its number is how many bytes came.
const THROUGH: &str =
    "(local $writer i32) (local $reader i32) (local $left i32) (local $bytes i32) (local $piece i32)
    (memory.fill (i32.const 200000) (i32.const 7) (i32.const 60000))
    (block $bad
        (br_if $bad (i32.eq (local.tee $writer (call $container)) (i32.const -1)))
        (local.set $reader (local.get $writer))
        (br_if $bad (i32.eq (local.tee $writer (call $writer (local.get $writer))) (i32.const -1)))
        (local.set $left (i32.const 50))
        (loop $more
            (call $write_piece (local.get $writer) (i32.const 200000) (i32.const 60000) (i32.const 1600))
            (br_if $bad (call $is_bad (i32.const 1600) (i32.const 1604)))
            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $finish (local.get $writer) (i32.const 1600))
        (br_if $bad (call $is_bad (i32.const 1600) (i32.const 1608)))
        (br_if $bad (i32.eq (local.tee $reader (call $reader (local.get $reader))) (i32.const -1)))
        (loop $more
            (call $read_piece (local.get $reader) (i32.const 70000) (i32.const 1600))
            (br_if $bad (call $is_bad (i32.const 1600) (i32.const 1604)))
            (local.set $piece (i32.load (i32.const 1608)))
            (if (i32.eqz (local.get $piece)) (then (return (call $ran (local.get $bytes)))))
            (if (i32.ne (i32.load8_u (i32.load (i32.const 1604))) (i32.const 7)) (then unreachable))
            (local.set $bytes (i32.add (local.get $bytes) (local.get $piece)))
            (br $more)))
    (call $refused)";

fn start(config: &str) -> Server {
    Setup::demo().config(config).start()
}

fn push(server: &Server, wasm: &[u8], grants: &str) -> Result<(), String> {
    let (file, manifest) = (server.home().join("keeper.wasm"), server.home().join("keeper.toml"));
    std::fs::write(&file, wasm).unwrap();
    std::fs::write(&manifest, format!("name = \"keeper\"\non-error = \"allow\"\n{grants}\n")).unwrap();
    let arguments =
        ["plugin", "push", file.to_str().unwrap(), "--manifest", manifest.to_str().unwrap(), "--grant"];
    let output = server.cli(&arguments);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

/// Runs the job of a guest that uses this container with these grants.
async fn run(server: &Server, container: &str, grants: &str, job: &str) -> (StatusCode, Value) {
    push(server, &Guest::new().blob(container).job(job).build(), grants).unwrap();
    let path = "/admin/v1/plugins/keeper/jobs/work";
    let answer = server.client(ADMIN_TOKEN).post(path, &Value::Null).await;
    (answer.status, serde_json::from_str(&answer.text()).unwrap())
}

/// The job ends with an error of this case.
async fn refused(server: &Server, container: &str, grants: &str, job: &str, case: &str) {
    let (status, answer) = run(server, container, grants, job).await;
    assert_ne!(status, StatusCode::OK, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.ends_with(&format!("failed: {case}")), "{message}");
}

const GRANTED: &str = "[grants.blob]\nimages = \"read-write\"";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_larger_than_a_plugins_memory_goes_through_it_piece_by_piece() {
    let mut server = start("[blob.images]\ncache_control = \"immutable\"");
    let (status, answer) = run(&server, "images", GRANTED, THROUGH).await;
    assert_eq!((status, &answer["changed"]), (StatusCode::OK, &Value::from(3_000_000)), "{answer}");
    assert_eq!(server.terminate(), Some(0));
    let store = Store::open(&server.home().join("data/tollgate.redb"), Options::default()).unwrap();
    let images = store.container("images", BlobOptions::default()).unwrap();
    let Got::Found(reader) = images.get("k", GetOptions::default()).await.unwrap() else { panic!() };
    assert_eq!(reader.info().cache_control.as_deref(), Some("immutable"));
    assert!(reader.read_all().await.unwrap() == vec![7; 3_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_reaches_only_the_containers_it_was_granted() {
    let server = start("[blob.images]\n[blob.private]");
    refused(&server, "private", GRANTED, THROUGH, ACCESS_DENIED).await;
    refused(&server, "none", GRANTED, THROUGH, NO_SUCH_STORE).await;
    refused(&server, "images", "[grants.blob]\nimages = \"read\"", THROUGH, ACCESS_DENIED).await;
    let wants = trapping("import tollgate:storage/blob@0.1.0; export tollgate:policy/admission@0.1.0;");
    let error = push(&server, &wants, "").unwrap_err();
    assert!(error.contains("tollgate:storage/blob@0.1.0"), "{error}");
    let error = push(&server, &wants, "[grants.blob]\nelsewhere = \"read\"").unwrap_err();
    assert!(error.contains("blob container \"elsewhere\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_over_the_containers_limit_is_refused_and_its_writer_is_of_no_use() {
    let server = start("[blob.images]\nobject_limit_bytes = 100000");
    refused(&server, "images", GRANTED, THROUGH, TOO_LARGE).await;
    let twice = "(local $writer i32)
        (local.set $writer (call $writer (call $container)))
        (call $finish (local.get $writer) (i32.const 1600))
        (if (call $is_bad (i32.const 1600) (i32.const 1608)) (then unreachable))
        (call $write_piece (local.get $writer) (i32.const 200000) (i32.const 10) (i32.const 1600))
        (if (i32.eqz (call $is_bad (i32.const 1600) (i32.const 1604))) (then unreachable))
        (call $finish (local.get $writer) (i32.const 1600))
        (drop (call $is_bad (i32.const 1600) (i32.const 1608)))
        (call $refused)";
    refused(&server, "images", GRANTED, twice, INVALID).await;
    limit(&server, "size").await;
}

/// A writer holds megabytes in the host, a reader a chunk of the object: neither can be piled up.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_cannot_pile_up_writers_or_readers() {
    let server = start("[blob.images]");
    let opens = |what: &str| {
        format!(
            "(local $container i32) (local $opened i32)
            (local.set $container (call $container))
            (loop $more
                (if (i32.ne (call ${what} (local.get $container)) (i32.const -1)) (then
                    (local.set $opened (i32.add (local.get $opened) (i32.const 1)))
                    (br $more))))
            (if (i32.ne (global.get $case) (i32.const {TOO_LARGE})) (then (return (call $refused))))
            (call $ran (local.get $opened))"
        )
    };
    let (status, answer) = run(&server, "images", GRANTED, &opens("writer")).await;
    assert_eq!((status, &answer["changed"]), (StatusCode::OK, &Value::from(4)), "{answer}");
    limit(&server, "handles").await;
    run(&server, "images", GRANTED, THROUGH).await;
    let (status, answer) = run(&server, "images", GRANTED, &opens("reader")).await;
    assert_eq!((status, &answer["changed"]), (StatusCode::OK, &Value::from(32)), "{answer}");
    // What the versions before held is free again.
    let (status, _) = run(&server, "images", GRANTED, THROUGH).await;
    assert_eq!(status, StatusCode::OK);
}

/// The plugin has run into this limit.
async fn limit(server: &Server, name: &str) {
    let label = format!("limit=\"{name}\"");
    eventually("the limit is counted", || async {
        let hits =
            server.metric_with("tollgate_plugin_limit_hits_total", &["plugin=\"keeper\"", &label]).await;
        (hits > 0.0).then_some(())
    })
    .await;
}
