//! The metrics of this process, in Prometheus' text form.
//!
//! Not `metrics-exporter-prometheus`: it keeps what it has once seen for good, or forgets what has been idle though its owner
//! goes on counting. Here an account's or a plugin's metrics go when nobody counts them any more, and labels are bounded.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Metadata, SharedString, Unit};
use parking_lot::Mutex;

use super::buckets::Buckets;

/// Series of one metric: more than there are accounts or plugins with all that is counted of each. A label that somebody
/// outside could make up would end here, and not in memory.
const SERIES: usize = 10_000;

/// Labels whose values come and go.
const OWNERS: [&str; 2] = ["account", "plugin"];

/// All metrics. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    families: BTreeMap<String, Family>,
    refused: u64,
}

/// The series of one metric, by their labels as they are written.
type Family = BTreeMap<String, Series>;

struct Series {
    /// The owners that its labels name.
    owners: Vec<(usize, String)>,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(_) => "histogram",
        }
    }

    /// Whether somebody counts it, besides who makes it up anew each time.
    fn is_held(&self) -> bool {
        let holders = match self {
            Value::Counter(number) | Value::Gauge(number) => Arc::strong_count(number),
            Value::Histogram(buckets) => Arc::strong_count(buckets),
        };
        holders > 1
    }
}

impl Recorder {
    /// All that is counted now.
    pub(crate) fn render(&self) -> String {
        let mut all = self.0.lock();
        all.forget();
        let mut text = String::new();
        for (name, family) in all.families.iter().filter(|(_, family)| !family.is_empty()) {
            render(name, family, &mut text);
        }
        head(REFUSED, "counter", &mut text);
        // A text takes whatever is written.
        let _ = writeln!(text, "{REFUSED} {}", all.refused);
        text
    }

    /// The series of a key, made if it is not there; none: there are too many, or the name is another kind's.
    fn series(&self, key: &Key, new: fn() -> Value) -> Option<Value> {
        self.0.lock().series(key, new)
    }
}

const REFUSED: &str = "tollgate_metric_series_refused_total";

impl All {
    fn series(&mut self, key: &Key, new: fn() -> Value) -> Option<Value> {
        let labels = written(key.labels());
        let is_full = |all: &All| all.families.get(key.name()).is_some_and(|family| family.len() >= SERIES);
        let is_known = self.families.get(key.name()).is_some_and(|family| family.contains_key(&labels));
        if !is_known && is_full(self) {
            self.forget();
            if is_full(self) {
                self.refused = self.refused.saturating_add(1);
                return None;
            }
        }
        let family = self.families.entry(key.name().to_owned()).or_default();
        let of_another_kind = family.values().next().is_some_and(|it| it.value.kind() != new().kind());
        if of_another_kind {
            self.refused = self.refused.saturating_add(1);
            return None;
        }
        let series = family.entry(labels);
        Some(series.or_insert_with(|| Series { owners: owners(key.labels()), value: new() }).value.clone())
    }

    /// Removes what belongs to an account or a plugin that nothing is counted of any more.
    fn forget(&mut self) {
        let all = self.families.values().flat_map(Family::values);
        let held =
            all.filter(|series| series.value.is_held()).flat_map(|series| series.owners.iter().cloned());
        let held: HashSet<(usize, String)> = held.collect();
        for family in self.families.values_mut() {
            family.retain(|_, series| series.owners.iter().all(|owner| held.contains(owner)));
        }
    }
}

fn render(name: &str, family: &Family, text: &mut String) {
    let Some(first) = family.values().next() else { return };
    head(name, first.value.kind(), text);
    for (labels, Series { value, .. }) in family {
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = match value {
            Value::Counter(number) => writeln!(text, "{name}{braced} {}", number.load(Ordering::Acquire)),
            Value::Gauge(bits) => {
                writeln!(text, "{name}{braced} {}", f64::from_bits(bits.load(Ordering::Acquire)))
            }
            Value::Histogram(buckets) => buckets.render(name, labels, text),
        };
    }
}

fn head(name: &str, kind: &str, text: &mut String) {
    if let Some(help) = help(name) {
        let _ = writeln!(text, "# HELP {name} {help}");
    }
    let _ = writeln!(text, "# TYPE {name} {kind}");
}

/// What a metric tells, by its row in the manual's table.
fn help(name: &str) -> Option<&'static str> {
    static MANUAL: LazyLock<BTreeMap<&str, &str>> = LazyLock::new(|| {
        let rows = include_str!("../../../METRICS.md").lines().filter_map(|line| {
            let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
            Some((row.split('`').next()?, row.rsplit(" | ").next()?))
        });
        rows.collect()
    });
    MANUAL.get(name).copied()
}

/// Labels as they stand between braces.
fn written<'a>(labels: impl Iterator<Item = &'a Label>) -> String {
    let mut text = String::new();
    for label in labels {
        let between = if text.is_empty() { "" } else { "," };
        let value = label.value().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{between}{}=\"{value}\"", label.key());
    }
    text
}

fn owners<'a>(labels: impl Iterator<Item = &'a Label>) -> Vec<(usize, String)> {
    let owner = |label: &Label| {
        let kind = OWNERS.iter().position(|owner| *owner == label.key())?;
        Some((kind, label.value().to_owned()))
    };
    labels.filter_map(owner).collect()
}

impl metrics::Recorder for Recorder {
    // What they tell stands in the manual.
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(key, || Value::Counter(Arc::default())) {
            Some(Value::Counter(number)) => Counter::from_arc(number),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(key, || Value::Gauge(Arc::default())) {
            Some(Value::Gauge(bits)) => Gauge::from_arc(bits),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.series(key, || Value::Histogram(Arc::default())) {
            Some(Value::Histogram(buckets)) => Histogram::from_arc(buckets),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Level, Recorder as _};

    use super::*;

    const METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, None);

    fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        Key::from_parts(name, labels)
    }

    fn counter(recorder: &Recorder, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        recorder.register_counter(&key(name, labels), &METADATA)
    }

    #[test]
    fn each_kind_is_written_as_prometheus_reads_it() {
        let recorder = Recorder::default();
        let _retries = counter(&recorder, "tollgate_retries_total", &[]);
        counter(&recorder, "asked_total", &[("by", "a\"b\\c\nd")]).increment(3);
        recorder.register_gauge(&key("level", &[]), &METADATA).set(-1.5);
        let seconds = recorder.register_histogram(&key("took_seconds", &[("by", "x")]), &METADATA);
        for value in [0.000_01, 0.02, 0.02, 1_000.0, f64::NAN] {
            seconds.record(value);
        }
        let text = recorder.render();
        for line in [
            "# HELP tollgate_retries_total attempts that failed before the first byte\n# TYPE tollgate_retries_total counter\n",
            "# TYPE asked_total counter\nasked_total{by=\"a\\\"b\\\\c\\nd\"} 3\n",
            "# TYPE level gauge\nlevel -1.5\n",
            "# TYPE took_seconds histogram\ntook_seconds_bucket{by=\"x\",le=\"0.00001\"} 1\n",
            "took_seconds_bucket{by=\"x\",le=\"0.01\"} 1\n",
            "took_seconds_bucket{by=\"x\",le=\"0.025\"} 3\n",
            "took_seconds_bucket{by=\"x\",le=\"600\"} 3\n",
            "took_seconds_bucket{by=\"x\",le=\"+Inf\"} 4\n",
            "took_seconds_sum{by=\"x\"} 1000.04001\ntook_seconds_count{by=\"x\"} 4\n",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn what_is_counted_of_an_owner_goes_with_the_last_who_counts_it() {
        let recorder = Recorder::default();
        let held = counter(&recorder, "calls_total", &[("plugin", "old"), ("hook", "admit")]);
        // Nobody holds these; they are as alive as their owner.
        counter(&recorder, "runs_total", &[("plugin", "old")]).increment(1);
        counter(&recorder, "pruned_total", &[("table", "log")]).increment(1);
        let _other = counter(&recorder, "calls_total", &[("plugin", "new")]);
        // An account of the same name is somebody else.
        let _account = counter(&recorder, "answers_total", &[("account", "old")]);
        assert!(recorder.render().contains("runs_total{plugin=\"old\"} 1"));
        drop(held);
        let text = recorder.render();
        assert!(!text.contains("plugin=\"old\""), "{text}");
        for line in ["calls_total{plugin=\"new\"} 0", "pruned_total{table=\"log\"} 1", "account=\"old\""] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn a_metric_has_so_many_series_and_no_more_until_some_go() {
        let recorder = Recorder::default();
        let names: Vec<String> = (0..=SERIES).map(|number| number.to_string()).collect();
        let mut held: Vec<_> = names[..SERIES]
            .iter()
            .map(|name| counter(&recorder, "calls_total", &[("account", name)]))
            .collect();
        let one_more = || counter(&recorder, "calls_total", &[("account", &names[SERIES])]);
        one_more().increment(1);
        assert_eq!(recorder.render().matches("calls_total{").count(), SERIES);
        assert!(recorder.render().contains(&format!("{REFUSED} 1\n")));
        held.pop();
        let _one_more = one_more();
        assert!(recorder.render().contains(&format!("calls_total{{account=\"{SERIES}\"}} 0")));
        // What is known is counted on.
        counter(&recorder, "calls_total", &[("account", "0")]).increment(5);
        assert!(recorder.render().contains("calls_total{account=\"0\"} 5"));
    }

    #[test]
    fn a_name_that_is_another_kinds_is_not_counted() {
        let recorder = Recorder::default();
        let _counter = counter(&recorder, "calls_total", &[]);
        recorder.register_gauge(&key("calls_total", &[("a", "b")]), &METADATA).set(1.0);
        assert!(!recorder.render().contains("a=\"b\""));
    }
}
