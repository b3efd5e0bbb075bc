//! The committer: one thread owns the write transaction and groups what waits into one commit.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use redb::{Durability, WriteTransaction};
use thiserror::Error;
use tokio::{sync::oneshot, task::JoinError};

use crate::{
    StorageError,
    blob::{
        BlobChange,
        collect::{Collectable, Collector},
    },
    core::{Core, unavailable},
    error::guarded,
    inbox::{Group, SnapshotAnswer},
    kv::{
        KvWrite,
        key::{AsKey, Key},
        record::{ROWS, Record},
        size::Changes,
        snapshot::Rows,
        sweep::Sweeper,
    },
    names::Names,
    overlay::Taken,
    queue::QueueBatch,
    sql::{
        files::{Leftover, Remover},
        pages::{self, FileChange, PageBatch},
    },
    vector::{Touched, VectorChange},
};

/// Why changes are not on disk.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommitError {
    /// The changes are too many for one commit; the text names the limit.
    #[error("too large: {0}")]
    TooLarge(String),
    /// A concurrent change won; nothing has changed.
    #[error("conflict")]
    Conflict,
    /// The changes are wrong in themselves; nothing has changed.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A grant does not allow a statement; nothing has changed.
    #[error("access denied")]
    AccessDenied,
    /// The store cannot take the changes now, and has not; the text says why.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The disk failed or the store is closed; it is not known whether the changes are on disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// One part of a message. The parts of one message become durable together, or not at all.
#[derive(Debug)]
pub(crate) enum Change {
    /// Pages of an SQL database.
    Pages(PageBatch),
    /// Writes to kv stores, which become visible when they are durable.
    Kv(Vec<KvWrite>),
    /// A change of a blob container.
    Blob(BlobChange),
    /// A change of which files SQL databases have.
    File(FileChange),
    /// A change of a vector index.
    Vector(VectorChange),
}

/// The committer's answer to a message: a future, or awaited by blocking.
#[derive(Debug)]
pub(crate) struct Ack(Answer);

#[derive(Debug)]
enum Answer {
    Waiting(oneshot::Receiver<Result<(), CommitError>>),
    Known(Result<(), CommitError>),
}

impl Ack {
    pub(crate) fn known(result: Result<(), CommitError>) -> Self {
        Self(Answer::Known(result))
    }

    pub(crate) fn waiting(receiver: oneshot::Receiver<Result<(), CommitError>>) -> Self {
        Self(Answer::Waiting(receiver))
    }

    /// Blocks the thread until the answer is there. Not for a thread that runs async tasks.
    pub(crate) fn wait(self) -> Result<(), CommitError> {
        match self.0 {
            Answer::Known(result) => result,
            Answer::Waiting(receiver) => receiver.blocking_recv().unwrap_or_else(|_| Err(gone())),
        }
    }
}

impl Future for Ack {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Answer::Known(result) => Poll::Ready(result.clone()),
            Answer::Waiting(receiver) => {
                Pin::new(receiver).poll(context).map(|answer| answer.unwrap_or_else(|_| Err(gone())))
            }
        }
    }
}

pub(crate) fn gone() -> CommitError {
    StorageError::Closed.into()
}

/// Why work on a blocking thread has no result.
pub(crate) fn ended(error: &JoinError) -> CommitError {
    if error.is_panic() {
        return StorageError::panicked().into();
    }
    CommitError::Unavailable("the runtime is stopping".to_owned())
}

impl Change {
    /// Bytes that it brings into a commit.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Pages(batch) => batch.size(),
            Self::Kv(writes) => writes.iter().map(KvWrite::size).sum(),
            Self::Blob(change) => change.size(),
            Self::File(_) => 0,
            Self::Vector(change) => change.size(),
        }
    }
}

/// The committer's thread: commits group after group until the store is closed or the storage fails.
pub(crate) fn run(core: Arc<Core>) {
    let mut end = End { core: &core, result: Err(StorageError::panicked().into()) };
    let mut upkeep =
        Upkeep { sweeper: Sweeper::new(), collector: Collector::new(&core), remover: Remover::new() };
    end.result = loop {
        let group = core.inbox.next(upkeep.due());
        let last = group.last;
        let mut done = commit_group(&core, &mut upkeep, &group);
        let result = done.as_ref().map(|_| ()).map_err(CommitError::clone);
        if let Err(error) = &result {
            // Before the answers: nothing may be acknowledged after this one.
            core.health.poison(error);
        }
        for message in group.messages {
            // Whoever asked may be gone.
            let _ = message.answer.send(result.clone());
        }
        if !group.snapshots.is_empty() {
            done = show(&core, &mut upkeep, done, group.snapshots);
        }
        if last || done.is_err() {
            break done.map(|_| ());
        }
    };
}

/// What the committer does from time to time, whether anybody writes or not.
struct Upkeep {
    sweeper: Sweeper,
    collector: Collector,
    remover: Remover,
}

impl Upkeep {
    fn due(&self) -> Instant {
        self.sweeper.due().min(self.collector.due()).min(self.remover.due())
    }
}

/// What the disk shows after a commit: everything that was visible at this time (milliseconds since 1970), and no more;
/// none after a joint commit, which became visible later than other writes that are not on disk.
type Shown = Option<u64>;

/// Gives snapshots of one instant to those who wait for one.
fn show(
    core: &Core,
    upkeep: &mut Upkeep,
    mut done: Result<Shown, CommitError>,
    waiting: Vec<SnapshotAnswer>,
) -> Result<Shown, CommitError> {
    if let Ok(None) = done {
        done = commit_group(core, upkeep, &Group::default()).inspect_err(|error| core.health.poison(error));
    }
    let snapshot = match &done {
        Ok(Some(at_ms)) => Rows::begin(core, *at_ms),
        Ok(None) => Err(gone()),
        Err(error) => Err(error.clone()),
    };
    for answer in waiting {
        let _ = answer.send(snapshot.clone());
    }
    done
}

/// Ends the store with the thread, even if it panics, so that nobody waits for it.
struct End<'a> {
    core: &'a Core,
    result: Result<(), CommitError>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        match &self.result {
            Ok(()) => self.core.health.close(),
            Err(error) => self.core.health.poison(error),
        }
        let database = self.core.database.write().take();
        // redb writes once more when it is closed, and may stumble over what is damaged.
        let closed = guarded(|| {
            drop(database);
            Ok(())
        });
        if self.result.is_ok() {
            self.result = closed;
        }
        self.core.inbox.end(&self.result, &self.core.health.reason());
        self.core.queues.end();
        self.core.indexes.end();
    }
}

/// Everything that goes into one commit beside the messages.
struct Collected {
    kv: Taken,
    queues: Vec<QueueBatch>,
    names: Vec<(u8, String, u32)>,
    expired: Vec<Vec<u8>>,
    blobs: Collectable,
    leftover: Leftover,
}

fn commit_group(core: &Core, upkeep: &mut Upkeep, group: &Group) -> Result<Shown, CommitError> {
    let started = Instant::now();
    let expired = upkeep.sweeper.step(core)?;
    let blobs = upkeep.collector.step(core)?;
    let leftover = upkeep.remover.step(core)?;
    let waiting = core.sizes.waiting();
    let mut collected = Collected {
        kv: core.overlay.collect(|| core.now_ms()),
        queues: core.queues.collect(),
        // Last: rows of a name given meanwhile are not among the collected.
        names: core.names.collect(),
        expired,
        blobs,
        leftover,
    };
    if collected.is_empty() && group.messages.iter().all(|message| message.changes.is_empty()) {
        waiting.committed();
        return Ok(Some(collected.kv.at_ms));
    }
    collected.kv.rows.sort_unstable_by(|(left, _), (right, _)| left.bytes().cmp(right.bytes()));
    let joint: Vec<(&KvWrite, u64)> = group
        .messages
        .iter()
        .flat_map(|message| &message.changes)
        .filter_map(|change| if let Change::Kv(writes) = change { Some(writes) } else { None })
        .flatten()
        .map(|write| (write, core.next_version()))
        .collect();
    let visible = (!joint.is_empty()).then(|| core.visible.write());
    if write(core, group, &collected, &joint).map_err(unavailable)? {
        upkeep.collector.soon();
    }
    waiting.committed();
    count(core, group, started, collected.kv.rows.len() + joint.len() + collected.expired.len());
    core.overlay.publish(&joint, || core.next_version());
    drop(visible);
    let collected_keys = collected.kv.rows.iter().map(|(key, _)| key);
    core.overlay.committed(collected_keys.chain(joint.iter().map(|(write, _)| &write.key)));
    if core.queues.committed(collected.queues) {
        core.inbox.touch();
    }
    Ok(joint.is_empty().then_some(collected.kv.at_ms))
}

/// True: it left blobs to collect.
fn write(
    core: &Core,
    group: &Group,
    collected: &Collected,
    joint: &[(&KvWrite, u64)],
) -> Result<bool, redb::Error> {
    let mut transaction = {
        let database = core.database.read();
        let database = database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        database.begin_write()?
    };
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(core.two_phase);
    if !collected.names.is_empty() {
        Names::write(&transaction, &collected.names)?;
    }
    let mut sizes = core.sizes.hold();
    sizes.write(&transaction, write_kv(&transaction, collected, joint)?)?;
    for batch in &collected.queues {
        batch.write(&transaction)?;
    }
    collected.leftover.remove(&transaction)?;
    // Before this group releases any more.
    let files = collected.blobs.take_apart(&transaction)?;
    let mut released = false;
    let mut touched = Touched::default();
    for change in group.messages.iter().flat_map(|message| &message.changes) {
        match change {
            Change::Pages(batch) => pages::apply(&transaction, batch)?,
            Change::Blob(change) => released |= change.apply(&transaction)?,
            Change::File(change) => change.apply(&transaction)?,
            Change::Vector(change) => {
                change.apply(&transaction)?;
                touched.add(change);
            }
            Change::Kv(_) => {}
        }
    }
    touched.publish();
    transaction.commit()?;
    sizes.committed();
    touched.tidy();
    if let Some(folder) = &core.folder {
        folder.discard(files);
    }
    Ok(released)
}

fn write_kv(
    transaction: &WriteTransaction,
    collected: &Collected,
    joint: &[(&KvWrite, u64)],
) -> Result<Changes, redb::Error> {
    let mut table = transaction.open_table(ROWS)?;
    let mut changes = Changes::default();
    for key in &collected.expired {
        let replaced = table.remove(key.as_slice())?.map(|row| row.value().len());
        changes.add(key, None, replaced);
    }
    // Not a later time: a snapshot of this commit shows what was there then.
    let at_ms = collected.kv.at_ms;
    let mut row = Vec::new();
    let mut put = |key: &Key, record: &Record| -> Result<(), redb::Error> {
        if record.is_gone(at_ms) {
            let replaced = table.remove(key.bytes())?.map(|row| row.value().len());
            changes.add(key.bytes(), None, replaced);
        } else {
            record.encode(&mut row);
            let replaced = table.insert(key.bytes(), row.as_slice())?.map(|row| row.value().len());
            changes.add(key.bytes(), Some(row.len()), replaced);
        }
        Ok(())
    };
    for (key, record) in &collected.kv.rows {
        put(key, record)?;
    }
    // After the overlay's: the overlay publishes them in this order too.
    for (write, version) in joint {
        put(&write.key, &write.record(*version))?;
    }
    Ok(changes)
}

fn count(core: &Core, group: &Group, started: Instant, kv_writes: usize) {
    let micros = |since: Instant| u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut figures = core.figures.lock();
    figures.commits += 1;
    figures.kv_writes += kv_writes as u64;
    figures.commit_us = micros(started);
    if let Some(since) = group.since {
        figures.lag_us = micros(since);
        figures.max_lag_us = figures.max_lag_us.max(figures.lag_us);
    }
}

impl Collected {
    fn is_empty(&self) -> bool {
        self.kv.rows.is_empty()
            && self.queues.is_empty()
            && self.names.is_empty()
            && self.expired.is_empty()
            && self.blobs.is_empty()
            && self.leftover.is_empty()
    }
}
