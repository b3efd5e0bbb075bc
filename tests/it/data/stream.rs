//! Large objects, and clients that go away in between.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use http::StatusCode;
use sha2::{Digest as _, Sha256};
use tollgate_store::{BlobOptions, Options, Store};

use super::{client, token};
use crate::support::{Server, Setup, eventually};

const MIB: usize = 1 << 20;

/// What an object may add to the server's memory, whatever its size.
const MEMORY_KIB: u64 = 64 * 1024;

/// Opens a connection and sends the head of a request.
pub(super) fn request(server: &Server, token: &str, line: &str, length: u64) -> TcpStream {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads the head of an answer: its status, and what came after the head.
pub(super) fn head(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let status = std::str::from_utf8(&read[9..12]).unwrap().parse().unwrap();
            return (status, read.split_off(at + 4));
        }
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "no head: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..length]);
    }
}

/// A megabyte that does not compress, another for each number.
fn noise(number: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let mut bytes = vec![0; MIB];
    random.fill(&mut bytes);
    bytes
}

fn through(mib: usize) {
    let limit = mib * MIB;
    let config =
        format!("[storage]\npage_cache_bytes = 8388608\n[blob.images]\nobject_limit_bytes = {limit}");
    let server = Setup::demo().config(&config).start();
    let token = token(&server, &["--blob", "images:read-write"]);
    let before = server.peak_kib();
    let mut upload = request(&server, &token, "PUT /api/blob/images/large", limit as u64);
    let mut sent = Sha256::new();
    for number in 0..mib {
        let bytes = noise(number);
        sent.update(&bytes);
        upload.write_all(&bytes).unwrap();
    }
    assert_eq!(head(&mut upload).0, 200);
    let mut download = request(&server, &token, "GET /api/blob/images/large", 0);
    let (status, mut rest) = head(&mut download);
    assert_eq!(status, 200);
    let (mut read, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; MIB];
    while bytes < limit {
        read.update(&rest);
        bytes += rest.len();
        let length = download.read(&mut piece).unwrap();
        rest = piece[..length].to_vec();
        assert!(length > 0 || bytes == limit, "cut after {bytes} bytes");
    }
    assert!(sent.finalize() == read.finalize());
    let more = server.peak_kib() - before;
    println!("an object of {mib} MiB took {more} KiB of memory");
    assert!(more < MEMORY_KIB, "{more} KiB for an object of {mib} MiB");
}

#[test]
fn an_object_larger_than_the_memory_for_it_goes_in_and_comes_out() {
    through(200);
}

#[test]
#[ignore = "takes minutes and 2 GB of disk; .ci/run runs it"]
fn an_object_of_two_gigabytes_goes_in_and_comes_out() {
    through(2048);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_mid_upload_leaves_nothing() {
    let config = "[blob.images]\nobject_limit_bytes = 100000000";
    let mut server = Setup::demo().config(config).start();
    let token = token(&server, &["--blob", "images:read-write"]);
    let app = server.client(&token);
    app.call(http::Method::PUT, "/api/blob/images/k", &[], "before").await;
    let mut upload = request(&server, &token, "PUT /api/blob/images/k", 50 * MIB as u64);
    for number in 0..20 {
        upload.write_all(&noise(number)).unwrap();
    }
    drop(upload);
    assert_eq!(app.get("/api/blob/images/k").await.text(), "before");
    assert_eq!(server.terminate(), Some(0));
    let store = Store::open(&server.home().join("data/tollgate.redb"), Options::default()).unwrap();
    let images = store.container("images", BlobOptions::default()).unwrap();
    eventually("what had come is collected", async || {
        let report = images.check(true).await.unwrap();
        assert_eq!((report.objects, &report.problems), (1, &Vec::new()));
        (report.released == 0 && report.chunks == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_replaced_while_it_is_read_is_read_to_its_end() {
    let server = Setup::demo().config("[blob.images]").start();
    let token = token(&server, &["--blob", "images:read-write"]);
    let app = server.client(&token);
    let old: Vec<u8> = (0..20).flat_map(noise).collect();
    app.call(http::Method::PUT, "/api/blob/images/k", &[], old.clone()).await;
    let mut download = request(&server, &token, "GET /api/blob/images/k", 0);
    let (status, mut read) = head(&mut download);
    assert_eq!(status, 200);
    app.call(http::Method::PUT, "/api/blob/images/k", &[], "new").await;
    assert_eq!(app.get("/api/blob/images/k").await.text(), "new");
    download.read_to_end(&mut read).unwrap();
    assert!(read == old);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_sent_and_in_between() {
    let server = super::start();
    let app = client(&server, &["--blob", "images:read-write", "--kv", "notes:read-write"]);
    let answer = app.call(http::Method::PUT, "/api/blob/images/k", &[], vec![0; 4_000_001]).await;
    assert_eq!(answer.error(), (413, "too_large".to_owned()));
    assert_eq!(app.get("/api/blob/images/k").await.status, StatusCode::NOT_FOUND);
    let token = token(&server, &["--blob", "images:read-write"]);
    let mut upload = request(&server, &token, "PUT /api/blob/images/k", 1 << 50);
    assert_eq!(head(&mut upload).0, 413);
    // In chunks, so that nobody knows before how many come.
    let mut upload = TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
    let line = "PUT /api/blob/images/k HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n";
    upload.write_all(format!("{line}authorization: Bearer {token}\r\n\r\n").as_bytes()).unwrap();
    for number in 0..5 {
        upload.write_all(format!("{MIB:x}\r\n").as_bytes()).unwrap();
        upload.write_all(&noise(number)).unwrap();
        upload.write_all(b"\r\n").unwrap();
    }
    upload.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(head(&mut upload).0, 413);
    for (path, bytes) in [("/api/kv/notes/k", MIB + 1), ("/api/kv/notes/k", 5 * MIB)] {
        let answer = app.call(http::Method::PUT, path, &[], vec![0; bytes]).await;
        assert_eq!(answer.error(), (413, "too_large".to_owned()));
    }
    let answer = app.call(http::Method::POST, "/api/kv/notes", &[], vec![b' '; 4 * MIB + 1]).await;
    assert_eq!(answer.error(), (413, "too_large".to_owned()));
}
