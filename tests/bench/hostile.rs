//! What a hostile policy does to its neighbour: the time from a request's arrival to the neighbour's answer, alone and
//! while the hostile one runs as often as it may.
//!
//! `cargo bench --bench hostile [-- NAME]`. The neighbour is what ships: blacklist and quota over the real kv. Requests
//! arrive at fixed times, so that one that has to wait for a worker counts its waiting.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where it stands"
)]
#![allow(unreachable_pub, missing_docs, reason = "a benchmark has no API")]

#[path = "../it/support/component.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod component;
#[path = "../it/support/guest.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod guest;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tollgate::capability::Stores;
use tollgate::plugin::admission::{Ending, Limits, Request, Subject, SubjectKind, Usage};
use tollgate::plugin::{ActivePlugin, Admissions, Engine, Generation, Identity, Manifest, Verdict};
use tollgate_store::{Acknowledge, Kv, KvOptions, Options, SetOptions, Store};

use guest::{ALLOW, Guest};

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time between two requests: far from what the machine can do, so that only the hostile one makes them wait.
const PACE: Duration = Duration::from_micros(500);

/// How long one round lasts.
const ROUND: Duration = Duration::from_millis(400);

/// Rounds of each kind, a quiet and a hostile one in turn; the median round is printed.
const ROUNDS: usize = 7;

/// Requests that the hostile policy is asked about at once, at most; it is asked at the same pace.
const AT_ONCE: usize = 64;

struct Bench {
    engine: Engine,
    stores: Stores,
    neighbour: Admissions,
}

fn main() -> Result<()> {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let store = Store::open(&directory.path().join("store.redb"), Options::default())?;
    let bench = runtime.block_on(Bench::new(&store))?;
    println!(
        "{:28} {:>10} {:>10} {:>12} {:>12} {:>8}",
        "µs", "quiet p50", "quiet p99", "hostile p50", "hostile p99", "ratio"
    );
    for (name, guest) in hostile().into_iter().filter(|(name, _)| name.contains(&only)) {
        let (mut quiet, mut loud) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for _ in 0..ROUNDS {
            bench.round(&runtime, &mut quiet)?;
            let _running = bench.attack(&runtime, &guest)?;
            bench.round(&runtime, &mut loud)?;
        }
        let [[p50, p99], [loud_p50, loud_p99]] = [quiet, loud].map(|rounds| rounds.map(median));
        let ratio = loud_p99 as f64 / p99 as f64;
        println!("{name:28} {p50:>10} {p99:>10} {loud_p50:>12} {loud_p99:>12} {ratio:>8.2}");
    }
    runtime.block_on(store.close())?;
    Ok(())
}

/// What the hostile policy does in each `admit`.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let many = "(call $get_many (call $store) (i32.const 1536) (i32.const 8) (i32.const 800))";
    let get = "(call $get (call $store) (i32.const 1600) (i32.const 1) (i32.const 800))";
    // Eight keys of one byte, for the values of 1 MiB that `Bench::new` writes.
    let keys: String = (0..8).map(|_| "\\40\\06\\00\\00\\01\\00\\00\\00").collect();
    let keys = format!("(data (i32.const 1536) \"{keys}\") (data (i32.const 1600) \"v\")");
    let print = "(call $print (i32.const 1600) (i32.const 64))";
    let kv = || Guest::new().kv("hostile").define(&keys);
    vec![
        ("nothing", Guest::new().build()),
        ("an endless loop", Guest::new().admit("(loop $on (br $on)) unreachable").build()),
        ("a loop in host calls", kv().admit(&format!("(loop $on {get} (br $on)) unreachable")).build()),
        ("answers of 8 MiB", kv().admit(&format!("(loop $on {many} (br $on)) unreachable")).build()),
        ("a memory bomb", Guest::new().admit("(loop $on (memory.fill (i32.const 0) (i32.const 0) (i32.mul (memory.size) (i32.const 65536))) (br_if $on (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable").build()),
        ("a trap on every call", Guest::new().admit("unreachable").build()),
        ("a log flood", Guest::new().stdout().admit(&format!("(loop $on {print} (br $on)) unreachable")).build()),
        ("a good policy", kv().admit(&format!("{get} {ALLOW}")).build()),
    ]
}

impl Bench {
    async fn new(store: &Store) -> Result<Bench> {
        let relaxed =
            KvOptions { acknowledge: Acknowledge::Relaxed, default_ttl_ms: None, limit_bytes: None };
        let mut kv = BTreeMap::<String, Kv>::new();
        for name in ["blacklist", "quota", "hostile"] {
            kv.insert(name.to_owned(), store.kv(name, relaxed)?);
        }
        let large = kv.get("hostile").context("no store")?;
        large.set("v", vec![7; 1 << 20], SetOptions::default()).await?;
        let (engine, stores) = (Engine::new()?, Stores::new(kv, BTreeMap::new()));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let shipped = ["blacklist", "quota"].map(|name| -> Result<Arc<ActivePlugin>> {
            let wasm = std::fs::read(root.join(format!("prebuilt/{name}.wasm")))?;
            load(&engine, &stores, &wasm, &std::fs::read_to_string(root.join(name).join("plugin.toml"))?)
        });
        let neighbour = Admissions::new(Arc::new(now_ms));
        neighbour.install(shipped.into_iter().collect::<Result<_>>()?);
        Ok(Bench { engine, stores, neighbour })
    }

    /// Asks the hostile policy until the handle is dropped.
    fn attack(&self, runtime: &tokio::runtime::Runtime, wasm: &[u8]) -> Result<AbortOnDropHandle<()>> {
        let _inside = runtime.enter();
        let manifest = "name = \"hostile\"\non-error = \"allow\"\n[grants.kv]\nhostile = \"read-write\"";
        let chain = Admissions::new(Arc::new(now_ms));
        chain.install(vec![load(&self.engine, &self.stores, wasm, manifest)?]);
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let attack = runtime.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(1));
            let mut asked = JoinSet::new();
            loop {
                ticks.tick().await;
                for _ in 0..(Duration::from_millis(1).as_micros() / PACE.as_micros()) {
                    let Ok(place) = places.clone().try_acquire_owned() else { break };
                    let chain = chain.clone();
                    asked.spawn(async move {
                        drop(chain.admit(request(0), subjects()).await);
                        drop(place);
                    });
                }
                while asked.try_join_next().is_some() {}
            }
        });
        Ok(AbortOnDropHandle::new(attack))
    }

    /// Adds the median and the 99th percentile of the times from arrival to the neighbour's answer.
    fn round(&self, runtime: &tokio::runtime::Runtime, [p50, p99]: &mut [Vec<u128>; 2]) -> Result<()> {
        let times = Arc::new(Mutex::new(Vec::new()));
        let subjects = subjects();
        let (start, mut number, mut tasks) = (Instant::now(), 0_u32, Vec::new());
        while start.elapsed() < ROUND {
            let arrival = start + PACE * number;
            std::thread::sleep(arrival.saturating_duration_since(Instant::now()));
            number += 1;
            let (neighbour, subjects, times) = (self.neighbour.clone(), subjects.clone(), times.clone());
            let arrival = Instant::now();
            tasks.push(runtime.spawn(async move {
                let verdicts = neighbour.admit(request(number.into()), subjects).await;
                let took = arrival.elapsed();
                let allowed = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Allowed(_)));
                for verdict in verdicts {
                    if let Verdict::Allowed(lease) = verdict {
                        lease.settle(usage());
                    }
                }
                times.lock().push(if allowed { took } else { Duration::MAX });
            }));
        }
        for task in tasks {
            runtime.block_on(task)?;
        }
        let times = &mut *times.lock();
        p50.push(percentile(times, 50));
        p99.push(percentile(times, 99));
        Ok(())
    }
}

fn load(engine: &Engine, stores: &Stores, wasm: &[u8], manifest: &str) -> Result<Arc<ActivePlugin>> {
    let identity = Identity { digest: "bench".to_owned(), number: 1 };
    let component = engine.compile(wasm)?;
    let generation = Generation::new(engine, &component, Manifest::parse(manifest)?, identity, stores)?;
    Ok(ActivePlugin::new(Arc::new(generation)))
}

fn request(number: u64) -> Arc<Request> {
    Arc::new(Request {
        id: format!("request-{number}"),
        now_ms: now_ms(),
        dialect: "openai".to_owned(),
        endpoint: "/v1/chat/completions".to_owned(),
        model: "gpt-5-mini".to_owned(),
        prompt_tokens: 700,
        estimated_tokens: 2_000,
        estimated_cost: None,
        streaming: false,
    })
}

fn subjects() -> Vec<Arc<Subject>> {
    let subject = |kind, id: &str| {
        let limits =
            Limits { rpm: Some(1 << 40), tpm: Some(1 << 40), rpd: Some(1 << 40), further: Vec::new() };
        Arc::new(Subject { kind, name: id.into(), id: id.into(), limits })
    };
    vec![subject(SubjectKind::Client, "client"), subject(SubjectKind::Account, "account")]
}

fn usage() -> Usage {
    Usage {
        ending: Ending::Completed,
        status: Some(200),
        input_tokens: 700,
        output_tokens: 300,
        cost: None,
        duration_ms: 900,
        retry_after_ms: None,
        reached: None,
    }
}

fn median(mut rounds: Vec<u128>) -> u128 {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn percentile(times: &mut [Duration], percent: usize) -> u128 {
    times.sort();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).map_or(0, Duration::as_micros)
}

fn now_ms() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
