//! The rows that recent usage is counted from.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime};
use tollgate_store::{Database, SqlError, Statement, Value};

use super::super::if_counted;
use super::super::limits::RECENT_STEP_MS;
use super::{DAY_MS, MINUTE_MS, Sum, Whose};
use crate::{money, pattern};

/// The beginnings and ends of what is asked about, in milliseconds since 1970.
pub(super) struct Times {
    pub(super) now: u64,
    minute: u64,
    day: u64,
    midnight: u64,
    pub(super) next_midnight: u64,
    pub(super) next_month: u64,
    month: NaiveDate,
}

impl Times {
    pub(super) fn at(now_ms: u64) -> Times {
        let now = i64::try_from(now_ms).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
        let today = now.date_naive();
        let month = today.with_day(1).unwrap_or(today);
        let begins = |date: Option<NaiveDate>| {
            let time = date.unwrap_or(NaiveDate::MAX).and_time(NaiveTime::MIN).and_utc();
            u64::try_from(time.timestamp_millis()).unwrap_or_default()
        };
        Times {
            now: now_ms,
            minute: now_ms.saturating_sub(MINUTE_MS),
            day: now_ms.saturating_sub(DAY_MS),
            midnight: begins(Some(today)),
            next_midnight: begins(today.checked_add_days(Days::new(1))),
            next_month: begins(month.checked_add_months(Months::new(1))),
            month,
        }
    }
}

/// Sums of rows of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    requests: u64,
    pub(super) counted: u64,
    failed: u64,
    input: u64,
    output: u64,
    pub(super) cost: u64,
    /// When the first of those that count came.
    pub(super) oldest_ms: Option<u64>,
}

impl Rows {
    const COLUMNS: usize = 7;

    /// The columns for the rows since a parameter.
    fn columns(since: &str) -> String {
        let counts = "(has_error = 0 OR status_code = 499)";
        [
            "count(*)".to_owned(),
            format!("sum({counts})"),
            "sum(has_error)".to_owned(),
            "sum(input_tokens)".to_owned(),
            "sum(output_tokens)".to_owned(),
            "sum(cost)".to_owned(),
            format!("min(iif({counts}, timestamp, NULL))"),
        ]
        .map(|column| format!("{column} FILTER (WHERE timestamp >= {since})"))
        .join(", ")
    }

    /// Sums of no rows are NULL.
    fn read(row: &[Value]) -> Rows {
        let number = |place: usize| row.get(place).and_then(unsigned);
        let sum = |place| number(place).unwrap_or_default();
        Rows {
            requests: sum(0),
            counted: sum(1),
            failed: sum(2),
            input: sum(3),
            output: sum(4),
            cost: sum(5),
            oldest_ms: number(6),
        }
    }

    fn add(&mut self, other: &Rows) {
        let sums = [
            (&mut self.requests, other.requests),
            (&mut self.counted, other.counted),
            (&mut self.failed, other.failed),
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cost, other.cost),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        self.oldest_ms = [self.oldest_ms, other.oldest_ms].into_iter().flatten().min();
    }

    pub(super) fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }

    pub(super) fn sum(&self) -> Sum {
        Sum {
            requests: self.requests,
            counted_requests: self.counted,
            failed_requests: self.failed,
            input_tokens: self.input,
            output_tokens: self.output,
            cost: money::units(self.cost),
        }
    }
}

/// What the log has of a model.
#[derive(Clone, Debug, Default)]
pub(super) struct OfLog {
    pub(super) minute: Rows,
    pub(super) day: Rows,
    /// Since midnight.
    pub(super) today: Rows,
}

impl OfLog {
    fn parts(&mut self) -> [&mut Rows; 3] {
        [&mut self.minute, &mut self.day, &mut self.today]
    }
}

/// What the rows of days have of a model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfDays {
    pub(super) month: Spent,
    pub(super) total: Spent,
}

impl OfDays {
    fn all(days: &BTreeMap<String, OfDays>) -> OfDays {
        let mut all = OfDays::default();
        for own in days.values() {
            for (sum, own) in [(&mut all.month, own.month), (&mut all.total, own.total)] {
                sum.tokens = sum.tokens.saturating_add(own.tokens);
                sum.cost = sum.cost.saturating_add(own.cost);
            }
        }
        all
    }
}

/// Tokens, and money in billionths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) tokens: u64,
    pub(super) cost: u64,
}

/// What was used of some models together.
#[derive(Default)]
pub(super) struct Used {
    pub(super) log: OfLog,
    /// None for some models: rows of days have the upstream's names of them, and limits the clients'.
    pub(super) days: Option<OfDays>,
}

impl Used {
    pub(super) fn over(
        models: Option<&str>,
        log: &BTreeMap<String, OfLog>,
        days: &BTreeMap<String, OfDays>,
    ) -> Used {
        let concerns = |model: &str| models.is_none_or(|models| pattern::fits(models, model));
        let mut used = Used::default();
        for (_, own) in log.iter().filter(|(model, _)| concerns(model)) {
            let own = [&own.minute, &own.day, &own.today];
            used.log.parts().into_iter().zip(own).for_each(|(sum, own)| sum.add(own));
        }
        used.days = models.is_none().then(|| OfDays::all(days));
        used
    }
}

/// The log of the last 24 hours, by model as clients name it.
pub(super) async fn log(
    database: &Database,
    whose: Whose<'_>,
    times: &Times,
) -> Result<Option<BTreeMap<String, OfLog>>, SqlError> {
    let (own, who) = match whose {
        Whose::Client(id) => ("client_key_hash", id),
        Whose::Account(name, _) => ("account_name", name),
    };
    // By the index of times and by no other: that of keys and models would have all of an account's rows read.
    let sql = format!(
        "SELECT iif(api_key_hash = '', '', original_model), {}, {}, {}
        FROM request_logs INDEXED BY request_logs_time_status
        WHERE timestamp >= ?1 AND timestamp < ?2 AND {own} = ?3 GROUP BY 1",
        Rows::columns("?4"),
        Rows::columns("?1"),
        Rows::columns("?5"),
    );
    let mut models: BTreeMap<String, OfLog> = BTreeMap::new();
    let mut from = times.day;
    // What has come since the beginning of this is no part of it.
    while from < times.now {
        let until = from.saturating_add(RECENT_STEP_MS).min(times.now);
        let until_ms = if until == times.now { u64::MAX } else { until };
        let params = vec![
            time(from),
            time(until_ms),
            who.into(),
            time(times.minute.max(from)),
            time(times.midnight.max(from)),
        ];
        let outcome = database.query(Statement::new(&sql, params)).await;
        let Some(outcome) = if_counted(outcome)? else { return Ok(None) };
        for row in outcome.rows {
            let Some((Value::Text(model), sums)) = row.split_first() else { continue };
            let used = models.entry(model.clone()).or_default();
            let parts = sums.chunks_exact(Rows::COLUMNS).map(Rows::read);
            used.parts().into_iter().zip(parts).for_each(|(sum, part)| sum.add(&part));
        }
        from = until;
    }
    Ok(Some(models))
}

/// The rows of days, by model as the upstream names it.
pub(super) async fn days(
    database: &Database,
    whose: Whose<'_>,
    times: &Times,
) -> Result<Option<BTreeMap<String, OfDays>>, SqlError> {
    let (kind, id) = match whose {
        Whose::Client(id) => ("key", id),
        Whose::Account(_, id) => ("account", id),
    };
    let sql = "SELECT model, sum(input_tokens + output_tokens) FILTER (WHERE date >= ?3),
            sum(cost) FILTER (WHERE date >= ?3), sum(input_tokens + output_tokens), sum(cost)
        FROM usage_daily WHERE kind = ?1 AND key_hash = ?2 GROUP BY model";
    let params = vec![kind.into(), id.into(), times.month.to_string().into()];
    let Some(outcome) = if_counted(database.query(Statement::new(sql, params)).await)? else {
        return Ok(None);
    };
    let read = |row: Vec<Value>| {
        let (Value::Text(model), sums) = row.split_first()? else { return None };
        let sum = |place: usize| sums.get(place).and_then(unsigned).unwrap_or_default();
        let spent = |place| Spent { tokens: sum(place), cost: sum(place + 1) };
        Some((model.clone(), OfDays { month: spent(0), total: spent(2) }))
    };
    Ok(Some(outcome.rows.into_iter().filter_map(read).collect()))
}

fn unsigned(value: &Value) -> Option<u64> {
    if let Value::Integer(number) = value { u64::try_from(*number).ok() } else { None }
}

fn time(ms: u64) -> Value {
    Value::Integer(i64::try_from(ms).unwrap_or(i64::MAX))
}
