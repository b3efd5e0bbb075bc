//! Plugins that search vectors: what they write is found, within their grants and limits.

use http::StatusCode;
use serde_json::Value;
use tollgate_store::{Options, Store, Target, VectorOptions, VectorQuery};

use crate::support::component::trapping;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Guest, Server, Setup, eventually};

/// The cases of the error variant.
const ACCESS_DENIED: &str = "0";
const NO_SUCH_STORE: &str = "1";
const TOO_LARGE: &str = "2";
const INVALID: &str = "4";

/// Searches by (1, 0) in namespace `k` for metadata with kind `k`, and ends with what it found: how many, the digit of the
/// nearest and whether its metadata is there, as the digits of its number.
const SEARCH: &str = "
    (call $query (call $index) (i32.const 0) (i32.const 1540) (i32.const 2)
        (i32.const 5) (i32.const 1) (i32.const 700) (i32.const 1) (i32.const 1) (i32.const 710) (i32.const 12)
        (i32.const 0) (i32.const 2) (i32.const 1600))
    (if (call $is_bad (i32.const 1600) (i32.const 1604)) (then (return (call $refused))))
    (call $ran (i32.add
        (i32.add
            (i32.mul (i32.load (i32.const 1608)) (i32.const 100))
            (i32.mul (i32.const 10)
                (i32.sub (i32.load8_u (i32.load (i32.load (i32.const 1604)))) (i32.const 48))))
        (i32.load8_u offset=40 (i32.load (i32.const 1604)))))";

/// Writes three vectors, whose second is nearest to (1, 0), and searches.
fn write_and_search() -> String {
    format!(
        "(f32.store (i32.const 1540) (f32.const 1))
        (call $vector (i32.const 0) (f32.const -1) (f32.const 0.5))
        (call $vector (i32.const 1) (f32.const 3) (f32.const 0.1))
        (call $vector (i32.const 2) (f32.const 0.5) (f32.const 0.5))
        (if (i32.eq (call $index) (i32.const -1)) (then (return (call $refused))))
        (call $upsert (call $index) (i32.const 2048) (i32.const 3) (i32.const 1600))
        (if (call $is_bad (i32.const 1600) (i32.const 1604)) (then (return (call $refused))))
        {SEARCH}"
    )
}

/// Only searches.
fn search() -> String {
    format!("(f32.store (i32.const 1540) (f32.const 1)) {SEARCH}")
}

const CAPTIONS: &str = "[vector.captions]\ndimensions = 2\nindexed = [\"kind\"]";

const GRANTED: &str = "[grants.vector]\ncaptions = \"read-write\"";

const READABLE: &str = "[grants.vector]\ncaptions = \"read\"";

fn start(config: &str) -> Server {
    Setup::demo().config(config).start()
}

fn push(server: &Server, wasm: &[u8], grants: &str) -> Result<(), String> {
    let (file, manifest) = (server.home().join("seeker.wasm"), server.home().join("seeker.toml"));
    std::fs::write(&file, wasm).unwrap();
    std::fs::write(&manifest, format!("name = \"seeker\"\non-error = \"allow\"\n{grants}\n")).unwrap();
    let arguments =
        ["plugin", "push", file.to_str().unwrap(), "--manifest", manifest.to_str().unwrap(), "--grant"];
    let output = server.cli(&arguments);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

/// Runs the job of a guest that uses this index with these grants.
async fn run(server: &Server, index: &str, grants: &str, job: &str) -> (StatusCode, Value) {
    push(server, &Guest::new().vector(index).job(job).build(), grants).unwrap();
    let path = "/admin/v1/plugins/seeker/jobs/work";
    let answer = server.client(ADMIN_TOKEN).post(path, &Value::Null).await;
    (answer.status, serde_json::from_str(&answer.text()).unwrap())
}

/// The job ends with this number.
async fn found(server: &Server, grants: &str, job: &str, number: u64) {
    let (status, answer) = run(server, "captions", grants, job).await;
    assert_eq!((status, &answer["changed"]), (StatusCode::OK, &Value::from(number)), "{answer}");
}

/// The job ends with an error of this case.
async fn refused(server: &Server, index: &str, grants: &str, job: &str, case: &str) {
    let (status, answer) = run(server, index, grants, job).await;
    assert_ne!(status, StatusCode::OK, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.ends_with(&format!("failed: {case}")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_finds_what_it_wrote_and_so_does_another_after_a_crash() {
    let mut server = start(CAPTIONS);
    found(&server, GRANTED, &write_and_search(), 311).await;
    server.crash_and_restart();
    found(&server, READABLE, &search(), 311).await;
    assert_eq!(server.terminate(), Some(0));
    let store = Store::open(&server.home().join("data/tollgate.redb"), Options::default()).unwrap();
    let options = VectorOptions { indexed: vec!["kind".to_owned()], ..VectorOptions::new(2) };
    let captions = store.index("captions", options).unwrap();
    let matches = captions.query(VectorQuery::new(Target::Id("1".to_owned()))).await.unwrap();
    assert_eq!(matches.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["1", "2", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_reaches_only_the_indexes_it_was_granted() {
    let server = start(&format!("{CAPTIONS}\n[vector.private]\ndimensions = 2"));
    refused(&server, "private", GRANTED, &write_and_search(), ACCESS_DENIED).await;
    refused(&server, "none", GRANTED, &write_and_search(), NO_SUCH_STORE).await;
    refused(&server, "captions", READABLE, &write_and_search(), ACCESS_DENIED).await;
    found(&server, GRANTED, &write_and_search(), 311).await;
    let wants = trapping("import tollgate:storage/vector@0.1.0; export tollgate:policy/admission@0.1.0;");
    let error = push(&server, &wants, "").unwrap_err();
    assert!(error.contains("tollgate:storage/vector@0.1.0"), "{error}");
    let error = push(&server, &wants, "[grants.vector]\nelsewhere = \"read\"").unwrap_err();
    assert!(error.contains("vector index \"elsewhere\""), "{error}");
    let file = server.home().join("seeker.wasm");
    std::fs::write(&file, Guest::new().vector("captions").job(&search()).build()).unwrap();
    let said = server.cli_ok(&["plugin", "inspect", file.to_str().unwrap()]);
    assert!(said.contains("grants.vector"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_vector_of_the_index_is_refused_and_the_plugin_goes_on() {
    /// The list with one vector.
    const ONE: &str = "(i32.const 2048) (i32.const 1)";
    let server = start(CAPTIONS);
    let writes = |list: &str, x: &str, values: &str| {
        format!(
            "(call $vector (i32.const 0) (f32.const {x}) (f32.const 0))
            (i32.store (i32.const 2060) (i32.const {values}))
            (call $upsert (call $index) {list} (i32.const 1600))
            (drop (call $is_bad (i32.const 1600) (i32.const 1604)))
            (call $refused)"
        )
    };
    refused(&server, "captions", GRANTED, &writes(ONE, "nan", "2"), INVALID).await;
    refused(&server, "captions", GRANTED, &writes(ONE, "inf", "2"), INVALID).await;
    refused(&server, "captions", GRANTED, &writes(ONE, "1", "1"), INVALID).await;
    // Vectors without name and values, in memory that nothing else uses.
    let many = "(i32.const 100000) (i32.const 1001)";
    refused(&server, "captions", GRANTED, &writes(many, "1", "2"), TOO_LARGE).await;
    let label = "limit=\"size\"";
    eventually("the limit is counted", || async {
        let hits =
            server.metric_with("tollgate_plugin_limit_hits_total", &["plugin=\"seeker\"", label]).await;
        (hits > 0.0).then_some(())
    })
    .await;
    found(&server, GRANTED, &write_and_search(), 311).await;
}
