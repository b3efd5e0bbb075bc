//! The one writer of a database: a thread that runs the waiting calls, many of them in one commit.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Outcome, SqlError, Statement,
    access::Rules,
    connection::{Connection, runs_alone},
    database::Place,
    guard::{Until, ends},
    limits::{GROUP_BYTES, GROUP_CALLS, GROUP_TIME},
    readers::Readers,
    result::Room,
    vfs::Vfs,
};
use crate::commit::Change;

/// A call that writes.
pub(super) struct Job {
    pub(super) rules: Arc<Rules>,
    pub(super) statements: Vec<Statement>,
    /// Made durable in the same commit.
    pub(super) companions: Vec<Change>,
    /// In place of statements.
    pub(super) switch: Option<Switch>,
    pub(super) deadline: Instant,
    /// How long it may run, the commit apart.
    pub(super) turn: Duration,
    pub(super) reply: oneshot::Sender<Answer>,
    pub(super) _place: Place,
}

pub(super) type Answer = Result<Vec<Outcome>, SqlError>;

/// Another file for the database.
pub(super) struct Switch {
    pub(super) vfs: Arc<Vfs>,
    /// Whether the database may have something in it.
    pub(super) replace: bool,
    /// Who reads the new file from then on.
    pub(super) readers: Arc<Readers>,
}

/// The writer's end of the queue.
pub(super) struct Writer {
    connection: Connection,
    inbox: mpsc::Receiver<Job>,
}

/// A call that has run in the open transaction.
struct Done {
    job: Job,
    outcomes: Vec<Outcome>,
}

/// Why a call did not run.
struct Failed {
    error: SqlError,
    /// The open transaction is gone, with all calls in it.
    aborted: bool,
}

impl Job {
    /// Whether it must not share a transaction: it would fail there, or could not be run again.
    fn is_alone(&self) -> bool {
        self.switch.is_some() || !self.companions.is_empty() || runs_alone(&self.statements)
    }

    fn bytes(&self) -> usize {
        self.statements.iter().map(Statement::bytes).sum()
    }

    fn until(&self) -> Until {
        Until { deadline: ends(self.deadline, self.turn), abandoned: Arc::new(AtomicBool::new(false)) }
    }

    fn answer(self, result: Answer) {
        // Nobody listens any more if the caller has gone.
        let _ = self.reply.send(result);
    }

    /// The job, unless nobody waits for it or its time is over.
    fn if_wanted(self) -> Option<Self> {
        if self.reply.is_closed() {
            return None;
        }
        if Instant::now() >= self.deadline {
            self.answer(Err(SqlError::deadline()));
            return None;
        }
        Some(self)
    }
}

impl Writer {
    pub(super) fn new(connection: Connection, inbox: mpsc::Receiver<Job>) -> Self {
        Self { connection, inbox }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Some(job) = self.inbox.blocking_recv() {
            let mut next = job.if_wanted();
            while let Some(job) = next {
                next = if job.is_alone() {
                    self.alone(job);
                    None
                } else {
                    self.group(job)
                };
            }
        }
    }

    /// Runs a call and what waits behind it in one transaction. Returns the call that has to run alone next, if it met one.
    fn group(&mut self, first: Job) -> Option<Job> {
        // One that failed to, as for want of memory, may have left its transaction open.
        self.roll_back();
        if let Err(error) = self.connection.control("BEGIN IMMEDIATE") {
            first.answer(Err(error));
            return None;
        }
        let started = Instant::now();
        let (mut done, mut bytes, mut next, mut left) = (Vec::<Done>::new(), 0, Some(first), None);
        while let Some(job) = next.take() {
            let mut room = Room::new();
            bytes += job.bytes();
            match self.in_savepoint(&job, &mut room) {
                Ok(outcomes) => done.push(Done { job, outcomes }),
                Err(Failed { error, aborted: false }) => job.answer(Err(error)),
                Err(Failed { error, aborted: true }) => {
                    self.start_over(done, job, error);
                    return None;
                }
            }
            bytes += room.taken();
            if done.len() >= GROUP_CALLS || bytes > GROUP_BYTES || started.elapsed() > GROUP_TIME {
                break;
            }
            let waiting = std::iter::from_fn(|| self.inbox.try_recv().ok()).find_map(Job::if_wanted);
            match waiting {
                Some(job) if job.is_alone() => left = Some(job),
                other => next = other,
            }
        }
        self.commit_group(done);
        left
    }

    /// Runs the calls of a lost transaction again, each on its own. The call that lost it has failed for good, unless the
    /// transaction had only become too large with the others.
    fn start_over(&mut self, done: Vec<Done>, culprit: Job, error: SqlError) {
        self.roll_back();
        let again = !done.is_empty() && matches!(error, SqlError::TooLarge(_));
        for Done { job, .. } in done {
            self.alone(job);
        }
        if again {
            self.alone(culprit);
        } else {
            culprit.answer(Err(error));
        }
    }

    fn commit_group(&mut self, done: Vec<Done>) {
        if done.is_empty() {
            self.roll_back();
            return;
        }
        match self.connection.control("COMMIT") {
            Ok(()) => {
                for Done { job, outcomes } in done {
                    job.answer(Ok(outcomes));
                }
            }
            // The disk would fail again; what else fails at the commit (deferred foreign keys, size) may be one call's fault.
            Err(error) => {
                self.roll_back();
                let unavailable = matches!(error, SqlError::Unavailable(_) | SqlError::Storage(_));
                if done.len() == 1 || unavailable {
                    for Done { job, .. } in done {
                        job.answer(Err(error.clone()));
                    }
                } else {
                    for Done { job, .. } in done {
                        self.alone(job);
                    }
                }
            }
        }
    }

    /// Runs a call as a transaction of its own.
    fn alone(&mut self, job: Job) {
        let Some(mut job) = job.if_wanted() else {
            return;
        };
        self.roll_back();
        let companions = std::mem::take(&mut job.companions);
        let result = if let Some(switch) = job.switch.take() {
            self.switch(&job, switch)
        } else if runs_alone(&job.statements) {
            self.without_transaction(&job, companions)
        } else {
            self.transaction(&job, companions)
        };
        if result.is_err() {
            self.roll_back();
        }
        job.answer(result);
    }

    fn transaction(&mut self, job: &Job, companions: Vec<Change>) -> Result<Vec<Outcome>, SqlError> {
        self.connection.control("BEGIN IMMEDIATE")?;
        let outcomes = self.statements(job, &mut Room::new())?;
        let shared = self.connection.vfs().shared();
        shared.accompany(companions);
        let committed = self.connection.control("COMMIT");
        let companions = shared.take_companions();
        committed?;
        if !companions.is_empty() {
            // The statements have changed no page, so SQLite had nothing to commit.
            shared.committer().commit(None, companions)?;
        }
        Ok(outcomes)
    }

    /// Goes over to another file. Up to its commit all stays as it was.
    fn switch(&mut self, job: &Job, switch: Switch) -> Answer {
        let Switch { vfs, replace, readers } = switch;
        if !replace {
            let tables = "SELECT 1 FROM sqlite_schema LIMIT 1".into();
            if !self.connection.query(&job.rules, &tables, &job.until())?.rows.is_empty() {
                return Err(SqlError::not_empty());
            }
        }
        let connection = Connection::writer(vfs.clone())?;
        vfs.shared().take_over()?;
        self.connection = connection;
        readers.go_over(vfs);
        Ok(Vec::new())
    }

    fn without_transaction(&self, job: &Job, companions: Vec<Change>) -> Result<Vec<Outcome>, SqlError> {
        if job.statements.len() != 1 || !companions.is_empty() {
            return Err(SqlError::Invalid("VACUUM cannot be part of a transaction".to_owned()));
        }
        self.statements(job, &mut Room::new())
    }

    fn in_savepoint(&self, job: &Job, room: &mut Room) -> Result<Vec<Outcome>, Failed> {
        let aborted = |error| Failed { error, aborted: true };
        self.connection.control("SAVEPOINT call").map_err(aborted)?;
        match self.statements(job, room) {
            Ok(outcomes) => {
                self.connection.control("RELEASE call").map_err(aborted)?;
                Ok(outcomes)
            }
            Err(error) => {
                let undone = !self.connection.is_idle()
                    && self.connection.control("ROLLBACK TO call").is_ok()
                    && self.connection.control("RELEASE call").is_ok();
                Err(Failed { error, aborted: !undone })
            }
        }
    }

    fn statements(&self, job: &Job, room: &mut Room) -> Result<Vec<Outcome>, SqlError> {
        let until = job.until();
        let outcomes = self.connection.run_all(&job.rules, &job.statements, &until, room);
        outcomes.map_err(|error| error.within(job.deadline, job.turn))
    }

    fn roll_back(&self) {
        if !self.connection.is_idle()
            && let Err(error) = self.connection.control("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back");
        }
    }
}
