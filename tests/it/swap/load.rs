//! Requests that go on while something is done, how they end, and how long they take.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Client, eventually};

/// Requests, one after the other on each of its tasks, until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    counts: [AtomicU64; 3],
    times: Mutex<Vec<Duration>>,
}

/// How the requests ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    pub admitted: u64,
    /// By a limit, or because another one is under way.
    pub refused: u64,
    pub failed: u64,
}

/// How long requests took.
pub struct Times(Vec<Duration>);

impl fmt::Display for Times {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times(sorted) = self;
        let [p50, p99, longest] = [50, 99, 100].map(|percent| {
            let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(place).map_or(0, Duration::as_micros)
        });
        let requests = sorted.len();
        write!(formatter, "{requests} requests: p50 {p50} µs, p99 {p99} µs, longest {longest} µs")
    }
}

impl Load {
    /// Sends what `ask` sends, which answers its status, on so many tasks.
    pub fn start<F>(tasks: usize, ask: impl Fn() -> F + Clone + Send + 'static) -> Load
    where
        F: Future<Output = u16> + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let tasks = (0..tasks).map(|_| tokio::spawn(run(shared.clone(), ask.clone()))).collect();
        Load { shared, tasks }
    }

    /// Chat requests on four tasks.
    pub fn chats(client: &Client) -> Load {
        let client = client.clone();
        Load::start(4, move || {
            let client = client.clone();
            async move { client.chat("gpt-test").await.status.as_u16() }
        })
    }

    /// The times of the requests since it was asked the last time.
    pub fn times(&self) -> Times {
        let mut times = std::mem::take(&mut *self.shared.times.lock().unwrap());
        times.sort_unstable();
        Times(times)
    }

    /// Waits until so many requests have ended since the times were taken.
    pub async fn wait_for(&self, requests: usize) {
        eventually("the requests are answered", || async {
            (self.shared.times.lock().unwrap().len() >= requests).then_some(())
        })
        .await;
    }

    pub async fn stop(self) -> Counts {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let [admitted, refused, failed] =
            [0, 1, 2].map(|place: usize| self.shared.counts[place].load(Ordering::Relaxed));
        Counts { admitted, refused, failed }
    }
}

async fn run<F: Future<Output = u16>>(shared: Arc<Shared>, ask: impl Fn() -> F) {
    while !shared.stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let status = ask().await;
        let place = match status {
            200 => 0,
            409 | 429 => 1,
            _ => 2,
        };
        if place == 2 && shared.counts[2].load(Ordering::Relaxed) == 0 {
            eprintln!("a request failed with status {status}");
        }
        shared.counts[place].fetch_add(1, Ordering::Relaxed);
        shared.times.lock().unwrap().push(began.elapsed());
    }
}
