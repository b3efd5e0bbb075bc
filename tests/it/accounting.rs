//! What the log, the totals, the statistics of days and the log of errors say of the same requests.

use http_body_util::BodyExt;

use crate::support::{Behaviour, Client, Server, Setup, Upstream, eventually};

/// Of a million tokens, so that one costs 10,000 billionths.
const PRICES: &str = "[[price]]\nmodel = \"gpt-*\"\ninput = 10\noutput = 10\n";

/// The days as the log itself tells them, in the order of the columns of `system_stats`.
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
    FROM request_logs GROUP BY day";

/// The number of days in which the statistics and the log differ.
pub fn days_that_differ(server: &Server) -> u64 {
    let one_way = |a: &str, b: &str| server.count(&format!("SELECT count(*) FROM ({a} EXCEPT {b})"));
    let stats = "SELECT * FROM system_stats";
    one_way(RECOUNT, stats) + one_way(stats, RECOUNT)
}

pub async fn logged(server: &Server, rows: u64) {
    eventually("every request is logged", || async {
        (server.count("SELECT count(*) FROM request_logs") == rows).then_some(())
    })
    .await;
}

/// A stream of which the client reads one piece and leaves.
async fn cut(client: &Client) {
    let mut body = client.chat_stream("gpt-test").await.into_body();
    body.frame().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn log_totals_days_and_errors_agree_whatever_becomes_of_requests() {
    let upstream = Upstream::start(Behaviour::Answer { input: 700, output: 3 }).await;
    let server = Setup::with(&upstream).config(PRICES).start();
    let (one, limited) =
        (server.client(&server.key("one", &[])), server.client(&server.key("two", &["--rpm", "1"])));
    assert_eq!(one.chat("gpt-test").await.status, 200);
    assert_eq!(one.chat("unpriced").await.status, 200);
    assert_eq!(limited.chat("gpt-test").await.status, 200);
    assert_eq!(limited.chat("gpt-test").await.status, 429);
    upstream.behave(Behaviour::Slow { input: 9, output: 50, pause: std::time::Duration::from_millis(5) });
    cut(&one).await;
    // Before the account is held back for it.
    upstream.behave(Behaviour::Refuse { status: 400, retry_after: None });
    let headers = [
        ("referer", "https://app.example/page"),
        ("user-agent", "tester/1"),
        ("content-type", "application/json"),
    ];
    let body = serde_json::json!({ "model": "gpt-test", "messages": [{ "role": "user", "content": "hi" }] });
    let refused = one.call(http::Method::POST, "/v1/chat/completions", &headers, body.to_string()).await;
    assert_eq!(refused.status, 400);
    upstream.behave(Behaviour::Break);
    assert_eq!(one.chat("gpt-test").await.status, 502);
    logged(&server, 7).await;

    let rows = server
        .sql("SELECT status_code, token_source, ifnull(cost, 'none') FROM request_logs ORDER BY sequence");
    let told = |row: usize| rows[row].join(" ");
    assert_eq!(told(0), "200 reported 7030000");
    assert_eq!(told(1), "200 reported none");
    assert_eq!(told(3), "429  0");
    assert!(rows.iter().any(|row| row[0] == "499" && row[1] == "counted" && row[2] != "0"), "{rows:?}");
    assert!(rows.iter().any(|row| row[0] == "400" && row[1].is_empty() && row[2] == "0"), "{rows:?}");

    assert_eq!(days_that_differ(&server), 0, "{:?}", server.sql("SELECT * FROM system_stats"));
    assert_eq!(server.count("SELECT sum(total_requests) FROM system_stats"), 7);
    let sums = "SELECT sum(total_requests), sum(total_input_tokens), sum(total_output_tokens), sum(total_cost) FROM api_key_metrics";
    let counted = "SELECT count(*), sum(input_tokens), sum(output_tokens), sum(cost) FROM request_logs WHERE api_key_hash <> ''";
    assert_eq!(server.sql(sums), server.sql(counted));
    let errors = server.sql("SELECT error_type FROM error_logs ORDER BY error_type");
    assert_eq!(errors.concat(), ["client_closed", "invalid_request", "rate_limit", "upstream"]);
    let about =
        "SELECT method, endpoint, referer, user_agent, json_extract(context, '$.model') FROM error_logs
        WHERE error_type = 'invalid_request'";
    assert_eq!(
        server.sql(about).concat(),
        ["POST", "/v1/chat/completions", "https://app.example/page", "tester/1", "gpt-test"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_told_by_day_key_account_and_model_and_a_key_knows_its_totals() {
    let upstream = Upstream::start(Behaviour::Answer { input: 700, output: 3 }).await;
    let server = Setup::with(&upstream).config(PRICES).start();
    let (one, two) = (server.client(&server.key("one", &[])), server.client(&server.key("two", &[])));
    for (client, model) in [(&one, "gpt-a"), (&one, "gpt-b"), (&one, "gpt-b"), (&two, "gpt-b")] {
        assert_eq!(client.chat(model).await.status, 200);
    }
    logged(&server, 4).await;
    let lines = |arguments: &[&str], columns: &[usize]| -> Vec<String> {
        let text = server.cli_ok(&[&["usage"], arguments].concat());
        let rows = text.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
        rows.map(|row| columns.iter().map(|column| row[*column]).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(lines(&["--by", "key"], &[1, 2, 4, 8]), ["one 3 2100 0.02109", "two 1 700 0.00703"]);
    assert_eq!(lines(&["--by", "account"], &[1, 2, 3, 5]), ["main 4 0 12"]);
    assert_eq!(lines(&["--by", "model"], &[0, 2]), ["gpt-b 3", "gpt-a 1"]);
    assert_eq!(lines(&["--since", "2026-01-01"], &[2]), ["4"]);
    assert_eq!(lines(&["--until", "2026-01-01", "--since", "2025-01-01"], &[2]), Vec::<String>::new());
    let shown: serde_json::Value = serde_json::from_str(&server.cli_ok(&["key", "show", "one"])).unwrap();
    let totals = &shown["totals"];
    assert_eq!((&totals["requests"], &totals["output_tokens"]), (&3.into(), &9.into()));
    assert_eq!(totals["cost"], 0.02109);
    let keys = server.cli_ok(&["key", "list"]);
    assert!(keys.contains("\t3\t2100\t9\t0.02109"), "{keys}");
    let listed = server.get("/admin/v1/keys").await.json();
    assert!(listed["keys"][0].get("totals").is_none(), "{listed}");
    let wrong = server.get("/admin/v1/usage?since=yesterday").await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    assert!(wrong.text().contains("`since` must be a day such as"), "{}", wrong.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_past_their_time_go_as_soon_as_the_configuration_says_so() {
    let upstream = Upstream::start(Behaviour::Answer { input: 7, output: 3 }).await;
    let server = Setup::with(&upstream).start();
    let client = server.client(&server.key("one", &[]));
    for _ in 0..3 {
        assert_eq!(client.chat("gpt-test").await.status, 200);
    }
    logged(&server, 3).await;
    server.cli_ok(&[
        "sql",
        "gateway",
        "UPDATE request_logs SET timestamp = timestamp - 3 * 86400000 WHERE sequence IN
        (SELECT sequence FROM request_logs ORDER BY sequence LIMIT 2)",
    ]);
    let path = server.home().join("tollgate.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("[retention]\nrequest_logs_days = 2\n{config}")).unwrap();
    let reloaded = server.cli_ok(&["reload"]);
    assert!(reloaded.contains("retention"), "{reloaded}");
    logged(&server, 1).await;
    assert_eq!(server.count("SELECT sum(requests) FROM usage_daily WHERE kind = 'key'"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_has_used_in_all_stays_though_kill_9_cuts_the_pruning_of_days() {
    let upstream = Upstream::start(Behaviour::Answer { input: 7, output: 3 }).await;
    let mut server = Setup::with(&upstream).start();
    let client = server.client(&server.key("one", &[]));
    assert_eq!(client.chat("gpt-test").await.status, 200);
    logged(&server, 1).await;
    server.cli_ok(&[
        "sql",
        "gateway",
        "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20000)
        INSERT INTO usage_daily SELECT kind, key_hash, date('now', '-' || (3 + value / 10) || ' days'), 'm' || (value % 10),
            value, 1, 2, 3, 4, 5, value * 7, first_used - value, last_used FROM n, (SELECT * FROM usage_daily WHERE kind = 'key')",
    ]);
    let totals = |server: &Server| {
        let shown: serde_json::Value = serde_json::from_str(&server.cli_ok(&["key", "show", "one"])).unwrap();
        shown["totals"].clone()
    };
    let before = totals(&server);
    assert_eq!(before["requests"], 1 + 20_000 * 20_001 / 2);
    let path = server.home().join("tollgate.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("[retention]\nstatistics_days = 2\n{config}")).unwrap();
    for _ in 0..3 {
        server.crash_and_restart();
        eventually("some days are pruned", || async {
            let days = "SELECT count(*) FROM usage_daily WHERE date = ''";
            (server.count(days) > 0).then_some(())
        })
        .await;
        assert_eq!(totals(&server), before);
    }
    eventually("all old days are pruned", || async {
        let old = "SELECT count(*) FROM usage_daily WHERE kind = 'key' AND date > ''";
        (server.count(old) == 1).then_some(())
    })
    .await;
    assert_eq!(totals(&server), before);
    let told = server.get("/admin/v1/usage?by=key&since=0001-01-01").await.json();
    assert_eq!(told["usage"][0]["requests"], 1, "{told}");
}
