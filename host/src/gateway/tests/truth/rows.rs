//! The log, as its rows tell it, beside what was sent, what the upstream saw, and the sums of the other tables.

use std::{collections::BTreeMap, time::Instant};

use tollgate_store::Value;

use super::{
    Load, PATIENCE, Sent, Whose,
    house::{House, Moment},
    load::{Act, IN, OUT},
    oracle::{Amounts, Book, Charge},
    upstream::Attempt,
};
use crate::accounting;

/// A row of the log.
#[derive(Clone, Debug)]
pub(super) struct Row {
    id: u64,
    time_ms: u64,
    client: String,
    account: String,
    model: String,
    pub(super) status: u16,
    tokens: (u64, u64),
    source: String,
    cost: u64,
    has_error: bool,
    error: String,
    /// The accounts that failed before.
    failed: Vec<String>,
}

const ATTEMPTS: &str = "SELECT sequence, user_agent, json_extract(context, '$.account_name') FROM error_logs
    WHERE attempt > 0 AND sequence < ?1 ORDER BY sequence DESC LIMIT 500";

const ROWS: &str =
    "SELECT sequence, user_agent, timestamp, client_name, account_name, model, status_code, input_tokens,
    output_tokens, token_source, cost, has_error, error_message FROM request_logs WHERE sequence > ?1
    ORDER BY sequence LIMIT 500";

/// The rows by the ids of their requests: one for each of so many.
pub(super) async fn read(house: &House, count: usize) -> BTreeMap<u64, Row> {
    let begun = Instant::now();
    while house.count("SELECT count(*) FROM request_logs").await < count as u64 {
        assert!(begun.elapsed() < PATIENCE, "the log has not every request");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (mut rows, mut last) = (BTreeMap::new(), 0);
    loop {
        let page = house.rows(ROWS, vec![Value::Integer(last)]).await;
        if page.is_empty() {
            break;
        }
        for row in page {
            last = number(&row[0]) as i64;
            let row = Row::of(&row);
            let id = row.id;
            assert!(rows.insert(id, row).is_none(), "request {id} is logged twice");
        }
    }
    assert_eq!(rows.len(), count, "the log has other requests than were sent");
    let mut last = 0;
    loop {
        let page = house.rows(ATTEMPTS, vec![Value::Integer(last)]).await;
        let Some(lowest) = page.last() else { return rows };
        let Value::Integer(sequence) = lowest[0] else { panic!("{lowest:?}") };
        last = sequence;
        for attempt in page {
            let id = text(&attempt[1]).parse().unwrap();
            rows.get_mut(&id).unwrap().failed.push(text(&attempt[2]));
        }
    }
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => *number as u64,
        _ => 0,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        _ => String::new(),
    }
}

impl Row {
    fn of(row: &[Value]) -> Row {
        Row {
            id: text(&row[1]).parse().unwrap(),
            time_ms: number(&row[2]),
            client: text(&row[3]),
            account: text(&row[4]),
            model: text(&row[5]),
            status: number(&row[6]) as u16,
            tokens: (number(&row[7]), number(&row[8])),
            source: text(&row[9]),
            cost: number(&row[10]),
            has_error: number(&row[11]) != 0,
            error: text(&row[12]),
            failed: Vec::new(),
        }
    }

    /// What it is charged. Only requests without error count, and those that their clients left; what came of an answer
    /// counts in any case.
    fn used(&self) -> Amounts {
        let counts = !self.has_error || self.status == 499;
        [u64::from(counts), self.tokens.0 + self.tokens.1, self.cost]
    }

    /// Which limit of its key refused it, and whether that is one over the big models.
    fn refused_by(&self) -> Option<(&str, bool)> {
        let (reason, limit) = self.error.strip_suffix(')')?.rsplit_once(" (")?;
        let (name, amounts) = limit.split_once(": ")?;
        // Why accounts refused it may end in parentheses too.
        let (current, most) = amounts.split_once(" of ")?;
        let _: (u64, u64) = (current.parse().ok()?, most.parse().ok()?);
        Some((name, reason.ends_with("(of big-*)")))
    }
}

/// Every row is what happened, nothing that was charged by them is over a limit, and nobody was refused who had room; how
/// often each limit refused somebody.
pub(super) fn check(load: &Load, rows: &BTreeMap<u64, Row>) -> BTreeMap<String, u64> {
    let mut books: Vec<Book> =
        load.scopes.iter().map(|scope| Book::new(&scope.value, &scope.limits)).collect();
    let mut refused = Vec::new();
    for (id, sent) in load.sent.iter().enumerate() {
        let row = &rows[&(id as u64)];
        let attempts = load.upstream.attempts(id as u64);
        check_row(sent, row, &attempts);
        let of_key = Charge::of(sent, row, sent.at, sent.end.unwrap(), row.used());
        if let Some((name, of_big)) = row.refused_by() {
            // What another of the key's limits had let through was reserved until this one refused.
            for (scope, book) in load.scopes.iter().zip(&mut books) {
                let is_other = scope.of == Whose::Key(sent.asked.key) && scope.models.is_some() != of_big;
                if is_other && scope.concerns(sent.asked.model) {
                    book.given_back.push(of_key.clone());
                }
            }
            refused.push((name.to_owned(), of_big, sent.asked.key, of_key));
            continue;
        }
        for (scope, book) in load.scopes.iter().zip(&mut books) {
            match &scope.of {
                Whose::Key(key) if *key == sent.asked.key && scope.concerns(sent.asked.model) => {
                    book.charges.push(of_key.clone());
                }
                Whose::Account(name) => {
                    book.charges.extend(of_account(name, sent, row, &attempts));
                }
                Whose::Key(_) => {}
            }
        }
    }
    for book in &mut books {
        // A request that waited came to its account later than it was sent.
        book.charges.sort_by_key(|charge| charge.at.step);
        book.check_admitted();
    }
    // Those that came when all trouble was over.
    for id in load.sent.len() - load.keys.len()..load.sent.len() {
        let row = &rows[&(id as u64)];
        assert!(row.status == 200 || row.refused_by().is_some(), "{row:?}");
    }
    let mut times = BTreeMap::new();
    for (name, of_big, key, charge) in refused {
        let is_it = |scope: &super::Scope| scope.of == Whose::Key(key) && scope.models.is_some() == of_big;
        let place = load.scopes.iter().position(is_it).unwrap();
        books[place].check_refused(&name, &charge);
        *times.entry(name).or_default() += 1;
    }
    times
}

impl Charge {
    fn of(sent: &Sent, row: &Row, at: Moment, end: Moment, used: Amounts) -> Charge {
        let (prompt, answer) = (sent.asked.prompt, sent.asked.answer);
        Charge {
            id: row.id,
            at,
            end,
            least: [1, prompt, 1],
            most: [1, prompt + answer, prompt * IN + answer * OUT],
            used,
        }
    }
}

/// What the attempts of a request on an account were charged there.
fn of_account(name: &str, sent: &Sent, row: &Row, attempts: &[Attempt]) -> Vec<Charge> {
    let mut charges = Vec::new();
    for (place, attempt) in attempts.iter().enumerate().filter(|(_, attempt)| attempt.account == name) {
        let next = attempts.get(place + 1);
        // A request is charged at the time at which it came, unless it is older than a second by then.
        let mut at = attempt.at;
        if at.ms - sent.at.ms <= 1_000 {
            at.ms = sent.at.ms;
        }
        // An attempt that fails does so at once.
        let end = match next {
            _ if attempt.fails() => attempt.at,
            Some(next) => next.at,
            None => sent.end.unwrap(),
        };
        let used = if next.is_none() && !attempt.fails() { row.used() } else { Amounts::default() };
        charges.push(Charge::of(sent, row, at, end, used));
    }
    charges
}

/// A row tells what its client and the upstream saw.
fn check_row(sent: &Sent, row: &Row, attempts: &[Attempt]) {
    let told = || format!("{row:?}\n{:?}\n{attempts:?}", sent.asked);
    assert_eq!(row.time_ms, sent.at.ms, "{}", told());
    assert_eq!(
        (row.client.as_str(), row.model.as_str()),
        (&*format!("key-{}", sent.asked.key), sent.asked.model)
    );
    match sent.status {
        Some(status) => assert_eq!(status, row.status, "{}", told()),
        // Only who left, or whose answer broke off, has none.
        None => assert!(row.has_error, "{}", told()),
    }
    assert_eq!(sent.left, row.status == 499, "{}", told());
    let Some(last) = attempts.last() else {
        assert!(row.account.is_empty() && row.status >= 400 && row.tokens == (0, 0), "{}", told());
        return;
    };
    // Who leaves while waiting for another account is on none.
    let on_none = sent.left && last.fails() && row.account.is_empty();
    assert!(on_none || row.account == last.account, "{}", told());
    let before = if on_none { attempts } else { &attempts[..attempts.len() - 1] };
    let failed: Vec<&str> = before.iter().map(|attempt| attempt.account.as_str()).collect();
    assert_eq!(row.failed, failed, "{}", told());
    assert_eq!(row.cost, row.tokens.0 * IN + row.tokens.1 * OUT, "{}", told());
    let seen = (row.status, row.has_error);
    // On a busy machine a stream may begin too late.
    let late = sent.asked.stream && seen == (504, true);
    let right = match last.plan.act {
        _ if sent.left => true,
        Act::Answer | Act::Unreported => seen == (200, false) || late,
        Act::BreakOff | Act::Fail => seen == (200, true) || late,
        Act::Refuse(400, _) => seen == (400, true) || late,
        _ => row.status >= 400 && row.has_error,
    };
    assert!(right, "{}", told());
    if row.source == "reported" {
        assert_eq!(row.tokens, (last.plan.input, last.plan.output), "{}", told());
    } else if right && !sent.left && last.plan.act == Act::Unreported && !late {
        assert_eq!(row.tokens, (sent.asked.prompt, last.plan.output), "{}", told());
    }
}

/// What the totals are, and what the log makes of them.
const TOTALS: [(&str, &str); 3] = [
    (
        "SELECT date, total_requests, successful_requests, failed_requests, input_tokens, output_tokens, cost,
            rate_limits, stream_requests, unique_keys, active_accounts FROM system_stats",
        "SELECT date(timestamp / 1000, 'unixepoch') AS day, count(*), sum(NOT has_error), sum(has_error),
            sum(input_tokens), sum(output_tokens), ifnull(sum(cost), 0),
            sum(error_type IN ('rate_limit', 'upstream_rate_limit')), sum(is_stream), count(DISTINCT client_key_hash),
            (SELECT count(DISTINCT tried.hash) FROM (SELECT timestamp, api_key_hash AS hash FROM request_logs
                UNION ALL SELECT timestamp, api_key_hash FROM error_logs WHERE attempt > 0) AS tried
                WHERE tried.hash <> '' AND tried.timestamp / 86400000 = request_logs.timestamp / 86400000)
            FROM request_logs GROUP BY day",
    ),
    (
        "SELECT kind, key_hash, date, model, requests, failed_requests, input_tokens, output_tokens, cost, first_used,
            last_used FROM usage_daily",
        "WITH used AS (SELECT timestamp, client_key_hash, api_key_hash, iif(api_key_hash = '', '', model) AS model,
                has_error, input_tokens, output_tokens, cost FROM request_logs)
            SELECT kind, hash, date(timestamp / 1000, 'unixepoch') AS day, model, count(*), sum(has_error),
            sum(input_tokens), sum(output_tokens), ifnull(sum(cost), 0), min(timestamp), max(timestamp)
            FROM (SELECT 'key' AS kind, client_key_hash AS hash, * FROM used
            UNION ALL SELECT 'account', api_key_hash, * FROM used
            UNION ALL SELECT 'account', api_key_hash, timestamp, '', api_key_hash, json_extract(context, '$.model'),
                1, 0, 0, 0 FROM error_logs WHERE attempt > 0) GROUP BY kind, hash, day, model",
    ),
    (
        "SELECT api_key_hash, total_requests, successful_requests, failed_requests, total_input_tokens,
            total_output_tokens, total_cost FROM api_key_metrics WHERE total_requests > 0",
        "SELECT api_key_hash, count(*), sum(NOT has_error), sum(has_error), sum(input_tokens), sum(output_tokens),
            ifnull(sum(cost), 0) FROM (SELECT api_key_hash, has_error, input_tokens, output_tokens, cost
            FROM request_logs WHERE api_key_hash <> ''
            UNION ALL SELECT api_key_hash, 1, 0, 0, 0 FROM error_logs WHERE attempt > 0) GROUP BY api_key_hash",
    ),
];

/// The totals of days, keys and accounts are the sums of the rows.
pub(super) async fn check_totals(house: &House, rows: &BTreeMap<u64, Row>) {
    for key in house.keys.list().await.unwrap() {
        let told = accounting::totals(&house.database, &key.id).await.unwrap().unwrap();
        let own = || rows.values().filter(|row| row.client == key.name);
        assert_eq!(told.requests, own().count() as u64, "{}", key.name);
        assert_eq!(told.failed_requests, own().filter(|row| row.has_error).count() as u64, "{}", key.name);
        assert_eq!(told.input_tokens, own().map(|row| row.tokens.0).sum::<u64>(), "{}", key.name);
        assert_eq!(told.output_tokens, own().map(|row| row.tokens.1).sum::<u64>(), "{}", key.name);
    }
    for (totals, counted) in TOTALS {
        for (one, other) in [(totals, counted), (counted, totals)] {
            let differ = house
                .rows(&format!("SELECT * FROM ({one}) EXCEPT SELECT * FROM ({other})"), Vec::new())
                .await;
            assert_eq!(differ, Vec::<Vec<Value>>::new(), "{one}\nbeside\n{other}");
        }
    }
}
