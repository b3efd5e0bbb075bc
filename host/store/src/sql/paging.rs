//! Results too large for one answer: a query's rows page by page.

use std::{
    fmt,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::{timeout, timeout_at},
};

use super::{
    SqlError, Statement, Value,
    access::Rules,
    database::Place,
    guard::Until,
    limits::PAGED_READS,
    readers::{Abandon, Readers},
    result::Page,
};

/// How often a query that waits for its reader looks whether it still may.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The rows of a query, a page at a time, all of one snapshot. It holds a connection, and keeps redb from reusing pages,
/// until it has come to its end, its deadline has passed, or it is dropped.
pub struct Pages {
    columns: Arc<[String]>,
    /// What was read to learn the columns.
    first: Option<Vec<Vec<Value>>>,
    rest: mpsc::Receiver<Message>,
    deadline: Instant,
    ended: bool,
    _abandon: Abandon,
}

/// A page, the end, or why there is none.
type Message = Result<Option<Page>, SqlError>;

/// The places of reads that go on page by page. They are apart from the others', since they last as long as their reader
/// takes.
pub(super) struct Paging {
    places: Arc<Semaphore>,
    running: Mutex<Vec<Weak<AtomicBool>>>,
}

impl Pages {
    /// Names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The next rows, each as long as `columns`; none at the end. A page has at least one row and at most
    /// [`PAGE_ROWS`](super::limits::PAGE_ROWS) of them; it ends with the row by which it has
    /// [`PAGE_BYTES_MOST`](super::limits::PAGE_BYTES_MOST).
    pub async fn next(&mut self) -> Result<Option<Vec<Vec<Value>>>, SqlError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        if self.ended {
            return Ok(None);
        }
        let message = receive(&mut self.rest, self.deadline).await;
        self.ended = !matches!(message, Ok(Some(_)));
        Ok(message?.map(|page| page.rows))
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pages").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Paging {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(PAGED_READS)), running: Mutex::default() }
    }

    /// Ends the reads that run, and waits for that.
    pub(super) async fn close(&self) {
        for abandoned in self.running.lock().drain(..) {
            if let Some(abandoned) = abandoned.upgrade() {
                abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let all = u32::try_from(PAGED_READS).unwrap_or(u32::MAX);
        // An error says that it is closed already.
        let places = self.places.acquire_many(all).await;
        self.places.close();
        drop(places);
    }

    /// Starts a query on a fresh snapshot, and waits for its first page.
    pub(super) async fn run(
        readers: &Arc<Readers>,
        rules: Arc<Rules>,
        statement: Statement,
        deadline: Instant,
        callers: Place,
    ) -> Result<Pages, SqlError> {
        let paging = &readers.paging;
        let place = timeout_at(deadline.into(), paging.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| SqlError::deadline())?.map_err(|_| SqlError::closing())?;
        let abandon = Abandon::default();
        let until = Until { deadline, abandoned: abandon.flag() };
        {
            let mut running = paging.running.lock();
            running.retain(|flag| flag.strong_count() > 0);
            running.push(Arc::downgrade(&until.abandoned));
        }
        let (sender, mut pages) = mpsc::channel(1);
        let (readers, handle) = (readers.clone(), Handle::current());
        spawn_blocking(move || {
            let _places = (place, callers);
            let mut hand_over = |page| send(&handle, &sender, Ok(Some(page)), &until);
            let result =
                readers.with(|connection| connection.pages(&rules, &statement, &until, &mut hand_over));
            // Nobody may be there any more to hear of the end.
            let _ = send(&handle, &sender, result.map(|()| None), &until);
        });
        let first = receive(&mut pages, deadline).await?.ok_or_else(SqlError::closing)?;
        let rows = (!first.rows.is_empty()).then_some(first.rows);
        Ok(Pages {
            columns: first.columns,
            first: rows,
            rest: pages,
            deadline,
            ended: false,
            _abandon: abandon,
        })
    }
}

async fn receive(pages: &mut mpsc::Receiver<Message>, deadline: Instant) -> Message {
    let over = || if Instant::now() >= deadline { SqlError::deadline() } else { SqlError::closing() };
    pages.recv().await.unwrap_or_else(|| Err(over()))
}

/// Hands a message over as soon as the one before it was taken.
fn send(
    handle: &Handle,
    sender: &mpsc::Sender<Message>,
    message: Message,
    until: &Until,
) -> Result<(), SqlError> {
    loop {
        match handle.block_on(async { timeout(LOOK_EVERY, sender.reserve()).await }) {
            Ok(Ok(permit)) => {
                permit.send(message);
                return Ok(());
            }
            Ok(Err(_)) => return Err(SqlError::closing()),
            Err(_) if until.is_over() => return Err(SqlError::deadline()),
            Err(_) => {}
        }
    }
}
