//! Runs the plugins' jobs when they are due, each job once at a time.

use serde::Serialize;

/// What one run of a job did.
#[derive(Clone, Debug, Serialize)]
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
