//! The thread that builds graphs.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::Mutex;

#[cfg(target_os = "linux")]
use crate::vector::limits::BUILDER_NICE;
use crate::vector::memory::Memory;

/// The builder of a store: one thread for all of its indexes, which take turns. It is there only while there is work.
#[derive(Debug, Default)]
pub(in crate::vector) struct Builder {
    waiting: Mutex<Waiting>,
    /// The store is closed: nobody needs a graph any more, of an index that is still being loaded neither.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    indexes: VecDeque<Weak<Memory>>,
    works: bool,
}

impl Builder {
    /// Sees whether an index needs the builder, and has it come.
    pub(in crate::vector) fn visit(memory: &Arc<Memory>) {
        if !memory.is_due() {
            return;
        }
        let builder = &memory.plan.builder;
        let mut waiting = builder.waiting.lock();
        // Again, with the lock: whoever closes it has it too.
        if builder.is_closed() {
            return;
        }
        let memory = Arc::downgrade(memory);
        if waiting.indexes.iter().any(|other| other.ptr_eq(&memory)) {
            return;
        }
        waiting.indexes.push_back(memory);
        if waiting.works {
            return;
        }
        let work = Work(Arc::clone(builder));
        match thread::Builder::new().name("vector-graphs".to_owned()).spawn(move || work.run()) {
            Ok(_) => waiting.works = true,
            // The next change tries again; until then more is scanned.
            Err(error) => {
                waiting.indexes.clear();
                tracing::warn!(%error, "no thread can be started to build the graph of a vector index");
            }
        }
    }

    /// The index whose turn it is; none: the thread ends.
    fn next(&self) -> Option<Arc<Memory>> {
        let mut waiting = self.waiting.lock();
        loop {
            let Some(first) = waiting.indexes.pop_front() else {
                waiting.works = false;
                return None;
            };
            // An index that nobody has any more needs no graph.
            if let Some(memory) = first.upgrade() {
                waiting.indexes.push_back(first);
                return Some(memory);
            }
        }
    }

    /// An index needs nothing more for now.
    fn done(&self, memory: &Arc<Memory>) {
        let memory = Arc::downgrade(memory);
        self.waiting.lock().indexes.retain(|other| !other.ptr_eq(&memory));
    }

    /// Has it leave off, within one vector, and for ever.
    pub(in crate::vector) fn close(&self) {
        let mut waiting = self.waiting.lock();
        self.closed.store(true, Ordering::Relaxed);
        waiting.indexes.clear();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// What ends its walks.
    pub(super) fn closed(&self) -> &AtomicBool {
        &self.closed
    }
}

/// The thread's. If it panics, the next change starts another.
struct Work(Arc<Builder>);

impl Work {
    /// On Linux the priority is the thread's own.
    fn run(self) {
        // Refused it is only less kind to the others.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(BUILDER_NICE);
        while let Some(memory) = self.0.next() {
            if !memory.step() {
                self.0.done(&memory);
                // What became due since the step stands for itself.
                Builder::visit(&memory);
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut waiting = self.0.waiting.lock();
            let indexes = waiting.indexes.len();
            waiting.indexes.clear();
            waiting.works = false;
            drop(waiting);
            tracing::error!(
                indexes,
                "building the graph of a vector index panicked; until the next change of each it is scanned instead"
            );
        }
    }
}
