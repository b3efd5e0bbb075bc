//! Vectors: `cargo bench -p tollgate-store --bench vector -- --vectors 100000 --dimensions 1024`. Prints what it takes to write
//! vectors and to read them again after a start. Then for the same file without a graph and with one: how long the graph takes
//! to build, the recall of the ten nearest against an exact search by the values themselves, and for one searcher and two
//! what a query takes, with and without a filter and while somebody writes; queries by the second and by the second of CPU
//! that the process used meanwhile.
//!
//! Vectors lie around a thousand centres, as embeddings do; queries lie around the same centres.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on may stop")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tollgate_store::{
    Index, Options, Store, Target, Vector, VectorOptions, VectorQuery, vector::limits::EXACT_UP_TO,
};

const CENTRES: u64 = 1_000;
const BATCH: u64 = 500;
/// Queries whose recall is worked out: each compares all vectors by their values.
const COMPARED: u64 = 20;
const SECONDS: Duration = Duration::from_secs(2);
/// More than there are: no graph.
const EXACT: u64 = 100_000_000;
/// What filters take, in hundredths.
const PARTS: [u64; 3] = [50, 20, 1];

#[derive(Clone, Copy)]
struct Sizes {
    vectors: u64,
    dimensions: usize,
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let given: Vec<String> = std::env::args().collect();
    let number = |name: &str| -> Option<u64> {
        let place = given.iter().position(|argument| argument == name)?;
        given.get(place + 1)?.parse().ok()
    };
    let vectors = number("--vectors").map_or(vec![10_000, 100_000], |vectors| vec![vectors]);
    let dimensions = number("--dimensions").map_or(vec![384, 1_024], |dimensions| vec![dimensions]);
    for &dimensions in &dimensions {
        for &vectors in &vectors {
            runtime.block_on(measure(Sizes { vectors, dimensions: dimensions as usize }));
        }
    }
}

async fn measure(sizes: Sizes) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let Sizes { vectors, dimensions } = sizes;
    println!("{vectors} vectors of {dimensions} dimensions");
    let (store, index) = open(&path, sizes, EXACT);
    write(&index, sizes).await;
    store.close().await.unwrap();
    let bytes = std::fs::metadata(&path).unwrap();
    let bytes = std::os::unix::fs::MetadataExt::blocks(&bytes) * 512;
    println!("  {} bytes of file a vector", bytes / vectors);
    for exact_up_to in [EXACT, EXACT_UP_TO.min(vectors / 2)] {
        let (store, index) = open(&path, sizes, exact_up_to);
        let started = Instant::now();
        index.load().await.unwrap();
        let loaded = started.elapsed().as_secs_f64();
        if exact_up_to == EXACT {
            println!(" exact: load {loaded:.2} s");
        } else {
            println!(" graph: load {loaded:.2} s");
            built(&index, sizes).await;
        }
        searched(&index, sizes).await;
        store.close().await.unwrap();
    }
}

async fn searched(index: &Index, sizes: Sizes) {
    let memory = index.describe().await.unwrap().memory_bytes;
    println!("  {} bytes of memory a vector", memory / sizes.vectors);
    println!("  recall of ten {:.4}", recall(index, sizes).await);
    for searchers in [1, 2] {
        search(index, sizes, searchers, None).await;
    }
    for part in PARTS {
        search(index, sizes, 1, Some(part)).await;
    }
    search_while_written(index, sizes).await;
}

/// Waits until the graph has all but a last block that waits for others to be put together with.
async fn built(index: &Index, sizes: Sizes) {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let vectors = loop {
        let info = index.describe().await.unwrap();
        if info.graph_vectors + 512 >= sizes.vectors {
            break info.graph_vectors;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "  graph of {vectors} built in {seconds:.2} s, {:.0} vectors by the second of CPU",
        vectors as f64 / cpu
    );
}

/// Seconds of CPU that this process used, to the hundredth.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

fn open(path: &Path, sizes: Sizes, exact_up_to: u64) -> (Store, Index) {
    let store = Store::open(path, Options { cache_bytes: 256 << 20, ..Options::default() }).unwrap();
    let options = VectorOptions {
        vectors: 10_000_000,
        exact_up_to,
        indexed: vec!["n".to_owned()],
        ..VectorOptions::new(sizes.dimensions)
    };
    let index = store.index("bench", options).unwrap();
    (store, index)
}

/// Numbers from -1 to 1, the same for the same seed.
fn noise(seed: u64, dimensions: usize) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..dimensions).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// The values of a vector, or of a query beyond the last.
fn values(number: u64, dimensions: usize) -> Vec<f32> {
    let centre = noise(number.wrapping_mul(7_919) % CENTRES, dimensions);
    centre.zip(noise(CENTRES + number, dimensions)).map(|(centre, own)| centre + own).collect()
}

fn vector(number: u64, dimensions: usize) -> Vector {
    let metadata = Some(format!("{{\"n\":{},\"url\":\"/images/{number}\"}}", number % 100));
    Vector { id: number.to_string(), values: values(number, dimensions), namespace: None, metadata }
}

async fn write(index: &Index, sizes: Sizes) {
    let mut busy = Duration::ZERO;
    for first in (0..sizes.vectors).step_by(BATCH as usize) {
        let numbers = first..(first + BATCH).min(sizes.vectors);
        let vectors = numbers.map(|number| vector(number, sizes.dimensions)).collect();
        let started = Instant::now();
        index.upsert(vectors).await.unwrap();
        busy += started.elapsed();
    }
    println!("  upsert of {BATCH}: {:.0} vectors/s", sizes.vectors as f64 / busy.as_secs_f64());
}

fn query(number: u64, sizes: Sizes, part: Option<u64>) -> VectorQuery {
    let target = Target::Values(values(sizes.vectors + number, sizes.dimensions));
    let filter = part.map(|part| format!("{{\"n\": {{\"$lt\": {part}}}}}"));
    VectorQuery { filter, ..VectorQuery::new(target) }
}

/// The share of the ten nearest by the values that queries find.
async fn recall(index: &Index, sizes: Sizes) -> f64 {
    let unit = |mut values: Vec<f32>| {
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.iter_mut().for_each(|value| *value /= length);
        values
    };
    let targets: Vec<Vec<f32>> =
        (0..COMPARED).map(|number| unit(values(sizes.vectors + number, sizes.dimensions))).collect();
    let mut nearest: Vec<Vec<(f32, u64)>> = vec![Vec::new(); targets.len()];
    for number in 0..sizes.vectors {
        let vector = unit(values(number, sizes.dimensions));
        for (target, nearest) in targets.iter().zip(&mut nearest) {
            let cosine = target.iter().zip(&vector).map(|(left, right)| left * right).sum();
            nearest.push((cosine, number));
        }
    }
    let mut found = 0;
    for (number, mut nearest) in (0..).zip(nearest) {
        nearest.sort_by(|left, right| right.0.total_cmp(&left.0));
        let matches = index.query(query(number, sizes, None)).await.unwrap();
        let wanted: Vec<String> = nearest.iter().take(10).map(|(_, number)| number.to_string()).collect();
        found += matches.iter().filter(|found| wanted.contains(&found.id)).count();
    }
    found as f64 / (10 * COMPARED) as f64
}

async fn search(index: &Index, sizes: Sizes, searchers: u64, part: Option<u64>) {
    let queries = Arc::new(AtomicU64::new(0));
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let tasks = (0..searchers).map(|_| {
        let (index, queries) = (index.clone(), Arc::clone(&queries));
        tokio::spawn(async move {
            while started.elapsed() < SECONDS {
                let number = queries.fetch_add(1, Ordering::Relaxed);
                index.query(query(number, sizes, part)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let queries = queries.load(Ordering::Relaxed) as f64;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let filter = part.map_or(String::new(), |part| format!(", a filter takes {part} %"));
    println!(
        "  searchers {searchers}{filter}: {:.0} queries/s, {:.3} ms each, {:.0} by the second of CPU",
        queries / seconds,
        seconds * 1_000.0 * searchers as f64 / queries,
        queries / cpu
    );
}

/// One searcher, while another task writes vectors again one by one.
async fn search_while_written(index: &Index, sizes: Sizes) {
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (index, stop) = (index.clone(), Arc::clone(&stop));
        async move {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let again = vector(written * 31 % sizes.vectors, sizes.dimensions);
                index.upsert(vec![again]).await.unwrap();
                written += 1;
            }
            written
        }
    });
    search(index, sizes, 1, None).await;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    println!("  meanwhile {:.0} upserts/s of one vector", written as f64 / SECONDS.as_secs_f64());
}
