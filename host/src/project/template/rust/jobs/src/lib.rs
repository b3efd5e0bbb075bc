//! Counts the requests of the last hour, every minute, into a kv store where any policy can read them fast.

use tollgate_guest::database::{self, Value};
use tollgate_guest::jobs::{Budget, Guest, Job, Report, Timing};
use tollgate_guest::kv::{self, SetOptions};

struct Plugin;
tollgate_guest::jobs::export!(Plugin);
thread_local! {
    static GATEWAY: database::Named = const { database::Named::new("gateway") };
    static COUNTS: kv::Named = const { kv::Named::new("PLUGIN-NAME") };
}

const HOUR_MS: u64 = 3_600_000;
const COUNT: &str = "SELECT count(*) FROM request_logs WHERE timestamp > ?1";

impl Guest for Plugin {
    fn schedule() -> Vec<Job> {
        vec![Job { name: "count".into(), timing: Timing::Every(60_000) }]
    }

    fn run(_: String, budget: Budget) -> Result<Report, String> {
        let since = Value::Integer(begin(budget.now_ms));
        let rows = GATEWAY.with(|database| database.query(COUNT, vec![since]))?.rows;
        let Some([Value::Integer(requests)]) = rows.first().map(Vec::as_slice) else {
            return Err("the count has no row".into());
        };
        // It is gone when this job no longer runs.
        let options = SetOptions { ttl_ms: Some(HOUR_MS), if_absent: false };
        let value = requests.to_string();
        COUNTS.with(|store| {
            let set = store.get()?.set("last-hour", value.as_bytes(), options);
            set.map_err(|error| store.explain(&error))
        })?;
        Ok(Report { changed: 1, summary: format!("{requests} requests in the last hour") })
    }
}

/// When the last hour began, in milliseconds since 1970.
fn begin(now_ms: u64) -> i64 {
    i64::try_from(now_ms.saturating_sub(HOUR_MS)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_began_an_hour_ago() {
        assert_eq!(begin(1_700_000_000_000), 1_699_996_400_000);
        assert_eq!(begin(0), 0);
    }
}
