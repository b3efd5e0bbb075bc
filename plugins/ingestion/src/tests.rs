//! The statements on real SQLite, against totals counted by hand.

use rusqlite::{Connection, params_from_iter, types::Value as Sqlite};

use tollgate_guest::ingestion::Attempt;

use super::*;

struct Gateway(Connection);

impl Gateway {
    fn new() -> Gateway {
        let connection = Connection::open_in_memory().unwrap();
        // Preparing again must be harmless.
        for sql in TABLES.iter().chain(&TABLES) {
            connection.execute_batch(sql).unwrap();
        }
        Gateway(connection)
    }

    /// Runs a batch as the host does: all of it or nothing.
    fn batch(&mut self, statements: &[Statement]) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        for statement in statements {
            let params = statement.params.iter().map(|value| match value {
                Value::Null => Sqlite::Null,
                Value::Integer(number) => Sqlite::Integer(*number),
                Value::Real(number) => Sqlite::Real(*number),
                Value::Text(text) => Sqlite::Text(text.clone()),
                Value::Blob(bytes) => Sqlite::Blob(bytes.clone()),
            });
            transaction.execute(&statement.sql, params_from_iter(params))?;
        }
        transaction.commit()
    }

    fn ingest(&mut self, last: u64, events: &[Event]) -> rusqlite::Result<()> {
        let newest = events.last().map_or(last, |event| event.sequence);
        self.batch(&statements(last, newest, events))
    }

    /// Adds the columns that are missing, and returns how many they were.
    fn migrate(&self) -> usize {
        let mut query = self.0.prepare(PRESENT).unwrap();
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let present: Vec<(String, String)> = query.query_map([], pair).unwrap().map(Result::unwrap).collect();
        let present: Vec<_> =
            present.iter().map(|(table, column)| (table.as_str(), column.as_str())).collect();
        let additions = additions(&present);
        additions.iter().for_each(|sql| self.0.execute_batch(sql).unwrap());
        additions.len()
    }

    /// One row of numbers, NULL as -1.
    fn numbers(&self, sql: &str) -> Vec<f64> {
        self.0
            .query_row(sql, [], |row| {
                let columns = row.as_ref().column_count();
                (0..columns).map(|column| Ok(row.get::<_, Option<f64>>(column)?.unwrap_or(-1.0))).collect()
            })
            .unwrap()
    }

    fn health(&self) -> Vec<f64> {
        self.numbers("SELECT is_healthy, consecutive_failures FROM api_key_metrics")
    }
}

fn event(sequence: u64, status_code: u16) -> Event {
    Event {
        sequence,
        request_id: format!("request-{sequence}"),
        time_ms: 1_000 + sequence,
        client_type: "openai".to_owned(),
        client_ip: "127.0.0.1".to_owned(),
        user_agent: "test".to_owned(),
        client_key_hash: "client".to_owned(),
        client_name: "c".to_owned(),
        api_key_hash: "account".to_owned(),
        account_name: "a".to_owned(),
        model: "m".to_owned(),
        original_model: "alias".to_owned(),
        endpoint: "/v1/chat/completions".to_owned(),
        method: "POST".to_owned(),
        referer: "https://example.com/".to_owned(),
        response_time_ms: 10 * sequence,
        status_code,
        input_tokens: 3,
        output_tokens: 4,
        cache_read_tokens: 2,
        cache_write_tokens: 1,
        reasoning_tokens: 3,
        token_source: "reported".to_owned(),
        cost: Some(7),
        is_stream: true,
        has_error: status_code >= 400,
        error_type: error_type(status_code).to_owned(),
        error_message: (status_code >= 400).then(|| "broken".to_owned()),
        request_size: 5,
        response_size: 6,
        attempts: Vec::new(),
    }
}

/// What the error of an event with this status is taken for.
fn error_type(status: u16) -> &'static str {
    match status {
        ..400 => "",
        401 => "upstream_auth",
        403 => "auth",
        408 => "client_timeout",
        429 => "upstream_rate_limit",
        499 => "client_closed",
        400..500 => "invalid_request",
        504 => "upstream_timeout",
        _ => "upstream",
    }
}

fn attempt(account: &str, error_type: &str) -> Attempt {
    Attempt {
        api_key_hash: account.to_owned(),
        account_name: account.to_uppercase(),
        model: "m".to_owned(),
        error_type: error_type.to_owned(),
        status_code: 429,
        message: "full".to_owned(),
        response_time_ms: 4,
    }
}

const TOTALS: &str = "SELECT total_requests, successful_requests, failed_requests, total_response_time,
    average_response_time, last_response_time, min_response_time, max_response_time, is_healthy, last_check,
    consecutive_failures, last_failure, total_input_tokens, total_output_tokens, total_tokens, last_used, first_seen,
    created_at, updated_at, total_cost FROM api_key_metrics";

#[test]
fn totals_do_not_depend_on_how_events_are_cut_into_batches() {
    let statuses = [200, 500, 200, 429, 400, 200, 503, 499, 503];
    let events: Vec<Event> = (1..).zip(statuses).map(|(sequence, status)| event(sequence, status)).collect();
    let expected = [
        9.0, 3.0, 6.0, 450.0, 50.0, 90.0, 10.0, 90.0, 1.0, 1_009.0, 2.0, 1_009.0, 27.0, 36.0, 63.0, 1_009.0,
        1_001.0, 1_001.0, 1_009.0, 63.0,
    ];
    for size in 1..=events.len() {
        let mut gateway = Gateway::new();
        let mut last = 0;
        for batch in events.chunks(size) {
            gateway.ingest(last, batch).unwrap();
            last = batch.last().unwrap().sequence;
        }
        assert_eq!(gateway.numbers(TOTALS), expected, "in batches of {size}");
        let rows = "SELECT count(*), sum(sequence), sum(has_error), sum(total_tokens) FROM request_logs";
        assert_eq!(gateway.numbers(rows), [9.0, 45.0, 6.0, 63.0]);
    }
}

#[test]
fn a_table_of_an_earlier_version_gets_the_new_columns_and_keeps_its_rows() {
    let added = [
        "cache_read_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "token_source",
        "cost",
        "error_type TEXT NOT NULL DEFAULT",
        "attempt INTEGER",
        "total_cost",
    ];
    let mut gateway = Gateway(Connection::open_in_memory().unwrap());
    for sql in
        TABLES.into_iter().filter(|sql| !["system_stats", "usage_daily"].iter().any(|new| sql.contains(new)))
    {
        let lines = sql.lines().filter(|line| !added.iter().any(|column| line.trim().starts_with(column)));
        gateway.0.execute_batch(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    let is_added = |column: &&str| added.iter().any(|added| added.split(' ').next() == Some(column));
    let earlier = COLUMNS.into_iter().filter(|column| !is_added(column)).collect::<Vec<_>>();
    let insert = format!("INSERT INTO request_logs ({}) VALUES (1{})", earlier.join(", "), ", 0".repeat(22));
    gateway.0.execute(&insert, []).unwrap();
    // As `init` does: the tables that are missing, then the columns.
    for sql in TABLES {
        gateway.0.execute_batch(sql).unwrap();
    }
    assert_eq!((gateway.migrate(), gateway.migrate()), (8, 0));
    gateway.ingest(0, &[Event { attempts: vec![attempt("b", "upstream")], ..event(2, 200) }]).unwrap();
    let sums =
        "SELECT count(*), sum(cache_read_tokens), sum(cache_write_tokens), sum(reasoning_tokens), sum(cost)
        FROM request_logs";
    assert_eq!(gateway.numbers(sums), [2.0, 2.0, 1.0, 3.0, 7.0]);
}

#[test]
fn a_batch_changes_nothing_when_the_state_has_moved() {
    let mut gateway = Gateway::new();
    gateway.ingest(0, &[event(1, 200), event(2, 200)]).unwrap();
    gateway.ingest(0, &[event(1, 200), event(2, 200), event(3, 200)]).unwrap_err();
    gateway.ingest(1, &[event(2, 200), event(3, 200)]).unwrap_err();
    assert_eq!(gateway.numbers("SELECT total_requests FROM api_key_metrics"), [2.0]);
    assert_eq!(gateway.numbers("SELECT count(*), max(sequence) FROM request_logs"), [2.0, 2.0]);
    assert_eq!(gateway.numbers("SELECT count(*), sum(last_sequence) FROM ingestion_state"), [1.0, 2.0]);
}

#[test]
fn failures_in_a_row_make_an_account_unhealthy_and_a_success_heals_it() {
    let mut gateway = Gateway::new();
    gateway.ingest(0, &[event(1, 500), event(2, 500), event(3, 500)]).unwrap();
    assert_eq!(gateway.health(), [1.0, 3.0]);
    gateway.ingest(3, &[event(4, 499), event(5, 500)]).unwrap();
    assert_eq!(gateway.health(), [1.0, 4.0]);
    gateway.ingest(5, &[event(6, 401)]).unwrap();
    assert_eq!(gateway.health(), [0.0, 5.0]);
    gateway.ingest(6, &[event(7, 400)]).unwrap();
    assert_eq!(gateway.health(), [0.0, 5.0]);
    gateway.ingest(7, &[event(8, 200)]).unwrap();
    assert_eq!(gateway.health(), [1.0, 0.0]);
}

#[test]
fn an_attempt_that_another_account_made_good_counts_for_the_account_that_failed() {
    let mut gateway = Gateway::new();
    let made_good = |sequence| Event {
        attempts: vec![attempt("first", "upstream_auth"), attempt("second", "upstream_rate_limit")],
        ..event(sequence, 200)
    };
    gateway.ingest(0, &[made_good(1)]).unwrap();
    gateway.ingest(1, &[made_good(2), event(3, 503)]).unwrap();
    let of = |account: &str| {
        gateway.numbers(&format!(
            "SELECT total_requests, successful_requests, failed_requests, total_response_time, is_healthy,
                consecutive_failures, last_failure, total_tokens FROM api_key_metrics WHERE api_key_hash = '{account}'"
        ))
    };
    assert_eq!(of("first"), [2.0, 0.0, 2.0, 8.0, 1.0, 2.0, 1_002.0, 0.0]);
    assert_eq!(of("second"), of("first"));
    assert_eq!(of("account"), [3.0, 2.0, 1.0, 60.0, 1.0, 1.0, 1_003.0, 21.0]);
    let day =
        "SELECT total_requests, failed_requests, rate_limits, auth_errors, active_accounts FROM system_stats";
    assert_eq!(gateway.numbers(day), [3.0, 1.0, 0.0, 0.0, 3.0], "requests are those of clients");
    let rows =
        "SELECT group_concat(sequence || ' ' || attempt || ' ' || request_id || ' ' || error_type || ' '
            || status_code || ' ' || message || ' ' || json_extract(context, '$.account_name'), '; ')
        FROM (SELECT * FROM error_logs ORDER BY request_id, attempt)";
    let found: String = gateway.0.query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(
        found,
        "-1 1 request-1 upstream_auth 429 full FIRST; -2 2 request-1 upstream_rate_limit 429 full SECOND; \
         -3 1 request-2 upstream_auth 429 full FIRST; -4 2 request-2 upstream_rate_limit 429 full SECOND; \
         3 0 request-3 upstream 503 broken a"
    );
}

#[test]
fn a_request_that_reached_no_account_is_logged_and_counts_for_none() {
    let mut gateway = Gateway::new();
    let unplaced = Event { api_key_hash: String::new(), ..event(1, 429) };
    gateway.ingest(0, &[unplaced]).unwrap();
    assert_eq!(gateway.numbers("SELECT count(*) FROM api_key_metrics"), [0.0]);
    assert_eq!(gateway.numbers("SELECT count(*) FROM request_logs"), [1.0]);
}

#[test]
fn searches_of_the_specification_use_an_index() {
    let gateway = Gateway::new();
    let cases = [
        ("request_logs", "id = 'r'"),
        ("request_logs", "timestamp > 1"),
        ("request_logs", "api_key_hash = 'a'"),
        ("request_logs", "model = 'm'"),
        ("request_logs", "status_code = 500"),
        ("request_logs", "has_error = 1"),
        ("request_logs", "api_key_hash = 'a' AND model = 'm' AND timestamp > 1"),
        ("request_logs", "timestamp = 1 AND status_code = 500"),
        ("usage_daily", "kind = 'key' AND key_hash = 'a'"),
        ("usage_daily", "date = '2026-01-01' AND kind = 'key'"),
        ("error_logs", "timestamp > 1"),
        ("error_logs", "error_type = 'timeout' AND timestamp > 1"),
        ("error_logs", "api_key_hash = 'a' AND timestamp > 1"),
        ("api_key_metrics", "is_healthy = 0"),
        ("api_key_metrics", "last_used < 1"),
        ("api_key_metrics", "average_response_time < 1"),
        ("api_key_metrics", "consecutive_failures > 5"),
    ];
    for (table, condition) in cases {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE {condition}");
        let plan: String = gateway.0.query_row(&sql, [], |row| row.get(3)).unwrap();
        assert!(
            plan.starts_with("SEARCH") && (plan.contains("INDEX") || plan.contains("PRIMARY KEY")),
            "{condition}: {plan}"
        );
    }
}

/// The days as the log itself tells them.
const RECOUNT: &str = "SELECT date(timestamp / 1000, 'unixepoch') AS day, count(*), sum(NOT has_error), sum(has_error),
    sum(client_type = 'openai'), sum(client_type = 'claude'), sum(client_type = 'gemini'),
    sum(client_type NOT IN ('openai', 'claude', 'gemini')), sum(input_tokens), sum(output_tokens), sum(total_tokens),
    sum(cache_read_tokens), sum(cache_write_tokens), ifnull(sum(cost), 0), sum(response_time), avg(response_time),
    min(response_time), max(response_time), avg(has_error),
    sum(error_type IN ('client_timeout', 'upstream_timeout')), sum(error_type IN ('rate_limit', 'upstream_rate_limit')),
    sum(error_type IN ('auth', 'upstream_auth')), sum(request_size), sum(response_size), sum(is_stream),
    count(DISTINCT nullif(client_key_hash, '')),
    (SELECT count(DISTINCT tried.hash) FROM (SELECT timestamp, api_key_hash AS hash FROM request_logs
        UNION ALL SELECT timestamp, api_key_hash FROM error_logs WHERE attempt > 0) AS tried
        WHERE tried.hash <> '' AND tried.timestamp / 86400000 = request_logs.timestamp / 86400000)
    FROM request_logs GROUP BY day ORDER BY day";

/// What was used as the log itself tells it.
const RECOUNT_OF_USE: &str = "WITH used AS (
        SELECT 'key' AS kind, client_key_hash AS hash, timestamp, iif(api_key_hash = '', '', model) AS model, has_error,
            input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost FROM request_logs
        UNION ALL SELECT 'account', api_key_hash, timestamp, iif(api_key_hash = '', '', model), has_error,
            input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost FROM request_logs
        UNION ALL SELECT 'account', api_key_hash, timestamp, json_extract(context, '$.model'), 1, 0, 0, 0, 0, 0
            FROM error_logs WHERE attempt > 0)
    SELECT kind, hash, date(timestamp / 1000, 'unixepoch') AS day, model, count(*), sum(has_error), sum(input_tokens),
    sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), ifnull(sum(cost), 0), min(timestamp),
    max(timestamp) FROM used GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

/// What went to accounts as the log itself tells it.
const RECOUNT_OF_ACCOUNTS: &str = "WITH sent AS (
        SELECT api_key_hash AS hash, has_error, response_time, total_tokens FROM request_logs WHERE api_key_hash <> ''
        UNION ALL SELECT api_key_hash, 1, json_extract(context, '$.response_time'), 0 FROM error_logs WHERE attempt > 0)
    SELECT hash, count(*), sum(NOT has_error), sum(has_error), sum(response_time), min(response_time),
    max(response_time), sum(total_tokens) FROM sent GROUP BY hash ORDER BY hash";

const ACCOUNTS: &str =
    "SELECT api_key_hash, total_requests, successful_requests, failed_requests, total_response_time,
    min_response_time, max_response_time, total_tokens FROM api_key_metrics ORDER BY api_key_hash";

#[test]
fn the_statistics_of_days_equal_a_recount_of_the_log_however_events_are_cut_into_batches() {
    const STATUSES: [u16; 9] = [200, 200, 401, 403, 408, 429, 499, 503, 504];
    const CLIENTS: [&str; 4] = ["openai", "claude", "gemini", "unknown"];
    // Of three days, some at their very ends; a generator of our own, so that a failure comes again.
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let day = |number: u64| 1_699_920_000_000 + number * 86_400_000;
    let events: Vec<Event> = (1..=600)
        .map(|sequence| {
            let status = STATUSES[random(9) as usize];
            let moments = [day(0), day(1) - 1, day(1), day(2) + random(86_400_000), day(3) - 1];
            Event {
                time_ms: moments[random(5) as usize],
                client_type: CLIENTS[random(4) as usize].to_owned(),
                client_key_hash: format!("c{}", random(9)),
                api_key_hash: if status == 429 { String::new() } else { format!("a{}", random(4)) },
                response_time_ms: random(5_000),
                input_tokens: random(1_000),
                cost: (status == 200).then(|| random(1_000_000)),
                is_stream: random(2) == 0,
                attempts: (0..random(8).saturating_sub(5))
                    .map(|_| attempt(&format!("a{}", random(6)), "upstream_timeout"))
                    .collect(),
                ..event(sequence, status)
            }
        })
        .collect();
    let rows = |gateway: &Gateway, sql: &str| -> Vec<Vec<Sqlite>> {
        let mut query = gateway.0.prepare(sql).unwrap();
        let columns = query.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        query.query_map([], row).unwrap().map(Result::unwrap).collect()
    };
    for size in [1, 7, 100, 600] {
        let mut gateway = Gateway::new();
        let mut last = 0;
        for batch in events.chunks(size) {
            gateway.ingest(last, batch).unwrap();
            last = batch.last().unwrap().sequence;
        }
        let days = rows(&gateway, "SELECT * FROM system_stats ORDER BY date");
        assert_eq!(days, rows(&gateway, RECOUNT), "in batches of {size}");
        assert_eq!(days.len(), 3);
        assert_eq!(
            rows(&gateway, "SELECT * FROM usage_daily"),
            rows(&gateway, RECOUNT_OF_USE),
            "in batches of {size}"
        );
        assert_eq!(rows(&gateway, ACCOUNTS), rows(&gateway, RECOUNT_OF_ACCOUNTS), "in batches of {size}");
        let errors =
            "SELECT count(*), count(DISTINCT request_id), sum(timestamp) FROM error_logs WHERE attempt = 0";
        let logged =
            "SELECT count(*), count(DISTINCT id), sum(timestamp) FROM request_logs WHERE has_error = 1";
        assert_eq!(rows(&gateway, errors), rows(&gateway, logged));
    }
}

#[test]
fn an_error_is_logged_with_what_it_was_about() {
    let mut gateway = Gateway::new();
    let told = Event { error_message: Some("it's \"down\"".to_owned()), ..event(3, 504) };
    let in_stream = Event { has_error: true, error_type: "stream".to_owned(), ..event(4, 200) };
    gateway.ingest(0, &[event(1, 200), told, in_stream, event(5, 403)]).unwrap();
    let columns = "error_type || '|' || message || '|' || request_id || '|' || method || '|' || endpoint || '|' || referer";
    let sql =
        format!("SELECT group_concat({columns}, ' ; ') FROM (SELECT * FROM error_logs ORDER BY sequence)");
    let found: String = gateway.0.query_row(&sql, [], |row| row.get(0)).unwrap();
    let place = "POST|/v1/chat/completions|https://example.com/";
    assert_eq!(
        found,
        format!(
            "upstream_timeout|it's \"down\"|request-3|{place} ; stream||request-4|{place} ; auth|broken|request-5|{place}"
        )
    );
    let context: String = gateway
        .0
        .query_row("SELECT context FROM error_logs WHERE sequence = 3", [], |row| row.get(0))
        .unwrap();
    assert_eq!(
        context,
        r#"{"model":"m","original_model":"alias","client_name":"c","account_name":"a","is_stream":1,"response_time":30}"#
    );
}

#[test]
fn a_transaction_in_which_nothing_repeats_has_no_more_statements_than_a_batch_may() {
    let event = |sequence: u64| Event {
        client_key_hash: format!("c{sequence}"),
        api_key_hash: format!("a{sequence}"),
        model: format!("m{sequence}"),
        time_ms: sequence * crate::days::DAY_MS / 100,
        attempts: ["b", "c"].map(|kind| attempt(&format!("{kind}{sequence}"), "upstream")).into(),
        ..event(sequence, 500)
    };
    let events: Vec<Event> = (1..=EVENTS_AT_ONCE as u64).map(event).collect();
    let statements = statements(0, EVENTS_AT_ONCE as u64, &events).len();
    assert!(statements > 11 * EVENTS_AT_ONCE && statements < 10_000, "{statements}");
}

#[test]
fn numbers_beyond_sqlites_range_are_as_large_as_possible() {
    let mut gateway = Gateway::new();
    let huge = Event { input_tokens: u64::MAX, output_tokens: u64::MAX, ..event(1, 200) };
    gateway.ingest(0, &[huge]).unwrap();
    assert_eq!(gateway.numbers("SELECT total_tokens FROM request_logs"), [i64::MAX as f64]);
}
