//! What a plugin can do off the way of a request: in `settle`, in `init`, in a job.

use super::{COUNTED, House};
use crate::support::guest::DONE;
use crate::support::{Guest, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_settle_loses_its_own_settlements_and_no_other() {
    let house = House::with(&Guest::new().settle("unreachable"), "").await;
    house.serves_on().await;
    let of = |plugin: &str| format!("plugin=\"{plugin}\"");
    let (hostile, quota) = (of("hostile"), of("quota"));
    eventually("the settlements of the hostile plugin are given up", || async {
        let lost = house.server.metric_with("tollgate_settlements_lost_total", &[&hostile]).await;
        (lost > 0.0).then_some(())
    })
    .await;
    eventually("all leases are settled", || async {
        (house.server.metric("tollgate_leases_open").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(house.server.metric_with("tollgate_settlements_lost_total", &[&quota]).await, 0.0);
    assert!(house.server.metric_with("tollgate_settlements_total", &[&quota]).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_that_never_returns_holds_up_no_other_plugin() {
    let house = House::with(&Guest::new().settle("(loop $on (br $on)) unreachable"), "").await;
    house.serves_on().await;
    house.overran("settle", "ran over its deadline of 50 ms").await;
    let client = house.server.client(&house.server.key("limited", &["--rpm", "1000"]));
    for _ in 0..50 {
        assert_eq!(client.chat("gpt-test").await.status, 200);
    }
    let quota = "plugin=\"quota\"";
    eventually("quota has settled everything", || async {
        let settled = house.server.metric_with("tollgate_settlements_total", &[quota]).await;
        // The client of each request, of those before too.
        (settled >= (COUNTED + 50) as f64).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_that_never_returns_is_refused_at_its_deadline() {
    let house = House::open().await;
    let guest = Guest::new().init("(loop $on (br $on)) unreachable");
    let output = house.push(&guest.build(), "init-deadline-ms = 100");
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("init: ran over its deadline of 100 ms"), "{message}");
    house.serves_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_served_while_an_init_does_not_return() {
    let house = House::open().await;
    let guest = Guest::new().init("(loop $on (br $on)) unreachable").build();
    let push = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let push = scope.spawn(|| house.push(&guest, "init-deadline-ms = 3000"));
            tokio::runtime::Handle::current().block_on(house.serves_on());
            assert!(!push.is_finished(), "the requests waited for the push");
            push.join().unwrap()
        })
    });
    assert_eq!(push.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_never_returns_ends_at_its_deadline_and_requests_are_served_meanwhile() {
    let house =
        House::with(&Guest::new().job("(loop $on (br $on)) unreachable"), "job-deadline-ms = 3000").await;
    let server = &house.server;
    let failed = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                let path = "/admin/v1/plugins/hostile/jobs/work";
                tokio::runtime::Runtime::new().unwrap().block_on(
                    server.client(crate::support::server::ADMIN_TOKEN).post(path, &serde_json::Value::Null),
                )
            });
            tokio::runtime::Handle::current().block_on(house.serves_on());
            assert!(!run.is_finished(), "the requests waited for the job");
            run.join().unwrap()
        })
    });
    assert!(failed.text().contains("ran over its deadline of 3000 ms"), "{}", failed.text());
    house.overran("run", "job failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_init_is_refused_by_its_name() {
    let house = House::open().await;
    let output = house.push(&Guest::new().init("unreachable").build(), "");
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("init: trapped"), "{message}");
    let good = house.push(&Guest::new().init(DONE).build(), "");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    house.serves_on().await;
}
