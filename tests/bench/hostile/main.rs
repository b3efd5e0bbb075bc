//! What a noisy neighbour does to a good policy: the time from a request's arrival to the policy's answer, alone and while the
//! neighbour is asked as often and takes all it can get of something that all plugins share.
//!
//! `cargo bench --bench hostile [-- NAME]`. What is measured is what ships: blacklist and quota over the real kv. Requests
//! arrive at fixed times, so that one that has to wait for a worker counts its waiting. A good policy as the neighbour comes
//! first: beside it stands what any policy costs, since it doubles the work.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where it stands"
)]
#![allow(unreachable_pub, missing_docs, reason = "a benchmark has no API")]

#[path = "../../it/support/component.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod component;
#[path = "../../it/support/guest.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod guest;
mod neighbours;

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
use tollgate_store::{Acknowledge, BlobOptions, Kv, KvOptions, Options, SetOptions, Store};

use neighbours::Neighbour;

/// The product's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time between two requests: far from what the machine can do, so that only the hostile one makes them wait.
const PACE: Duration = Duration::from_micros(500);

/// How long one round lasts.
const ROUND: Duration = Duration::from_millis(400);

/// Rounds of each kind, a quiet and a loud one in turn; the median round is printed.
const ROUNDS: usize = 7;

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
        "{:32} {:>10} {:>10} {:>10} {:>10} {:>12} {:>15}",
        "µs", "quiet p50", "quiet p99", "loud p50", "loud p99", "of the quiet", "of a good one's"
    );
    let mut good = None;
    for neighbour in neighbours::all().into_iter().filter(|it| good_or(&only, it.name)) {
        let (mut quiet, mut loud) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for _ in 0..ROUNDS {
            bench.round(&runtime, &mut quiet)?;
            let _running = bench.attack(&runtime, &neighbour)?;
            bench.round(&runtime, &mut loud)?;
        }
        let [[p50, p99], [loud_p50, loud_p99]] = [quiet, loud].map(|rounds| rounds.map(median));
        let ratio = loud_p99 as f64 / p99 as f64;
        // Of the ratios, since the machine may change between the two.
        let of_good = ratio / *good.get_or_insert(ratio);
        let name = neighbour.name;
        println!("{name:32} {p50:>10} {p99:>10} {loud_p50:>10} {loud_p99:>10} {ratio:>12.2} {of_good:>15.2}");
    }
    runtime.block_on(store.close())?;
    Ok(())
}

/// The good one is always there, for the others to be compared with.
fn good_or(only: &str, name: &str) -> bool {
    name == "a good policy" || name.contains(only)
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
        kv.insert("durable".to_owned(), store.kv("durable", KvOptions::default())?);
        let sql = BTreeMap::from([("hostile".to_owned(), store.database("hostile")?)]);
        let blob =
            BTreeMap::from([("hostile".to_owned(), store.container("hostile", BlobOptions::default())?)]);
        let (engine, stores) = (Engine::new()?, Stores::new(kv, sql).with_blob(blob));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins");
        let shipped = ["blacklist", "quota"].map(|name| -> Result<Arc<ActivePlugin>> {
            let wasm = std::fs::read(root.join(format!("prebuilt/{name}.wasm")))?;
            load(&engine, &stores, &wasm, &std::fs::read_to_string(root.join(name).join("plugin.toml"))?)
        });
        let neighbour = Admissions::new(Arc::new(now_ms));
        neighbour.install(shipped.into_iter().collect::<Result<_>>()?);
        Ok(Bench { engine, stores, neighbour })
    }

    /// Asks the neighbour until the handle is dropped.
    fn attack(
        &self,
        runtime: &tokio::runtime::Runtime,
        Neighbour { component, at_once, .. }: &Neighbour,
    ) -> Result<AbortOnDropHandle<()>> {
        let _inside = runtime.enter();
        let manifest = format!(
            "name = \"hostile\"\non-error = \"allow\"\n[limits]\ninstances = {at_once}\n{}",
            neighbours::GRANTS
        );
        let chain = Admissions::new(Arc::new(now_ms));
        chain.install(vec![load(&self.engine, &self.stores, component, &manifest)?]);
        let places = Arc::new(Semaphore::new(*at_once));
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
