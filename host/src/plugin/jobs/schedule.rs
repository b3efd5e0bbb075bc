//! When each job of a plugin is due.

use std::time::Duration;

use chrono::DateTime;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use tokio::time::Instant;

use crate::plugin::job::{Job, Timing};
use crate::plugin::limits::{MAX_FIRST_JOB_WAIT, MAX_JOBS, MIN_JOB_INTERVAL};

/// A plugin's jobs with their times.
#[derive(Clone, Debug, Default)]
pub(in crate::plugin) struct Schedule {
    jobs: Vec<Planned>,
}

#[derive(Clone, Debug)]
struct Planned {
    name: String,
    when: When,
}

/// Intervals go by the monotonic clock, cron expressions by the wall clock, which may be set at any time.
#[derive(Clone, Debug)]
enum When {
    Every { interval: Duration, due: Option<Instant> },
    Cron { expression: Box<Cron>, due_ms: Option<u64> },
}

impl Schedule {
    /// Checks what a plugin says. The error names the job.
    pub(in crate::plugin) fn new(jobs: Vec<Job>) -> Result<Schedule, String> {
        if jobs.len() > MAX_JOBS {
            return Err(format!("has {} jobs; at most {MAX_JOBS} are allowed", jobs.len()));
        }
        let jobs = jobs.into_iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = jobs.iter().map(|job| &job.name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
            Some(name) => Err(format!("has two jobs {name:?}")),
            None => Ok(Schedule { jobs }),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().map(|job| job.name.as_str())
    }

    /// Sets the first times.
    pub(super) fn start(&mut self, now: Instant, now_ms: u64) {
        for job in &mut self.jobs {
            match &mut job.when {
                When::Every { interval, due } => *due = Some(now + (*interval).min(MAX_FIRST_JOB_WAIT)),
                When::Cron { expression, due_ms } => *due_ms = next(expression, now_ms),
            }
        }
    }

    /// How long until a job is due; none: never.
    pub(super) fn wait(&self, now: Instant, now_ms: u64) -> Option<Duration> {
        let waits = self.jobs.iter().filter_map(|job| match &job.when {
            When::Every { due, .. } => due.map(|due| due.saturating_duration_since(now)),
            When::Cron { due_ms, .. } => due_ms.map(|due| Duration::from_millis(due.saturating_sub(now_ms))),
        });
        waits.min()
    }

    /// The jobs that are due; each is given its next time. Times that were missed are not made up for.
    pub(super) fn due(&mut self, now: Instant, now_ms: u64) -> Vec<String> {
        let due =
            self.jobs.iter_mut().filter_map(|job| job.when.take_turn(now, now_ms).then(|| job.name.clone()));
        due.collect()
    }
}

impl When {
    fn take_turn(&mut self, now: Instant, now_ms: u64) -> bool {
        match self {
            When::Every { interval, due } => {
                let is_due = due.is_some_and(|due| due <= now);
                if is_due {
                    *due = Some(now + *interval);
                }
                is_due
            }
            When::Cron { expression, due_ms } => {
                let is_due = due_ms.is_some_and(|due| due <= now_ms);
                if is_due {
                    *due_ms = next(expression, now_ms);
                }
                is_due
            }
        }
    }
}

fn plan(job: Job) -> Result<Planned, String> {
    let Job { name, timing } = job;
    if name.is_empty() || name.len() > crate::plugin::limits::NAME_BYTES {
        return Err(format!("job {name:?} has a name that is empty or too long"));
    }
    let when = match timing {
        Timing::Every(ms) => {
            When::Every { interval: Duration::from_millis(ms).max(MIN_JOB_INTERVAL), due: None }
        }
        Timing::Cron(text) => {
            let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
            let expression =
                parser.parse(&text).map_err(|error| format!("job {name:?}: cron {text:?}: {error}"))?;
            When::Cron { expression: Box::new(expression), due_ms: None }
        }
    };
    Ok(Planned { name, when })
}

fn next(expression: &Cron, now_ms: u64) -> Option<u64> {
    let now = DateTime::from_timestamp_millis(i64::try_from(now_ms).ok()?)?;
    let next = expression.find_next_occurrence(&now, false).ok()?;
    u64::try_from(next.timestamp_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, timing: Timing) -> Job {
        Job { name: name.to_owned(), timing }
    }

    #[test]
    fn cron_times_are_utc_and_missed_ones_are_left_out() {
        let mut schedule =
            Schedule::new(vec![job("nightly", Timing::Cron("30 2 * * *".to_owned()))]).unwrap();
        let now = Instant::now();
        let midnight = 1_700_006_400_000; // 2023-11-15 00:00 UTC
        schedule.start(now, midnight);
        assert_eq!(schedule.wait(now, midnight), Some(Duration::from_secs(9_000)));
        assert!(schedule.due(now, midnight + 8_999_999).is_empty());
        let days_later = midnight + 3 * 86_400_000 + 9_000_000;
        assert_eq!(schedule.due(now, days_later), ["nightly"]);
        assert_eq!(schedule.wait(now, days_later), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn an_interval_is_at_least_a_second_and_its_first_run_comes_soon() {
        let jobs = vec![job("quick", Timing::Every(0)), job("slow", Timing::Every(86_400_000))];
        let mut schedule = Schedule::new(jobs).unwrap();
        let now = Instant::now();
        schedule.start(now, 0);
        assert_eq!(schedule.wait(now, 0), Some(MIN_JOB_INTERVAL));
        assert_eq!(schedule.due(now + MAX_FIRST_JOB_WAIT, 0), ["quick", "slow"]);
        assert_eq!(schedule.due(now + MAX_FIRST_JOB_WAIT * 2, 0), ["quick"]);
    }

    #[test]
    fn bad_schedules_are_refused_with_the_job() {
        for bad in ["x", "* * * *", "* * * * * *", "61 * * * *"] {
            let error = Schedule::new(vec![job("j", Timing::Cron(bad.to_owned()))]).unwrap_err();
            assert!(error.contains("\"j\""), "{error}");
        }
        let twice = vec![job("j", Timing::Every(1)), job("j", Timing::Every(2))];
        assert_eq!(Schedule::new(twice).unwrap_err(), "has two jobs \"j\"");
        assert!(Schedule::new(vec![job("", Timing::Every(1))]).is_err());
        assert!(Schedule::new(vec![job("j", Timing::Every(1)); MAX_JOBS + 1]).is_err());
    }
}
