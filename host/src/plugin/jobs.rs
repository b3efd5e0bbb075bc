//! Runs the plugins' jobs when they are due, each job once at a time.

mod schedule;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tollgate_store::Clock;
use utoipa::ToSchema;

pub(super) use self::schedule::Schedule;
use super::limits::{MAX_JOB_SLEEP, TEXT_BYTES};
use super::{ActivePlugin, CallError, cut};

/// What one run of a job did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = JobReport)]
pub struct Report {
    /// Things changed, repaired or moved.
    pub changed: u64,
    /// A line for the log.
    pub summary: String,
}

/// Why a job did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// No plugin of this name offers such a job.
    #[error("plugin {plugin:?} has no job {job:?}")]
    NoSuchJob {
        /// The plugin asked for.
        plugin: String,
        /// The job asked for.
        job: String,
    },
    /// The job is running already.
    #[error("the job is running already")]
    Running,
    /// The plugin reported an error, trapped or overran its deadline.
    #[error("{0}")]
    Failed(String),
}

/// A plugin whose jobs are run: the real one, or a test's stand-in.
pub(super) trait Runner: Send + Sync + 'static {
    /// The plugin's name.
    fn name(&self) -> &Arc<str>;
    /// Runs a job once, in whatever generation serves now.
    fn run(&self, job: &str, now_ms: u64) -> impl Future<Output = Result<Report, CallError>> + Send;
}

impl Runner for ActivePlugin {
    fn name(&self) -> &Arc<str> {
        self.name()
    }

    async fn run(&self, job: &str, now_ms: u64) -> Result<Report, CallError> {
        let report = self.current().run_job(job, now_ms).await?;
        Ok(Report { changed: report.changed, summary: report.summary })
    }
}

/// The schedules of all plugins.
pub(super) struct Jobs {
    plugins: Mutex<BTreeMap<Arc<str>, Followed>>,
    runs: Arc<Runs>,
}

/// What is running now.
struct Runs {
    on: Handle,
    clock: Clock,
    running: Mutex<HashSet<(Arc<str>, String)>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

struct Followed {
    names: HashSet<String>,
    _timer: AbortOnDropHandle<()>,
}

impl Jobs {
    /// Jobs that run on the runtime `on`.
    pub(super) fn new(on: Handle, clock: Clock) -> Jobs {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let runs = Runs { on, clock, running: Mutex::default(), tasks, stop };
        Jobs { plugins: Mutex::default(), runs: Arc::new(runs) }
    }

    /// Runs a plugin's jobs by this schedule from now on, in place of the one it had. Runs under way end as they are.
    pub(super) fn follow<R: Runner>(&self, plugin: &Arc<R>, schedule: Schedule) {
        let name = plugin.name().clone();
        let names = schedule.names().map(str::to_owned).collect();
        let timer = self.runs.on.spawn(keep_time(self.runs.clone(), plugin.clone(), schedule));
        let followed = Followed { names, _timer: AbortOnDropHandle::new(timer) };
        self.plugins.lock().insert(name, followed);
    }

    /// Runs a job now, outside its schedule.
    pub(super) async fn run_now<R: Runner>(&self, plugin: &Arc<R>, job: &str) -> Result<Report, JobError> {
        let known =
            self.plugins.lock().get(plugin.name()).is_some_and(|followed| followed.names.contains(job));
        if !known {
            return Err(JobError::NoSuchJob { plugin: plugin.name().to_string(), job: job.to_owned() });
        }
        // A run of its own, so that it does not end when the one who asked goes away.
        let run = run(self.runs.clone(), plugin.clone(), job.to_owned());
        let task = self.runs.spawn(run);
        match task.await {
            Ok(Some(result)) => result,
            Ok(None) => Err(JobError::Failed("the host is shutting down".to_owned())),
            Err(error) => Err(JobError::Failed(error.to_string())),
        }
    }

    /// Stops all timers and gives up the runs under way.
    pub(super) async fn stop(&self) {
        self.plugins.lock().clear();
        self.runs.stop.cancel();
        self.runs.tasks.close();
        self.runs.tasks.wait().await;
    }
}

impl Runs {
    /// Starts a run, which the end of all gives up.
    fn spawn<T: Send + 'static>(
        &self,
        run: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        self.tasks.spawn_on(self.stop.clone().run_until_cancelled_owned(run), &self.on)
    }
}

/// Starts each job when it is due.
async fn keep_time<R: Runner>(runs: Arc<Runs>, plugin: Arc<R>, mut schedule: Schedule) {
    schedule.start(Instant::now(), (runs.clock)());
    loop {
        let Some(wait) = schedule.wait(Instant::now(), (runs.clock)()) else { return };
        tokio::time::sleep(wait.min(MAX_JOB_SLEEP)).await;
        for job in schedule.due(Instant::now(), (runs.clock)()) {
            let run = run(runs.clone(), plugin.clone(), job);
            runs.spawn(run);
        }
    }
}

async fn run<R: Runner>(runs: Arc<Runs>, plugin: Arc<R>, job: String) -> Result<Report, JobError> {
    let Some(_turn) = Turn::take(&runs, plugin.name(), &job) else {
        tracing::warn!(plugin = %plugin.name(), job, "job is still running, left out");
        return Err(JobError::Running);
    };
    let started = Instant::now();
    let result = plugin.run(&job, (runs.clock)()).await.map(|Report { changed, summary }| {
        let summary = cut(summary, TEXT_BYTES);
        Report { changed, summary }
    });
    report(plugin.name(), &job, started.elapsed(), &result);
    result.map_err(|error| JobError::Failed(error.to_string()))
}

fn report(plugin: &Arc<str>, job: &str, took: Duration, result: &Result<Report, CallError>) {
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match result {
        Ok(Report { changed, summary }) => tracing::info!(%plugin, job, took_ms, changed, summary, "job ran"),
        Err(error) => tracing::error!(%plugin, job, took_ms, %error, "job failed"),
    }
    let outcome = if result.is_ok() { "ok" } else { "failed" };
    let labels = [("plugin", plugin.to_string()), ("job", job.to_owned())];
    metrics::gauge!("tollgate_job_seconds", &labels).set(took.as_secs_f64());
    let [plugin, job] = labels;
    let outcome = ("outcome", outcome.to_owned());
    metrics::counter!("tollgate_job_runs_total", &[plugin, job, outcome]).increment(1);
}

/// The right to run a job, which only one run has at a time, across generations.
struct Turn<'a> {
    runs: &'a Runs,
    key: (Arc<str>, String),
}

impl<'a> Turn<'a> {
    fn take(runs: &'a Runs, plugin: &Arc<str>, job: &str) -> Option<Turn<'a>> {
        let key = (plugin.clone(), job.to_owned());
        runs.running.lock().insert(key.clone()).then(|| Turn { runs, key })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.runs.running.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests;
