//! A plugin that writes into its store for as long as it is let.

use super::House;
use crate::support::server::ADMIN_TOKEN;
use crate::support::{Guest, guest::JOB_ENDS};

/// A job that writes values of 100,000 bytes under one letter after the other, and ends with the case of the error that stops it.
fn filler(store: &str) -> Guest {
    Guest::new().kv(store).define(JOB_ENDS).job(
        "(local.set 0 (i32.const 0))
        (loop $on
            (i32.store8 (i32.const 1536) (i32.add (i32.const 65) (local.get 0)))
            (call $set (call $store) (i32.const 1536) (i32.const 1) (i32.const 0) (i32.const 100000)
                (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 800))
            (if (i32.eqz (i32.load8_u (i32.const 800))) (then
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br_if $on (i32.lt_u (local.get 0) (i32.const 50)))
                (return (call $ran (local.get 0))))))
        (global.set $case (i32.load8_u (i32.const 804)))
        (call $refused)",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fills_its_store_is_told_and_nobody_elses_store_is_smaller() {
    let house = House::with(&filler("small"), "").await;
    let server = &house.server;
    let too_large = house.job().await;
    assert!(too_large.text().contains("failed: 2"), "{}", too_large.text());
    assert_eq!(server.cli_ok(&["kv", "list", "small"]).lines().collect::<Vec<_>>(), ["A", "B"]);
    house.named("store-bytes", "").await;
    house.never_trapped().await;
    assert_eq!(server.metric_with("tollgate_kv_bytes", &["store=\"small\""]).await, 200_002.0);
    // Whoever else writes there is told too, and other stores take as much.
    let admin = server.client(ADMIN_TOKEN);
    let write = async |store: &str| {
        let path = format!("/admin/v1/kv/{store}/more");
        admin.call(http::Method::PUT, &path, &[], "v".repeat(100_000)).await
    };
    let full = write("small").await;
    assert_eq!((full.status.as_u16(), &full.json()["error"]["code"]), (507, &"full".into()));
    assert_eq!(write("hostile").await.status, 200);
    let path = "/admin/v1/kv/small/B";
    let replaced = admin.call(http::Method::PUT, path, &[], "w".repeat(100_000)).await;
    assert_eq!(replaced.status, 200, "it grows by nothing");
    server.cli_ok(&["kv", "delete", "small", "A"]);
    assert_eq!(write("small").await.status, 200);
    house.serves_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_waits_for_no_disk_or_has_none_is_filled_no_further_than_its_limit() {
    for (store, most) in [("hasty", 300_000), ("brief", 4 << 20)] {
        let house = House::with(&filler(store), "").await;
        let server = &house.server;
        let too_large = house.job().await;
        assert!(too_large.text().contains("failed: 2"), "{}", too_large.text());
        let written = server.cli_ok(&["kv", "list", store]).lines().count();
        assert_eq!(written, most / 100_001, "{store}");
        // Those who share its memory are not told.
        let path = "/admin/v1/kv/fleeting/k";
        let admin = server.client(ADMIN_TOKEN);
        assert_eq!(admin.call(http::Method::PUT, path, &[], "v".repeat(100_000)).await.status, 200);
        house.never_trapped().await;
        house.serves_on().await;
    }
}
