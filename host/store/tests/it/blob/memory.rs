//! Objects larger than the memory for them: a child of its own says how much it took.

use std::process::Command;

use sha2::{Digest, Sha256};
use tollgate_store::{BlobOptions, ByteRange, GetOptions, Options, PutOptions, Store};

use super::support::{noise, reader};

const BYTES: &str = "STORE_MEMORY_BYTES";
const PIECE: usize = 1 << 20;

/// What the whole process may take, the runtime, redb's page cache and SQLite's code included.
const MEMORY: u64 = 64 << 20;

/// Not a test of its own: the child. It uploads an object, reads it back, and says its greatest memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(bytes) = std::env::var(BYTES) else { return };
    let bytes: u64 = bytes.parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = Options { cache_bytes: 8 << 20, kv_cache_bytes: 1 << 20, ..Options::default() };
    let store = Store::open(&directory.path().join("store.redb"), options).unwrap();
    let blobs = store.container("a", BlobOptions { object_bytes: bytes, ..BlobOptions::default() }).unwrap();
    let mut upload = blobs.upload("k", PutOptions::default()).unwrap();
    let mut piece = noise(1, PIECE);
    let mut sha256 = Sha256::new();
    for number in 0..bytes / PIECE as u64 {
        for chunk in piece.chunks_mut(64 << 10) {
            chunk[..8].copy_from_slice(&number.to_le_bytes());
        }
        sha256.update(&piece);
        upload.write(&piece).await.unwrap();
    }
    let info = upload.publish().await.unwrap();
    let expected = sha256.finalize();
    let mut read = Sha256::new();
    let verify = GetOptions { verify: true, ..GetOptions::default() };
    let mut slow = reader(&blobs, "k", verify).await.unwrap();
    while let Some(bytes) = slow.next().await.unwrap() {
        read.update(&bytes);
    }
    assert_eq!((info.size, read.finalize()), (bytes, expected));
    let last = GetOptions { range: Some(ByteRange::Last(10)), ..GetOptions::default() };
    assert!(reader(&blobs, "k", last).await.unwrap().read_all().await.unwrap() == piece[PIECE - 10..]);
    println!("peak {}", peak());
}

/// The most memory that this process has ever had.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn check(bytes: u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "blob::memory::child", "--nocapture"])
        .env(BYTES, bytes.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak: u64 = text.lines().find_map(|line| line.split_once("peak ")).unwrap().1.parse().unwrap();
    println!("an object of {bytes} bytes took {peak} bytes of memory");
    assert!(peak <= MEMORY, "{peak} for {bytes}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_object_larger_than_the_memory_goes_in_and_comes_out() {
    check(160 << 20);
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "takes about a minute and 2 GB of disk"]
fn an_object_of_two_gigabytes_goes_through_the_same_memory() {
    check(2 << 30);
}
