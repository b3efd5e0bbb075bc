//! A thread of its own for what plugins do off the way of a request.
//!
//! An `ingest` call passes a thousand events into a guest and back out as SQL, for milliseconds without a pause. On a
//! worker of the main runtime all requests of that worker would wait for it.

use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::task::spawn_blocking;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The thread with its runtime. It ends when this is dropped, and whatever still runs on it is given up.
pub(super) struct Background {
    handle: Handle,
    thread: Mutex<Option<(DropGuard, JoinHandle<()>)>>,
}

impl Background {
    /// Starts the thread.
    pub(super) fn start() -> std::io::Result<Background> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("background-io").build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone().cancelled_owned();
        let thread = std::thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || runtime.block_on(ended))?;
        Ok(Background { handle, thread: Mutex::new(Some((end.drop_guard(), thread))) })
    }

    /// Where tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the thread and waits for it, so that nothing of it holds a store any more.
    pub(super) async fn stop(&self) {
        let Some((end, thread)) = self.thread.lock().take() else { return };
        drop(end);
        if !matches!(spawn_blocking(move || thread.join().is_ok()).await, Ok(true)) {
            tracing::error!("the background thread has panicked");
        }
    }
}
