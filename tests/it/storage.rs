//! What operators do with the store: look into it, check it, give space back.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::server::ADMIN_TOKEN;
use crate::support::{Server, Setup};

const STORES: &str = "[kv.notes]\n[blob.images]\n[sql.reports]\n[vector.captions]\ndimensions = 2";

/// Something in each of the stores.
async fn fill(server: &Server) {
    let scopes = ["--kv", "notes:read-write", "--blob", "images:read-write", "--sql", "reports:read-write"];
    let arguments =
        [&["token", "create", "--name", "app", "--vector", "captions:read-write"], &scopes[..]].concat();
    let app = server.client(&server.cli_ok(&arguments));
    for (method, path, body) in [
        (Method::PUT, "/api/kv/notes/a", "12345".to_owned()),
        (Method::PUT, "/api/kv/notes/b", "12345".to_owned()),
        (Method::PUT, "/api/blob/images/a", "x".repeat(200_000)),
        (Method::PUT, "/api/blob/images/b", "x".repeat(200_000)),
        (
            Method::POST,
            "/api/sql/reports",
            json!({ "batch": [{ "sql": "CREATE TABLE t (n)" },
            { "sql": "INSERT INTO t VALUES (1), (2), (3)" }] })
            .to_string(),
        ),
        (
            Method::POST,
            "/api/vector/captions",
            json!({ "upsert": [{ "id": "a", "values": [1, 0] }] }).to_string(),
        ),
    ] {
        let answer = app.call(method, path, &[], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    }
}

fn line<'a>(table: &'a str, begins: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.starts_with(begins));
    line.unwrap_or_else(|| panic!("no {begins}:\n{table}")).split('\t').collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_is_in_each_store_and_in_the_file() {
    let server = Setup::demo().config(STORES).start();
    fill(&server).await;
    let stats = server.cli_ok(&["store", "stats"]);
    assert_eq!(line(&stats, "kv\tnotes\t")[2..5], ["2", "12", "0"]);
    assert_eq!(line(&stats, "sql\treports\t")[2], "3");
    assert_eq!(line(&stats, "vector\tcaptions\t")[2..5], ["1", "8", "0"]);
    let images = line(&stats, "blob\timages\t");
    assert!(
        images[2] == "2" && images[5].contains("object_bytes=400000") && images[5].contains("references=4"),
        "{images:?}"
    );
    assert!(images[3].parse::<u64>().unwrap() < 200_000, "stored once, and compressed: {images:?}");
    // What the server keeps for itself is shown too.
    assert_eq!(line(&stats, "kv\thost/tokens\t")[2], "2");
    assert!(line(&stats, "file_bytes\t")[1].parse::<u64>().unwrap() > 100_000, "{stats}");
    assert!(std::path::Path::new(line(&stats, "path\t")[1]).ends_with("data/tollgate.redb"), "{stats}");
    // The components of the shipped plugins are objects too.
    assert!(line(&stats, "blob-objects\t")[1].parse::<u64>().unwrap() > 2, "{stats}");

    let one: Value =
        serde_json::from_str(&server.cli_ok(&["store", "stats", "sql/reports", "--json"])).unwrap();
    assert_eq!(one["stores"][0]["tables"], json!({ "t": 3 }));
    assert_eq!(one["file"], Value::Null);
    for (arguments, reason) in [
        (["store", "stats", "kv/nothing"], "there is no kv store `nothing`"),
        (["store", "check", "cache/notes"], "there is no cache store `notes`"),
        (["store", "check", "notes"], "write one like kv/notes"),
    ] {
        let output = server.cli(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(reason), "{arguments:?}: {said}");
    }
    let tokenless = server.client("").get("/admin/v1/storage/file").await;
    assert_eq!(tokenless.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_while_the_server_serves_finds_all_in_order_and_stands_in_the_audit_log() {
    let server = Setup::demo().config(STORES).start();
    fill(&server).await;
    let key = server.key("load", &[]);
    let client = server.client(&key);
    let load = tokio::spawn(async move {
        let mut served = 0;
        loop {
            assert_eq!(client.chat("demo").await.status, StatusCode::OK);
            served += 1;
            if served >= 200 {
                return;
            }
        }
    });
    for _ in 0..3 {
        let said = server.cli_ok(&["store", "check"]);
        for store in ["kv/notes", "kv/host/tokens", "sql/gateway", "blob/images", "vector/captions"] {
            assert!(said.contains(&format!("{store}\tok")), "{said}");
        }
    }
    load.await.unwrap();
    let admin = server.client(ADMIN_TOKEN);
    let answer = admin.call(Method::POST, "/admin/v1/storage/kv/host%2Ftokens/check", &[], "").await;
    assert_eq!((answer.status, &answer.json()["problems"]), (StatusCode::OK, &json!([])));
    let refused = admin.call(Method::POST, "/admin/v1/storage/kv/nothing/check", &[], "").await;
    assert_eq!(refused.error(), (404, "not_found".to_owned()));
    let audit = server.cli_ok(&["audit", "list", "--action", "storage check", "--limit", "3"]);
    assert!(audit.contains("storage check\tkv/host/tokens\ttrue"), "{audit}");
    assert!(audit.contains("storage check\t\tfalse\tnot_found"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_gives_space_back_and_has_everything_afterwards() {
    let mut server = Setup::demo().config(STORES).start();
    fill(&server).await;
    let data = server.home().join("data").to_str().unwrap().to_owned();
    let compact = ["store", "compact", "--data", &data, "--json"];
    let output = server.cli(&compact);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("another server (process"), "{said}");
    let insert = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO t SELECT hex(randomblob(1000)) FROM n";
    server.cli_ok(&["sql", "reports", insert]);
    server.cli_ok(&["sql", "reports", "DELETE FROM t WHERE n > 3"]);
    server.cli_ok(&["sql", "reports", "VACUUM"]);
    assert_eq!(server.terminate(), Some(0));
    let before = std::fs::metadata(server.home().join("data/tollgate.redb")).unwrap().len();
    let done: Value = serde_json::from_str(&server.cli_ok(&compact)).unwrap();
    let after = std::fs::metadata(server.home().join("data/tollgate.redb")).unwrap().len();
    assert_eq!(done, json!({ "before_bytes": before, "after_bytes": after }));
    assert!(after < before / 2, "{done}");

    server.crash_and_restart();
    let stats = server.cli_ok(&["store", "stats"]);
    assert_eq!(line(&stats, "sql\treports\t")[2], "3");
    assert_eq!(line(&stats, "blob\timages\t")[2], "2");
    server.cli_ok(&["store", "check"]);
    let audit = server.cli_ok(&["audit", "list"]);
    assert!(audit.contains("command line\tstorage compact\t\ttrue"), "{audit}");
    let nowhere = server.home().join("nowhere");
    let output = server.cli(&["store", "compact", "--data", nowhere.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("there is no store in"), "{said}");
    assert!(!nowhere.exists());
}
