use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tollgate_store::sql::{Statement, Value};

use super::*;
use crate::plugin::background::Background;
use crate::plugin::fixture::Home;
use crate::plugin::ingestion::{Event, Receipt};

/// Keeps what it is given; fails on the events called `poison`, and as long as it is closed.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    names: Vec<String>,
    closed: bool,
    refused: u32,
    /// Takes one event at a time.
    slow: bool,
}

impl Sink for Kept {
    async fn ingest(&self, batch: &Arc<[Event]>) -> Result<Receipt, SinkError> {
        let mut kept = self.0.lock();
        if kept.closed || kept.slow && batch.len() > 1 {
            kept.refused += 1;
            return Err(SinkError::Unavailable("closed".to_owned()));
        }
        if batch.iter().any(|event| event.request_id == "poison") {
            return Err(SinkError::Failed("it is poison".to_owned()));
        }
        kept.names.extend(batch.iter().map(|event| event.request_id.clone()));
        Ok(Receipt { stored: u32::try_from(batch.len()).unwrap(), repeated: 0 })
    }
}

async fn start(home: &Home, sink: impl Sink) -> Ingestion {
    start_on(&Handle::current(), home, sink).await
}

async fn start_on(on: &Handle, home: &Home, sink: impl Sink) -> Ingestion {
    let database = home.store.database("gateway").unwrap();
    let queue = home.store.queue("events", 1 << 20).unwrap();
    Ingestion::start(on, home.store.clone(), database, queue, sink, Arc::new(|| 7)).await.unwrap()
}

fn event(name: &str) -> EventRecord {
    EventRecord { request_id: name.to_owned(), ..EventRecord::default() }
}

async fn dead_letters(home: &Home) -> Vec<Vec<Value>> {
    let sql = "SELECT time_ms, reason, iif(json_valid(event), json_extract(event, '$.request_id'), event)
               FROM ingestion_dead_letters";
    home.store.database("gateway").unwrap().query(Statement::new(sql, Vec::new())).await.unwrap().rows
}

#[tokio::test]
async fn events_arrive_in_order_and_leave_the_queue() {
    let (home, sink) = (Home::new(), Kept::default());
    let ingestion = start(&home, sink.clone()).await;
    let names: Vec<_> = (0..1_500).map(|number| number.to_string()).collect();
    for name in &names {
        ingestion.events().record(event(name)).unwrap();
    }
    assert!(ingestion.flush(Duration::from_secs(20)).await);
    assert_eq!(sink.0.lock().names, names);
    assert_eq!(ingestion.events().queue.bytes(), 0);
    ingestion.stop().await;
}

#[tokio::test]
async fn a_poisonous_event_is_set_aside_and_the_rest_flows_on() {
    let (home, sink) = (Home::new(), Kept::default());
    let ingestion = start(&home, sink.clone()).await;
    for name in ["a", "poison", "b"] {
        ingestion.events().record(event(name)).unwrap();
    }
    ingestion.events().queue.append(b"?".to_vec()).unwrap();
    ingestion.events().record(event("c")).unwrap();
    assert!(ingestion.flush(Duration::from_secs(60)).await);
    let names: HashSet<_> = sink.0.lock().names.iter().cloned().collect();
    assert_eq!(names, HashSet::from(["a", "b", "c"].map(str::to_owned)));
    let letters = dead_letters(&home).await;
    let poison = ["it is poison", "poison"].map(|text| Value::Text(text.to_owned()));
    assert!(letters.iter().any(|row| row[0] == Value::Integer(7) && row[1..] == poison), "{letters:?}");
    assert_eq!(letters.len(), 2, "{letters:?}");
    ingestion.stop().await;
}

#[tokio::test]
async fn nobody_there_is_not_the_events_fault() {
    let (home, sink) = (Home::new(), Kept::default());
    sink.0.lock().closed = true;
    let ingestion = start(&home, sink.clone()).await;
    ingestion.events().record(event("a")).unwrap();
    assert!(!ingestion.flush(Duration::from_millis(1_000)).await);
    assert!(sink.0.lock().refused > 2);
    sink.0.lock().closed = false;
    assert!(ingestion.flush(Duration::from_secs(20)).await);
    assert_eq!(sink.0.lock().names, ["a"]);
    assert!(dead_letters(&home).await.is_empty());
    ingestion.stop().await;
}

/// Such a batch was once tried whole for ever.
#[tokio::test]
async fn a_batch_too_large_for_the_deadline_goes_one_by_one() {
    let (home, sink) = (Home::new(), Kept::default());
    sink.0.lock().slow = true;
    let ingestion = start(&home, sink.clone()).await;
    for name in ["a", "b", "c"] {
        ingestion.events().record(event(name)).unwrap();
    }
    assert!(ingestion.flush(Duration::from_secs(20)).await);
    assert_eq!(sink.0.lock().names, ["a", "b", "c"]);
    assert!(dead_letters(&home).await.is_empty());
    ingestion.stop().await;
}

#[tokio::test]
async fn what_is_left_at_the_end_comes_after_the_next_start() {
    let (home, sink) = (Home::new(), Kept::default());
    sink.0.lock().closed = true;
    let ingestion = start(&home, sink.clone()).await;
    ingestion.events().record(event("a")).unwrap();
    assert!(!ingestion.flush(Duration::ZERO).await);
    ingestion.stop().await;
    sink.0.lock().closed = false;
    let ingestion = start(&home, sink.clone()).await;
    ingestion.events().record(event("b")).unwrap();
    assert!(ingestion.flush(Duration::from_secs(20)).await);
    assert_eq!(sink.0.lock().names, ["a", "b"]);
    ingestion.stop().await;
}

/// Blocks its thread until it is let go.
struct Blocking {
    entered: tokio::sync::mpsc::UnboundedSender<()>,
    go: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Sink for Blocking {
    async fn ingest(&self, batch: &Arc<[Event]>) -> Result<Receipt, SinkError> {
        self.entered.send(()).unwrap();
        self.go.lock().recv().unwrap();
        Ok(Receipt { stored: u32::try_from(batch.len()).unwrap(), repeated: 0 })
    }
}

/// With the driver on a worker of this test's runtime, which has one, nobody could let it go.
#[tokio::test]
async fn a_call_that_keeps_its_thread_keeps_nobody_else() {
    let (home, background) = (Home::new(), Background::start().unwrap());
    let (entered, mut enters) = tokio::sync::mpsc::unbounded_channel();
    let (let_go, go) = std::sync::mpsc::channel();
    let sink = Blocking { entered, go: Mutex::new(go) };
    let ingestion = start_on(background.handle(), &home, sink).await;
    ingestion.events().record(event("a")).unwrap();
    enters.recv().await.unwrap();
    let_go.send(()).unwrap();
    assert!(ingestion.flush(Duration::from_secs(20)).await);
    ingestion.stop().await;
    background.stop().await;
    home.store.close().await.unwrap();
}

#[test]
fn long_texts_are_cut_between_characters() {
    let mut record = event("r");
    record.user_agent = "ä".repeat(MAX_EVENT_TEXT_BYTES);
    record.error_message = Some("e".repeat(MAX_EVENT_TEXT_BYTES + 1));
    record.cut_texts();
    assert_eq!(record.user_agent.len(), MAX_EVENT_TEXT_BYTES);
    assert_eq!(record.error_message.unwrap().len(), MAX_EVENT_TEXT_BYTES);
}
