//! What the tests of blobs share.

use tollgate_store::{
    BlobOptions, BlobReport, Container, GetOptions, Got, Precondition, PutOptions, Reader, Store,
    blob::limits::CHUNK_BYTES,
};

pub(crate) const CHUNK: usize = CHUNK_BYTES;

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that compress well.
pub(crate) fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 64);
    let mut line = seed;
    while text.len() < length {
        text.extend_from_slice(format!("line {line} of a text that is like many others\n").as_bytes());
        line += 1;
    }
    text.truncate(length);
    text
}

pub(crate) fn container(store: &Store, name: &str) -> Container {
    store.container(name, BlobOptions::default()).unwrap()
}

/// A container whose contents are files.
pub(crate) fn in_files(store: &Store, name: &str) -> Container {
    store.container(name, BlobOptions { files: true, ..BlobOptions::default() }).unwrap()
}

pub(crate) async fn put(container: &Container, key: &str, bytes: &[u8]) -> String {
    container.put(key, bytes, PutOptions::default()).await.unwrap().etag
}

pub(crate) fn if_match(precondition: Precondition) -> PutOptions {
    PutOptions { precondition, ..PutOptions::default() }
}

pub(crate) async fn reader(container: &Container, key: &str, options: GetOptions) -> Option<Reader> {
    match container.get(key, options).await.unwrap() {
        Got::Found(reader) => Some(reader),
        Got::Absent => None,
        Got::Unmet(unmet, _) => panic!("{unmet:?}"),
    }
}

pub(crate) async fn bytes(container: &Container, key: &str) -> Option<Vec<u8>> {
    let options = GetOptions { verify: true, ..GetOptions::default() };
    match reader(container, key, options).await {
        Some(reader) => Some(reader.read_all().await.unwrap()),
        None => None,
    }
}

/// A report without problems.
pub(crate) async fn report(container: &Container) -> BlobReport {
    let report = container.check(true).await.unwrap();
    assert_eq!(report.problems, [""; 0]);
    report
}

/// Waits until everything is collected that can be. The committer comes to it by itself, once a second at the latest.
pub(crate) async fn collected(container: &Container) -> BlobReport {
    loop {
        let found = container.check(false).await.unwrap();
        if found.released == 0 {
            return report(container).await;
        }
        tokio::task::yield_now().await;
    }
}
