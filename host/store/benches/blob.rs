//! Blobs: `cargo bench -p tollgate-store --bench blob`. Prints what an object of 256 MB takes to write and to read, what an
//! image takes with four callers, and how much of the file the chunks fill.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on may stop")]

use std::time::Instant;

use tollgate_store::{BlobOptions, Container, GetOptions, Got, Options, PutOptions, Store};

const LARGE: usize = 256 << 20;
const PIECE: usize = 1 << 20;
const IMAGE: usize = 300 << 10;
const IMAGES: u64 = 200;
const CALLERS: u64 = 4;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for (kind, line) in [("noise", None), ("text", Some("a line of a text that is like others\n"))] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let store = Store::open(&path, Options::default()).unwrap();
        let options = BlobOptions { object_bytes: LARGE as u64, ..BlobOptions::default() };
        let blobs = store.container("bench", options).unwrap();
        runtime.block_on(large(kind, &blobs, line));
        runtime.block_on(images(kind, &blobs, line));
        let report = runtime.block_on(blobs.check(false)).unwrap();
        runtime.block_on(store.close()).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        let on_disk = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
        println!(
            "{kind}: {} MB of objects are {} MB of chunks in {} MB of file",
            report.object_bytes >> 20,
            report.stored_bytes >> 20,
            on_disk >> 20
        );
    }
}

/// Bytes of a kind; no two pieces are alike.
fn piece(line: Option<&str>, seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match line {
            Some(line) => bytes.extend_from_slice(format!("{} {line}", state >> 40).as_bytes()),
            None => bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes()),
        }
    }
    bytes.truncate(length);
    bytes
}

async fn large(kind: &str, blobs: &Container, line: Option<&str>) {
    let pieces: Vec<Vec<u8>> =
        (0..LARGE as u64 / PIECE as u64).map(|seed| piece(line, seed, PIECE)).collect();
    let started = Instant::now();
    let mut upload = blobs.upload("large", PutOptions::default()).unwrap();
    for piece in &pieces {
        upload.write(piece).await.unwrap();
    }
    upload.publish().await.unwrap();
    say(&format!("{kind}: write 256 MB"), started, 1, LARGE);
    for verify in [false, true] {
        let started = Instant::now();
        let options = GetOptions { verify, ..GetOptions::default() };
        let Got::Found(mut reader) = blobs.get("large", options).await.unwrap() else { return };
        while reader.next().await.unwrap().is_some() {}
        say(&format!("{kind}: read 256 MB, verify {verify}"), started, 1, LARGE);
    }
}

async fn images(kind: &str, blobs: &Container, line: Option<&str>) {
    let image = |caller: u64, number: u64| piece(line, 1 << 32 | caller << 16 | number, IMAGE);
    let images: Vec<Vec<_>> =
        (0..CALLERS).map(|caller| (0..IMAGES).map(|number| image(caller, number)).collect()).collect();
    let started = Instant::now();
    let tasks = images.into_iter().enumerate().map(|(caller, images)| {
        let blobs = blobs.clone();
        tokio::spawn(async move {
            for (number, image) in images.iter().enumerate() {
                blobs.put(&format!("{caller}/{number}"), image, PutOptions::default()).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    say(&format!("{kind}: write images of 300 KB"), started, CALLERS * IMAGES, IMAGE);
    let started = Instant::now();
    for number in 0..IMAGES {
        let got = blobs.get(&format!("1/{number}"), GetOptions::default()).await.unwrap();
        let Got::Found(reader) = got else { return };
        reader.read_all().await.unwrap();
    }
    say(&format!("{kind}: read images of 300 KB, one caller"), started, IMAGES, IMAGE);
}

fn say(what: &str, started: Instant, objects: u64, bytes: usize) {
    let seconds = started.elapsed().as_secs_f64();
    let megabytes = objects as f64 * bytes as f64 / f64::from(1 << 20);
    println!("{what}: {:.0} objects/s, {:.0} MB/s", objects as f64 / seconds, megabytes / seconds);
}
