//! Waiting for a condition instead of for time to pass.

use std::time::{Duration, Instant};

/// How long anything may take before a test fails; far above what is needed, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `probe` answers, and fails with `what` when it does not within [`PATIENCE`].
pub async fn eventually<T, F, R>(what: &str, mut probe: F) -> T
where
    F: FnMut() -> R,
    R: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "did not happen within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
