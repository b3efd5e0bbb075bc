//! Warm instances of one generation.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::instance::Instance;
use super::limits;
use super::manifest::Instances;

/// Idle instances in one stack for each worker, last in first out, and the number of calls at once.
///
/// A shared queue would move instances, and their memory with them, from core to core.
pub(crate) struct Pool {
    stacks: Box<[Mutex<Vec<Instance>>]>,
    idle_per_stack: usize,
    slots: Semaphore,
}

impl Pool {
    pub(crate) fn new(instances: Instances) -> Pool {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (calls, idle_per_stack) = match instances {
            Instances::Warm(calls) => (calls, limits::IDLE_PER_WORKER.min(calls as usize)),
            Instances::PerCall => (limits::INSTANCES, 0),
        };
        Pool {
            stacks: (0..workers).map(|_| Mutex::default()).collect(),
            idle_per_stack,
            slots: Semaphore::new(calls as usize),
        }
    }

    /// Takes the right to one call, waiting for it until then at most.
    pub(crate) async fn slot(&self, until: std::time::Instant) -> Option<SemaphorePermit<'_>> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Some(slot);
        }
        timeout_at(Instant::from_std(until), self.slots.acquire()).await.ok()?.ok()
    }

    /// An idle instance: this worker's last one, or else another worker's.
    pub(crate) fn take(&self) -> Option<Instance> {
        let (others, own) = self.stacks.split_at_checked(worker() % self.stacks.len().max(1))?;
        let mut stacks = own.iter().chain(others);
        if let Some(instance) = stacks.next()?.lock().pop() {
            return Some(instance);
        }
        stacks.find_map(|stack| stack.try_lock()?.pop())
    }

    /// Gives an instance back for the next call; one too many, or one that has served long enough, is dropped.
    pub(crate) fn put(&self, instance: Instance) {
        if instance.calls >= limits::CALLS_PER_INSTANCE {
            return;
        }
        let Some(stack) = self.stacks.get(worker() % self.stacks.len().max(1)) else { return };
        let mut stack = stack.lock();
        if stack.len() < self.idle_per_stack {
            stack.push(instance);
        }
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.stacks.iter().map(|stack| stack.lock().len()).sum()
    }
}

/// A small number for the thread, so that workers have different ones.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static WORKER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    WORKER.with(|worker| *worker)
}
