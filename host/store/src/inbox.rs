//! What waits for the committer.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    StorageError,
    commit::{Ack, Change, CommitError, gone},
    kv::snapshot::Rows,
    limits::{GROUP_BYTES, INBOX_BYTES, MESSAGE_BYTES, MESSAGE_OVERHEAD, RELAXED_FLUSH_AFTER},
};

type Answer = oneshot::Sender<Result<(), CommitError>>;
pub(crate) type SnapshotAnswer = oneshot::Sender<Result<Rows, CommitError>>;

/// Messages, and the news that relaxed writes wait.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    /// Whether relaxed writes wait that the committer knows of. Reset before it collects, so that a write which saw it
    /// set is collected.
    relaxed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    snapshots: Vec<SnapshotAnswer>,
    bytes: usize,
    relaxed_since: Option<Instant>,
    stop: bool,
    stopped: Vec<Answer>,
    ended: Option<Result<(), CommitError>>,
}

/// Changes that become durable together.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) changes: Vec<Change>,
    pub(crate) answer: Answer,
    bytes: usize,
    since: Instant,
}

/// What one commit takes.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) messages: Vec<Message>,
    /// Who waits for a snapshot of what it made visible.
    pub(crate) snapshots: Vec<SnapshotAnswer>,
    /// When the oldest write in it was made.
    pub(crate) since: Option<Instant>,
    /// Whether nothing comes after it.
    pub(crate) last: bool,
}

impl Inbox {
    /// Takes a message.
    pub(crate) fn submit(&self, changes: Vec<Change>) -> Ack {
        let (pages, rest): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| matches!(change, Change::Pages(_)));
        let [pages, rest]: [usize; 2] = [pages, rest].map(|part| part.into_iter().map(Change::size).sum());
        let content = pages + rest;
        // An SQL transaction cannot be split; its pages have a limit of their own.
        if rest > MESSAGE_BYTES {
            let text = format!("one commit takes at most {MESSAGE_BYTES} bytes, and this is {rest}");
            return Ack::known(Err(CommitError::TooLarge(text)));
        }
        let bytes = content + MESSAGE_OVERHEAD;
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal(bytes) {
            return Ack::known(Err(refusal));
        }
        let (answer, receiver) = oneshot::channel();
        state.bytes += bytes;
        state.messages.push_back(Message { changes, answer, bytes, since: Instant::now() });
        drop(state);
        self.wake.notify_one();
        Ack::waiting(receiver)
    }

    /// Asks for a snapshot of everything written before.
    pub(crate) async fn snapshot(&self) -> Result<Rows, CommitError> {
        let receiver = {
            let mut state = self.state.lock();
            if let Some(refusal) = state.refusal(MESSAGE_OVERHEAD) {
                return Err(refusal);
            }
            let (answer, receiver) = oneshot::channel();
            state.bytes += MESSAGE_OVERHEAD;
            state.snapshots.push(answer);
            receiver
        };
        self.wake.notify_one();
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Says that something written in memory waits to be collected.
    pub(crate) fn touch(&self) {
        if !self.relaxed.load(Ordering::SeqCst) && !self.relaxed.swap(true, Ordering::SeqCst) {
            self.state.lock().relaxed_since.get_or_insert_with(Instant::now);
            self.wake.notify_one();
        }
    }

    /// Takes no more messages; the answer comes when the committer has ended.
    pub(crate) fn stop(&self) -> Ack {
        let mut state = self.state.lock();
        if let Some(end) = &state.ended {
            return Ack::known(end.clone());
        }
        let (answer, receiver) = oneshot::channel();
        state.stop = true;
        state.stopped.push(answer);
        drop(state);
        self.wake.notify_one();
        Ack::waiting(receiver)
    }

    /// For the committer: waits for something to do, at most until `idle_until`.
    pub(crate) fn next(&self, idle_until: Instant) -> Group {
        let mut state = self.state.lock();
        while state.messages.is_empty() && state.snapshots.is_empty() && !state.stop {
            let until = state.relaxed_since.map_or(idle_until, |since| since + RELAXED_FLUSH_AFTER);
            if self.wake.wait_until(&mut state, until.min(idle_until)).timed_out() {
                break;
            }
        }
        let group = state.take();
        drop(state);
        self.relaxed.store(false, Ordering::SeqCst);
        group
    }

    /// For the committer: it has ended, and nothing is taken any more.
    pub(crate) fn end(&self, result: &Result<(), CommitError>, refusal: &CommitError) {
        let mut state = self.state.lock();
        state.ended = Some(result.clone());
        state.stop = true;
        state.bytes = 0;
        let messages = std::mem::take(&mut state.messages);
        let stopped = std::mem::take(&mut state.stopped);
        let snapshots = std::mem::take(&mut state.snapshots);
        drop(state);
        for answer in snapshots {
            let _ = answer.send(Err(refusal.clone()));
        }
        for message in messages {
            // Nobody may be waiting any more.
            let _ = message.answer.send(Err(refusal.clone()));
        }
        for answer in stopped {
            let _ = answer.send(result.clone());
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl State {
    fn refusal(&self, bytes: usize) -> Option<CommitError> {
        if let Some(Err(error)) = &self.ended {
            return Some(error.clone());
        }
        if self.stop {
            return Some(StorageError::Closed.into());
        }
        (self.bytes + bytes > INBOX_BYTES)
            .then(|| CommitError::Unavailable(format!("over {INBOX_BYTES} bytes wait for the disk")))
    }

    fn take(&mut self) -> Group {
        let mut group = Group { since: self.relaxed_since.take(), ..Group::default() };
        let mut bytes = 0;
        while let Some(message) = self.messages.front() {
            if bytes > 0 && bytes + message.bytes > GROUP_BYTES {
                break;
            }
            bytes += message.bytes;
            group.since = Some(group.since.map_or(message.since, |since| since.min(message.since)));
            group.messages.extend(self.messages.pop_front());
        }
        group.snapshots = std::mem::take(&mut self.snapshots);
        bytes += group.snapshots.len() * MESSAGE_OVERHEAD;
        self.bytes = self.bytes.saturating_sub(bytes);
        group.last = self.stop && self.messages.is_empty();
        group
    }
}
