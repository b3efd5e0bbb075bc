use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;

use super::*;
use crate::plugin::job::{Job, Timing};
use crate::plugin::limits::MIN_JOB_INTERVAL;

/// Tells of each start, then waits for a permit.
struct Counting {
    name: Arc<str>,
    started: Semaphore,
    running: AtomicU32,
    permits: Semaphore,
}

impl Counting {
    fn new(permits: usize) -> Arc<Counting> {
        let (started, permits) = (Semaphore::new(0), Semaphore::new(permits));
        Arc::new(Counting { name: "p".into(), started, running: AtomicU32::new(0), permits })
    }

    async fn next_start(&self) {
        self.started.acquire().await.unwrap().forget();
    }
}

impl Runner for Counting {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    async fn run(&self, job: &str, _now_ms: u64) -> Result<Report, CallError> {
        self.started.add_permits(1);
        assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "two runs at once");
        self.permits.acquire().await.unwrap().forget();
        self.running.fetch_sub(1, Ordering::SeqCst);
        if job == "bad" {
            Err(CallError::Guest("no".to_owned()))
        } else {
            let times = if job == "wordy" { 1_000 } else { 1 };
            Ok(Report { changed: 1, summary: job.repeat(times) })
        }
    }
}

fn schedule(jobs: &[(&str, u64)]) -> Schedule {
    let jobs = jobs.iter().map(|(name, ms)| Job { name: (*name).to_owned(), timing: Timing::Every(*ms) });
    Schedule::new(jobs.collect()).unwrap()
}

fn jobs() -> Jobs {
    Jobs::new(Handle::current(), Arc::new(|| 0))
}

#[tokio::test]
async fn a_long_summary_is_cut() {
    let (jobs, plugin) = (jobs(), Counting::new(1));
    jobs.follow(&plugin, schedule(&[("wordy", 1_000_000)]));
    assert_eq!(jobs.run_now(&plugin, "wordy").await.unwrap().summary.len(), TEXT_BYTES);
    jobs.stop().await;
}

#[tokio::test]
async fn a_job_runs_on_schedule_again_and_again() {
    let (jobs, plugin) = (jobs(), Counting::new(1_000));
    jobs.follow(&plugin, schedule(&[("j", 1)]));
    let begun = Instant::now();
    plugin.next_start().await;
    plugin.next_start().await;
    assert!(begun.elapsed() >= MIN_JOB_INTERVAL * 2);
    jobs.stop().await;
}

#[tokio::test]
async fn a_new_schedule_replaces_the_old() {
    let (jobs, plugin) = (jobs(), Counting::new(1_000));
    jobs.follow(&plugin, schedule(&[("old", 1)]));
    jobs.follow(&plugin, schedule(&[("new", 3_600_000)]));
    assert!(matches!(jobs.run_now(&plugin, "old").await, Err(JobError::NoSuchJob { .. })));
    assert!(jobs.run_now(&plugin, "new").await.is_ok());
    plugin.next_start().await;
    assert!(tokio::time::timeout(MIN_JOB_INTERVAL * 3 / 2, plugin.next_start()).await.is_err());
    jobs.stop().await;
}

#[tokio::test]
async fn a_job_never_runs_twice_at_once() {
    let (jobs, plugin) = (Arc::new(jobs()), Counting::new(0));
    jobs.follow(&plugin, schedule(&[("j", 3_600_000)]));
    let first = tokio::spawn({
        let (jobs, plugin) = (jobs.clone(), plugin.clone());
        async move { jobs.run_now(&plugin, "j").await }
    });
    plugin.next_start().await;
    assert!(matches!(jobs.run_now(&plugin, "j").await, Err(JobError::Running)));
    plugin.permits.add_permits(2);
    assert!(first.await.unwrap().is_ok());
    assert!(jobs.run_now(&plugin, "j").await.is_ok());
    jobs.stop().await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_job() {
    let (jobs, plugin) = (Arc::new(jobs()), Counting::new(0));
    jobs.follow(&plugin, schedule(&[("j", 3_600_000)]));
    let run = tokio::spawn({
        let (jobs, plugin) = (jobs.clone(), plugin.clone());
        async move { jobs.run_now(&plugin, "j").await }
    });
    plugin.next_start().await;
    jobs.stop().await;
    assert!(matches!(run.await.unwrap(), Err(JobError::Failed(_))));
}

#[tokio::test]
async fn a_job_can_be_run_by_hand_and_tells_how_it_went() {
    let (jobs, plugin) = (jobs(), Counting::new(10));
    jobs.follow(&plugin, schedule(&[("good", 3_600_000), ("bad", 3_600_000)]));
    assert_eq!(jobs.run_now(&plugin, "good").await.unwrap().summary, "good");
    assert!(matches!(jobs.run_now(&plugin, "bad").await, Err(JobError::Failed(_))));
    assert!(matches!(jobs.run_now(&plugin, "none").await, Err(JobError::NoSuchJob { .. })));
    jobs.stop().await;
}
