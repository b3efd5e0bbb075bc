//! The plugin that takes events.

use tollgate_store::sql::{Statement, Value};

use super::*;
use crate::plugin::EventRecord;

#[tokio::test]
async fn a_second_plugin_for_events_is_refused_while_one_takes_them() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), SHIPPED).await;
    let name = "name = \"ingestion\"";
    let Shipped { wasm, manifest } = SHIPPED.iter().find(|shipped| shipped.manifest.contains(name)).unwrap();
    let push =
        |name: &'static str, manifest| house.registry.push(name, wasm.to_vec(), Some(manifest), "tester");
    push("ingestion", (*manifest).to_owned()).await.unwrap();
    let refusal = push("audit", manifest.replace(name, "name = \"audit\"")).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Ingesting { by } if by == "ingestion"), "{refusal}");
    assert_eq!(house.registry.list().await.unwrap().len(), SHIPPED.len());
    house.close().await;
}

#[tokio::test]
async fn every_event_is_ingested_exactly_once_whenever_the_host_stops() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let house = House::open(home.path(), SHIPPED).await;
        for number in 0..300 {
            let request_id = format!("{round}-{number}");
            house.registry.events().record(EventRecord { request_id, ..EventRecord::default() }).unwrap();
        }
        if round < 3 {
            // Stops in the midst of it.
            house.registry.inner.ingestion.stop().await;
        }
        house.close().await;
    }
    let house = House::open(home.path(), SHIPPED).await;
    assert!(house.registry.inner.ingestion.flush(Duration::from_secs(20)).await);
    let sql = "SELECT count(*), count(DISTINCT id) FROM request_logs";
    let database = house.store.database("gateway").unwrap();
    let rows = database.query(Statement::new(sql, Vec::new())).await.unwrap().rows;
    assert_eq!(rows, [[Value::Integer(1_200), Value::Integer(1_200)]]);
    house.close().await;
}

#[tokio::test]
async fn events_of_which_no_two_are_alike_are_ingested_without_a_failure() {
    let home = tempfile::tempdir().unwrap();
    let house = House::open(home.path(), SHIPPED).await;
    // More than a batch, each by another client, on another account, for another model, and an error.
    const EVENTS: i64 = 5_000;
    for number in 0..EVENTS {
        let record = EventRecord {
            request_id: format!("{number}"),
            client_key_hash: format!("{number:064x}"),
            api_key_hash: format!("{number:064x}"),
            model: format!("{number:0200}"),
            time_ms: 1_700_000_000_000,
            status_code: 500,
            has_error: true,
            error_message: Some("m".repeat(200)),
            ..EventRecord::default()
        };
        house.registry.events().record(record).unwrap();
    }
    assert!(house.registry.inner.ingestion.flush(Duration::from_secs(120)).await);
    let plugins = house.registry.list().await.unwrap();
    let ingestion = plugins.iter().find(|plugin| plugin.name == "ingestion").unwrap();
    let sql = "SELECT (SELECT count(*) FROM request_logs), (SELECT count(*) FROM error_logs), (SELECT count(*) FROM usage_daily),
        (SELECT unique_keys FROM system_stats), (SELECT active_accounts FROM system_stats)";
    let database = house.store.database("gateway").unwrap();
    let rows = database.query(Statement::new(sql, Vec::new())).await.unwrap().rows;
    assert_eq!(rows, [[EVENTS, EVENTS, 2 * EVENTS, EVENTS, EVENTS].map(Value::Integer)]);
    assert_eq!((ingestion.traps, ingestion.errors), (0, 0));
    house.close().await;
}
