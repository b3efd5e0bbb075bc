//! An open database: one writer thread, a few readers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::spawn_blocking,
};

use super::{
    Access, Outcome, Pages, SqlError, Statement,
    access::Rules,
    connection::Connection,
    limits::{ACCESSES, BATCH_STATEMENTS, DEADLINE, EXPORTS, VALUE_BYTES, WRITER_QUEUE},
    paging::Paging,
    readers::Readers,
    vfs::{Shared, Vfs},
    writer::{Answer, Job, Switch, Writer},
};
use crate::{commit::Change, core::Open};

/// A handle of a database, with an access. A clone is the same database.
#[derive(Clone)]
pub struct Database {
    pub(super) inner: Arc<Inner>,
    rules: Arc<Rules>,
    deadline: Duration,
    turn: Duration,
    place: Place,
}

/// What a call keeps until its work has ended, though its caller may have gone.
pub(super) type Place = Option<Arc<OwnedSemaphorePermit>>;

/// What the handles of one database share.
pub(super) struct Inner {
    name: Arc<str>,
    pub(super) readers: Arc<Readers>,
    /// One import at a time.
    pub(super) importing: Arc<Semaphore>,
    pub(super) exporting: Arc<Semaphore>,
    /// None: closed.
    writer: Mutex<Option<mpsc::Sender<Job>>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    accesses: Accesses,
    /// Keeps the committer running as long as a handle is there. The writer's thread holds only the core, so that
    /// the file is released with the last handle and not some time later.
    store: Option<Arc<Open>>,
}

/// One set of rules for each access in use, and for some that were, so that equal accesses share prepared statements.
#[derive(Default)]
struct Accesses {
    known: Mutex<Vec<Arc<Rules>>>,
    next: AtomicU64,
}

impl Database {
    /// A handle of the same database that can only do what `access` allows.
    #[must_use]
    pub fn with_access(&self, access: Access) -> Self {
        Self { rules: self.inner.accesses.rules(access), ..self.clone() }
    }

    /// A handle of the same database whose calls may take this long, waiting for the writer included.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// A handle of the same database whose calls may run this long once it is their turn: the writer is one for all.
    #[must_use]
    pub fn with_turn(&self, turn: Duration) -> Self {
        Self { turn, ..self.clone() }
    }

    /// A handle of the same database that keeps a place, and whose calls do until their work has ended: the work of a caller
    /// that has gone ends soon, but not at once.
    #[must_use]
    pub fn with_place(&self, place: OwnedSemaphorePermit) -> Self {
        Self { place: Some(Arc::new(place)), ..self.clone() }
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs one statement that only reads, on a snapshot.
    pub async fn query(&self, statement: Statement) -> Result<Outcome, SqlError> {
        check_bytes(std::slice::from_ref(&statement))?;
        let (rules, place) = (self.rules.clone(), self.place.clone());
        self.inner.readers.run(rules, statement, self.ends(), self.turn, place).await
    }

    /// Runs one statement that only reads, on a snapshot, for a result of any size. The deadline counts until the last page
    /// was taken; the turn does not count.
    pub async fn pages(&self, statement: Statement) -> Result<Pages, SqlError> {
        check_bytes(std::slice::from_ref(&statement))?;
        let (rules, place) = (self.rules.clone(), self.place.clone());
        Paging::run(&self.inner.readers, rules, statement, self.ends(), place).await
    }

    /// Runs one statement that may write, as a transaction of its own; on disk when it returns.
    pub async fn execute(&self, statement: Statement) -> Result<Outcome, SqlError> {
        let outcomes = self.write(vec![statement], Vec::new()).await?;
        outcomes.into_iter().next().ok_or_else(SqlError::closing)
    }

    /// Runs statements in one transaction: all of them, or on an error none. On disk when it returns.
    pub async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<Outcome>, SqlError> {
        self.write(statements, Vec::new()).await
    }

    /// Whether this is a database of that store.
    pub(super) fn belongs_to(&self, store: &Arc<Open>) -> bool {
        self.inner.store.as_ref().is_some_and(|own| Arc::ptr_eq(own, store))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(super) fn check_access(&self, enough: &[Access]) -> Result<(), SqlError> {
        if enough.contains(self.rules.access()) {
            return Ok(());
        }
        Err(SqlError::AccessDenied("the handle does not cover the whole database".to_owned()))
    }

    pub(super) async fn write(
        &self,
        statements: Vec<Statement>,
        companions: Vec<Change>,
    ) -> Result<Vec<Outcome>, SqlError> {
        if *self.rules.access() == Access::ReadOnly {
            return Err(SqlError::AccessDenied("the handle only reads".to_owned()));
        }
        if statements.len() > BATCH_STATEMENTS {
            return Err(SqlError::TooLarge(format!("a batch has at most {BATCH_STATEMENTS} statements")));
        }
        check_bytes(&statements)?;
        let (reply, answer) = oneshot::channel();
        let (rules, deadline, turn) = (self.rules.clone(), self.ends(), self.turn);
        let place = self.place.clone();
        let job = Job { rules, statements, companions, switch: None, deadline, turn, reply, _place: place };
        self.inner.send(job, answer).await
    }

    pub(super) fn ends(&self) -> Instant {
        Instant::now() + self.deadline
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut structure = formatter.debug_struct("Database");
        structure.field("name", &self.inner.name).field("access", self.rules.access()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Opens the writer's connection and starts its thread. Blocks shortly.
    pub(super) fn open(name: Arc<str>, shared: Shared, store: Option<Arc<Open>>) -> Result<Self, SqlError> {
        let unavailable = |error: &dyn fmt::Display| SqlError::Unavailable(error.to_string());
        let vfs = Arc::new(Vfs::register(Arc::new(shared)).map_err(|error| unavailable(&error))?);
        let connection = Connection::writer(vfs.clone())?;
        let (sender, inbox) = mpsc::channel(WRITER_QUEUE);
        let writer = Writer::new(connection, inbox);
        let thread = thread::Builder::new().name(format!("sql-{name}")).spawn(move || writer.run());
        Ok(Self {
            name,
            readers: Arc::new(Readers::new(vfs)),
            importing: Arc::new(Semaphore::new(1)),
            exporting: Arc::new(Semaphore::new(EXPORTS)),
            writer: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread.map_err(|error| unavailable(&error))?)),
            accesses: Accesses::default(),
            store,
        })
    }

    /// A handle with full access.
    pub(super) fn handle(self: &Arc<Self>) -> Database {
        Database {
            inner: self.clone(),
            rules: self.accesses.rules(Access::Full),
            deadline: DEADLINE,
            turn: Duration::MAX,
            place: None,
        }
    }

    /// Lets the writer go over to another file, after what waits.
    pub(super) async fn switch(
        &self,
        vfs: Arc<Vfs>,
        replace: bool,
        deadline: Instant,
    ) -> Result<(), SqlError> {
        let (reply, answer) = oneshot::channel();
        let switch = Some(Switch { vfs, replace, readers: self.readers.clone() });
        let (rules, turn) = (self.accesses.rules(Access::Full), Duration::MAX);
        let (statements, companions) = (Vec::new(), Vec::new());
        let job = Job { rules, statements, companions, switch, deadline, turn, reply, _place: None };
        self.send(job, answer).await.map(drop)
    }

    async fn send(&self, job: Job, answer: oneshot::Receiver<Answer>) -> Answer {
        let writer = self.writer.lock().clone().ok_or_else(SqlError::closing)?;
        let sent = tokio::time::timeout_at(job.deadline.into(), writer.send(job)).await;
        sent.map_err(|_| SqlError::deadline())?.map_err(|_| SqlError::closing())?;
        answer.await.unwrap_or_else(|_| Err(SqlError::closing()))
    }

    /// Lets the writer finish what waits, and ends it.
    pub(super) async fn close(&self) {
        self.writer.lock().take();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = spawn_blocking(move || thread.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!(database = &*self.name, "the writer has panicked");
            }
        }
        self.readers.close().await;
    }
}

impl Accesses {
    fn rules(&self, access: Access) -> Arc<Rules> {
        let mut known = self.known.lock();
        if let Some(rules) = known.iter().find(|rules| *rules.access() == access) {
            return rules.clone();
        }
        if known.len() >= ACCESSES {
            known.retain(|rules| Arc::strong_count(rules) > 1);
        }
        let rules = Arc::new(Rules::new(access, self.next.fetch_add(1, Ordering::Relaxed)));
        known.push(rules.clone());
        rules
    }
}

fn check_bytes(statements: &[Statement]) -> Result<(), SqlError> {
    if statements.iter().map(Statement::bytes).sum::<usize>() > VALUE_BYTES {
        return Err(SqlError::TooLarge(format!(
            "a call has at most {VALUE_BYTES} bytes of text and parameters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: usize) -> Access {
        Access::Tables { rules: vec![super::super::TableGrant::read(format!("t{number}"))] }
    }

    /// The mark stands in the text of prepared statements.
    #[test]
    fn accesses_that_alternate_keep_their_marks_and_no_more_than_some_are_remembered() {
        let accesses = Accesses::default();
        let first = accesses.rules(Access::ReadOnly).mark.clone();
        for number in 0..10 {
            accesses.rules(table(number));
        }
        assert_eq!(accesses.rules(Access::ReadOnly).mark, first);
        for number in 0..3 * ACCESSES {
            accesses.rules(table(number));
        }
        assert!(accesses.known.lock().len() <= ACCESSES);
    }
}
