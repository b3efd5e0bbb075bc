//! Components that keep objects by `wasi:blobstore`: in the containers of the blob capability, within their grants and limits.
//!
//! `tests/components/album` is written against the published interfaces alone.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::support::client::Answer;
use crate::support::{Client, Server, Setup, eventually};

/// Bytes that a content holds before it is said which object it becomes.
const HELD: usize = 8 << 20;

/// Bytes that one call moves through the host.
const MOVED: usize = 64 << 20;

const CONTAINERS: &str = "[blob.album]\n[blob.prints]\n[blob.archive]\n[blob.private]";

/// A server with the album pushed, and clients of the album and of the data API.
struct House {
    server: Server,
    album: Client,
    data: Client,
}

impl House {
    fn new(containers: &str) -> House {
        let server = Setup::demo().config(containers).start();
        let components = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/components");
        let [file, manifest] = ["prebuilt/album.wasm", "album/plugin.toml"].map(|path| components.join(path));
        let [file, manifest] = [&file, &manifest].map(|path| path.to_str().unwrap());
        server.cli_ok(&["plugin", "push", file, "--manifest", manifest, "--grant"]);
        let album = server.client(&server.key("visitor", &[]));
        let scopes = ["album", "prints", "archive"].map(|name| format!("{name}:read-write"));
        let mut arguments = vec!["token", "create", "--name", "test"];
        arguments.extend(scopes.iter().flat_map(|scope| ["--blob", scope]));
        let data = server.client(&server.cli_ok(&arguments));
        House { server, album, data }
    }

    async fn answer(&self, verb: &str, body: impl Into<Bytes>) -> Answer {
        self.album.call(Method::POST, &format!("/album/{verb}"), &[], body).await
    }

    /// What it answers; it must go well.
    async fn done(&self, verb: &str) -> String {
        let answer = self.answer(verb, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{verb}: {}", answer.text());
        answer.text()
    }

    /// The error of what must go wrong.
    async fn refused(&self, verb: &str) -> String {
        let answer = self.answer(verb, "").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{verb}: {}", answer.text());
        answer.text()
    }

    /// Puts an object in by the data API.
    async fn put(&self, path: &str, headers: &[(&'static str, &str)], body: impl Into<Bytes>) {
        let put = self.data.call(Method::PUT, &format!("/api/blob/{path}"), headers, body).await;
        assert_eq!(put.status, StatusCode::OK, "{path}: {}", put.text());
    }

    /// What the data API finds.
    async fn found(&self, path: &str) -> Answer {
        self.data.get(&format!("/api/blob/{path}")).await
    }

    /// The album has run into this limit.
    async fn limit(&self, name: &str) {
        let label = format!("limit=\"{name}\"");
        eventually("the limit is counted", || async {
            let labels = ["plugin=\"album\"", &label];
            (self.server.metric_with("tollgate_plugin_limit_hits_total", &labels).await > 0.0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_written_for_any_host_writes_and_reads_objects_of_the_blob_capability() {
    let house = House::new(CONTAINERS);
    // Larger than a piece of a stream, a chunk of the store and what a guest may pass at once; and nothing at all.
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    for (verb, name, content) in [
        ("stream", "large", large.clone()),
        ("held", "medium", large[..2_000_000].to_vec()),
        ("stream", "small", b"0123456789".to_vec()),
        ("held", "none", Vec::new()),
        ("stream", "nothing", Vec::new()),
    ] {
        let written = house.answer(&format!("{verb}?{name}"), content.clone()).await;
        assert_eq!(written.status, StatusCode::OK, "{verb} {name}: {}", written.text());
        let found = house.found(&format!("album/{name}")).await;
        assert!(found.status == StatusCode::OK && found.body == content, "{verb} {name}: {}", found.status);
        let read = house.album.get(&format!("/album/read?{name}")).await;
        assert!(read.status == StatusCode::OK && read.body == content, "{verb} {name}: {}", read.status);
        assert_eq!(house.done(&format!("has?{name}")).await, "true");
    }
    for (range, part) in [
        ("0&3", "0123"),
        ("9&9", "9"),
        ("4&18446744073709551615", "456789"),
        ("10&20", ""),
        ("0&18446744073709551615", "0123456789"),
    ] {
        assert_eq!(house.done(&format!("get?small&{range}")).await, part, "{range}");
    }
    assert_eq!(house.done("get?none&0&0").await, "");
    let backwards = house.refused("get?small&3&2").await;
    assert!(backwards.contains("before the start"), "{backwards}");
    let info = house.done("info?small").await;
    assert!(info.starts_with("album small 10 17"), "{info}");
    assert_eq!(house.done("names?2").await, "3 large medium none nothing small");
    assert_eq!(house.done("skip?3").await, "3 [\"nothing\"] false");
    assert_eq!(house.done("skip?9").await, "5 [] true");

    house.done("delete?none").await;
    house.done("delete?none").await;
    house.done("delete?medium&nothing&nobody").await;
    assert_eq!(house.done("names?1000").await, "1 large small");
    assert_eq!(house.done("has?none").await, "false");
    for absent in ["get?none&0&0", "info?none", "copy?album/none&album/x", "move?album/none&album/x"] {
        assert_eq!(house.refused(absent).await, "there is no such object", "{absent}");
    }
    house.done("clear").await;
    assert_eq!(house.done("names?1").await, "1 ");
    assert_eq!(house.found("album/large").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_copied_and_moved_with_all_that_is_said_of_them() {
    let house = House::new(CONTAINERS);
    let about = [("content-type", "image/png"), ("tollgate-meta-by", "alice"), ("cache-control", "no-store")];
    house.put("album/cat", &about, "meow").await;
    house.done("copy?album/cat&prints/cats/1").await;
    house.done("move?album/cat&album/kitten").await;
    house.done("move?album/kitten&album/kitten").await;
    for path in ["prints/cats/1", "album/kitten"] {
        let found = house.found(path).await;
        assert_eq!(found.text(), "meow", "{path}");
        for (name, value) in about {
            assert_eq!(found.header(name), value, "{path}");
        }
    }
    assert_eq!(house.found("album/cat").await.status, StatusCode::NOT_FOUND);
    // What is granted for reading can be copied out of, and not moved out of nor copied into.
    house.put("archive/old", &[], "1998").await;
    house.done("copy?archive/old&album/old").await;
    for denied in ["move?archive/old&album/old", "copy?album/old&archive/new", "copy?private/x&album/x"] {
        let said = house.refused(denied).await;
        assert!(said.contains("access denied"), "{denied}: {said}");
    }
    assert_eq!((house.found("archive/old").await.text(), house.found("album/old").await.text()), {
        ("1998".to_owned(), "1998".to_owned())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_granted_containers_open_and_none_is_made_or_removed() {
    let house = House::new(CONTAINERS);
    assert_eq!(house.done("open?archive").await, "archive archive");
    assert_eq!(house.done("exists?archive").await, "true");
    assert_eq!(house.done("exists?nowhere").await, "false");
    for denied in ["open?private", "exists?private", "put?archive"] {
        let said = house.refused(denied).await;
        assert!(said.contains("access denied") && said.contains("[grants.blob]"), "{denied}: {said}");
    }
    house.limit("grant").await;
    assert_eq!(house.refused("open?nowhere").await, "there is no such container");
    for verb in ["create?album", "create?new", "remove?album"] {
        let said = house.refused(verb).await;
        assert!(said.contains("by the configuration"), "{verb}: {said}");
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/components/prebuilt/album.wasm");
    let inspected = house.server.cli_ok(&["plugin", "inspect", file.to_str().unwrap()]);
    for line in ["[grants.blob] NAME = \"read-write\"", "wasi:blobstore@0.2.0-draft"] {
        assert!(inspected.contains(line), "{inspected}");
    }
    let manifest = house.server.home().join("plugin.toml");
    std::fs::write(&manifest, "name = \"album\"\n[http]\nroute = \"/album/\"\n").unwrap();
    let [file, manifest] = [&file, &manifest].map(|path| path.to_str().unwrap());
    let output = house.server.cli(&["plugin", "push", file, "--manifest", manifest]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("imports wasi:blobstore/") && said.contains("does not grant"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_without_an_end_are_cut_off_and_leave_nothing() {
    let limited = CONTAINERS.replace("[blob.album]", "[blob.album]\nobject_limit_bytes = 1000000");
    let house = House::new(&limited);
    let said = house.done("endless?long&streamed").await;
    let (written, reason) = said.split_once(' ').unwrap();
    assert!(written.parse::<usize>().unwrap() <= 1_000_000, "{said}");
    assert!(reason.contains("at most 1000000 bytes") && reason.contains("Err("), "{said}");
    house.limit("size").await;
    // What is held is bounded by itself, and is no object when that is over.
    let said = house.done("endless?long&held").await;
    assert!(said.starts_with(&format!("{HELD} ")) && said.contains("call write-data before"), "{said}");
    assert!(said.contains("Err("), "{said}");
    // Too large only when it is said where it goes.
    let large = house.answer("held?long", vec![7; 2_000_000]).await;
    assert!(large.text().contains("at most 1000000 bytes"), "{}", large.text());
    assert!(house.refused("unnamed").await.contains("has not said which object"));
    assert_eq!(house.done("unfinished?half").await, "Err(true)");
    assert_eq!(house.done("names?1").await, "1 ");
    // Nobody's place is lost by all that.
    assert_eq!(house.done("streams").await, "4");
    house.limit("handles").await;
    assert_eq!(house.done("streams").await, "4");
    assert_eq!(house.answer("stream?fine", "fine").await.status, StatusCode::OK);
}

/// Without a limit of the container that ends it, the call's own does; so it does for who reads, and who copies.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_moves_through_streams_is_bounded() {
    let house = House::new(CONTAINERS);
    let said = house.done("endless?long&streamed").await;
    let written = said.split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(written <= MOVED && written > MOVED / 2 && said.contains("has moved all the bytes"), "{said}");
    house.limit("host-bytes").await;
    let half = vec![7; MOVED / 2 + 1];
    house.put("album/half", &[], half.clone()).await;
    let read = house.album.get("/album/read?half").await;
    assert!(read.status == StatusCode::OK && read.body == half);
    house.done("copy?album/half&album/other").await;
    house.done("delete?half").await;
    house.done("delete?other").await;
    house.put("album/small", &[], "1").await;
    let said = house.done("readers?small").await;
    assert!(said.starts_with("32 ") && said.contains("32 readers"), "{said}");
    assert_eq!(house.done("has?long").await, "false");
    house.put("album/large", &[], vec![7; HELD + 1]).await;
    let said = house.refused(&format!("get?large&0&{HELD}")).await;
    assert!(said.contains("read it"), "{said}");
    assert_eq!(house.done(&format!("get?large&1&{HELD}")).await.len(), HELD);
    assert_eq!(house.album.chat("demo").await.status, StatusCode::OK);
}
