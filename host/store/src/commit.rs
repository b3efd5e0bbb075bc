//! The committer: one thread owns the write transaction and groups what waits into one commit.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::{kv::KvWrite, sql::pages::PageBatch};

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
    /// The disk failed or the store is closed; it is not known whether the changes are on disk.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// One part of a message. The parts of one message become durable together, or not at all.
#[derive(Debug)]
pub(crate) enum Change {
    /// Pages of an SQL database.
    Pages(PageBatch),
    /// Writes to kv stores, which become visible when they are durable.
    Kv(Vec<KvWrite>),
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

fn gone() -> CommitError {
    CommitError::Unavailable("the committer has ended".to_owned())
}
