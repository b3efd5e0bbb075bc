//! CPU time of all policy calls of one request: blacklist and quota, client and account, admit and settle, with the
//! real bindings, the committed components and the real kv, on one thread.
//!
//! `cargo bench --bench policy [-- NAME]`, with a part of a line's name for this line alone. The kv calls alone, made
//! natively, stand beside it.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark stops where it stands")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tollgate::capability::Stores;
use tollgate::plugin::admission::{Ending, Limits, Request, Subject, SubjectKind, Usage};
use tollgate::plugin::{ActivePlugin, Admissions, Engine, Generation, Identity, Manifest, Verdict};
use tollgate_store::{Acknowledge, Kv, KvOptions, Options, Store, Swapped};

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Requests of one round: long against the settler's pauses.
const REQUESTS: u64 = 20_000;

/// Rounds of each kind, interleaved; the median is printed.
const ROUNDS: usize = 7;

/// Bytes of the value that the native calls write: about what quota keeps of a subject.
const VALUE_BYTES: usize = 1_024;

/// A CPU time of this thread, and of all threads.
#[derive(Clone, Copy)]
struct Cpu {
    thread: Duration,
    process: Duration,
}

struct Bench {
    admissions: Admissions,
    generations: Vec<Arc<Generation>>,
    native: Kv,
    now_ms: Arc<AtomicU64>,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(&directory.path().join("store.redb"), Options::default())?;
    let bench = Bench::new(&store)?;
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut kinds = vec![
        ("policies, one pair of keys", 1),
        ("policies, 10,000 pairs", 10_000),
        ("kv alone, natively", 0),
    ];
    kinds.retain(|(name, _)| name.contains(&only));
    let mut rounds = vec![Vec::new(); kinds.len()];
    for _ in 0..=ROUNDS {
        for ((_, pairs), rounds) in kinds.iter().zip(&mut rounds) {
            rounds.push(bench.round(*pairs).await?);
        }
    }
    println!("{:28} {:>18} {:>18}", "µs CPU a request", "this thread", "all threads");
    for ((name, _), rounds) in kinds.iter().zip(&mut rounds) {
        // The first round warms caches and instances.
        let rounds = rounds.get_mut(1..).context("no rounds")?;
        println!(
            "{name:28} {:>18} {:>18}",
            spread(rounds, |cpu| cpu.thread),
            spread(rounds, |cpu| cpu.process)
        );
    }
    bench.admissions.shutdown().await;
    for generation in &bench.generations {
        println!("{}: {:?}", generation.name(), generation.counters());
    }
    store.close().await?;
    Ok(())
}

impl Bench {
    fn new(store: &Store) -> Result<Bench> {
        let relaxed =
            KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: None, limit_bytes: None };
        let mut kv = BTreeMap::new();
        kv.insert("blacklist".to_owned(), store.kv("blacklist", KvOptions::default())?);
        kv.insert("quota".to_owned(), store.kv("quota", relaxed)?);
        let native = store.kv("native", relaxed)?;
        let stores = Stores::new(kv, BTreeMap::new());
        let engine = Engine::new()?;
        let load = |name| Ok(Arc::new(load(&engine, &stores, name)?));
        let generations = ["blacklist", "quota"].into_iter().map(load).collect::<Result<Vec<_>>>()?;
        let now_ms = Arc::new(AtomicU64::new(1_800_000_000_000));
        let clock = now_ms.clone();
        let admissions = Admissions::new(Arc::new(move || clock.load(Ordering::Relaxed)));
        admissions.install(generations.iter().cloned().map(ActivePlugin::new).collect());
        Ok(Bench { admissions, generations, native, now_ms })
    }

    /// CPU time of one request over many, with so many pairs of keys; 0: the native calls.
    async fn round(&self, pairs: u64) -> Result<Cpu> {
        let subjects: Vec<_> = (0..pairs).map(pair).collect();
        let before = Cpu::now()?;
        for number in 0..REQUESTS {
            self.now_ms.fetch_add(1, Ordering::Relaxed);
            match subjects.get((number % pairs.max(1)) as usize) {
                Some(subjects) => self.request(number, subjects).await?,
                None => self.natively().await?,
            }
        }
        while self.admissions.open_leases() > 0 {
            tokio::task::yield_now().await;
        }
        let after = Cpu::now()?;
        let each = |after: Duration, before: Duration| after.saturating_sub(before) / REQUESTS as u32;
        Ok(Cpu { thread: each(after.thread, before.thread), process: each(after.process, before.process) })
    }

    async fn request(&self, number: u64, subjects: &[Arc<Subject>]) -> Result<()> {
        let request = Request {
            id: format!("request-{number}"),
            now_ms: self.now_ms.load(Ordering::Relaxed),
            dialect: "openai".to_owned(),
            endpoint: "/v1/chat/completions".to_owned(),
            model: "gpt-5-mini".to_owned(),
            prompt_tokens: 700,
            estimated_tokens: 2_000,
            estimated_cost: None,
            streaming: false,
        };
        let verdicts = self.admissions.admit(Arc::new(request), subjects.to_vec()).await;
        // As a request waits for its upstream: other tasks, the settler among them, get their turn.
        tokio::task::yield_now().await;
        for verdict in verdicts {
            let Verdict::Allowed(lease) = verdict else {
                let leases = self.admissions.open_leases();
                let counters: Vec<_> = self.generations.iter().map(|plugin| plugin.counters()).collect();
                anyhow::bail!("request {number} with {leases} leases open, {counters:?}: {verdict:?}")
            };
            lease.settle(Usage {
                ending: Ending::Completed,
                status: Some(200),
                input_tokens: 700,
                output_tokens: 300,
                cost: None,
                duration_ms: 900,
                retry_after_ms: None,
                reached: None,
            });
        }
        Ok(())
    }

    /// What the policies ask of kv: one lookup for each subject, one read and swap each to admit and to settle.
    async fn natively(&self) -> Result<()> {
        for key in ["client", "account"] {
            self.native.get("absent").await?;
            for _ in 0..2 {
                let version = self.native.get(key).await?.map(|entry| entry.version);
                let swapped = self.native.swap(key, version, vec![0; VALUE_BYTES], Some(60_000)).await?;
                anyhow::ensure!(matches!(swapped, Swapped::Swapped(_)), "a swap failed");
            }
        }
        Ok(())
    }
}

fn load(engine: &Engine, stores: &Stores, name: &str) -> Result<Generation> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
    let wasm = std::fs::read(root.join(format!("prebuilt/{name}.wasm")))?;
    let manifest = std::fs::read_to_string(root.join(name).join("plugin.toml"))?;
    let identity = Identity { digest: "bench".to_owned(), number: 1 };
    let component = engine.compile(&wasm)?;
    Ok(Generation::new(engine, &component, Manifest::parse(&manifest)?, identity, stores)?)
}

fn pair(number: u64) -> Vec<Arc<Subject>> {
    let subject = |kind, id: String| {
        let limits =
            Limits { rpm: Some(1 << 40), tpm: Some(1 << 40), rpd: Some(1 << 40), further: Vec::new() };
        Arc::new(Subject { kind, name: format!("subject {number}").into(), id: id.into(), limits })
    };
    vec![
        subject(SubjectKind::Client, format!("{:064x}", number * 2)),
        subject(SubjectKind::Account, format!("{:064x}", number * 2 + 1)),
    ]
}

impl Cpu {
    fn now() -> Result<Cpu> {
        let mut process = Duration::ZERO;
        for task in std::fs::read_dir("/proc/self/task")? {
            // A thread that ends meanwhile takes its time with it.
            process += on_cpu(&task?.path().join("schedstat")).unwrap_or_default();
        }
        Ok(Cpu { thread: on_cpu(Path::new("/proc/thread-self/schedstat"))?, process })
    }
}

fn on_cpu(schedstat: &Path) -> Result<Duration> {
    let text = std::fs::read_to_string(schedstat)?;
    let nanoseconds = text.split(' ').next().context("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// Median and range in µs.
fn spread(rounds: &mut [Cpu], of: impl Fn(&Cpu) -> Duration) -> String {
    let mut micros: Vec<f64> = rounds.iter().map(|cpu| of(cpu).as_nanos() as f64 / 1_000.0).collect();
    micros.sort_by(f64::total_cmp);
    let at = |index: usize| micros.get(index).copied().unwrap_or_default();
    format!("{:.1} ({:.1}–{:.1})", at(micros.len() / 2), at(0), at(micros.len().saturating_sub(1)))
}
