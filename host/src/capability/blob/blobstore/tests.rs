use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blobstore::Host as _;
use container::{HostContainer as _, HostStreamObjectNames as _};
use tokio::sync::Semaphore;
use tollgate_store::{BlobOptions, Options, Store};
use types::{HostIncomingValue as _, HostOutgoingValue as _};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, StreamError};

use super::outgoing::Values;
use super::*;
use crate::capability::view::{Openable, View};
use crate::capability::{Allowance, Budget};
use crate::plugin::limits::{
    BLOB_GET_BYTES, BLOB_HELD_BYTES, BLOB_STREAM_BYTES, BLOB_WRITERS, BLOBS_HELD, POLICY_HOST_BYTES,
};
use crate::plugin::{Access, Tally};

/// What one call of a guest has: containers `album` and `attic` under a grant.
struct Call {
    containers: Openable<OpenContainer>,
    held: Arc<Semaphore>,
    table: ResourceTable,
    budget: Budget,
    _store: Store,
    _directory: tempfile::TempDir,
}

impl Call {
    fn new(allowance: Allowance) -> Call {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.redb"), Options::default()).unwrap();
        let names = ["album", "attic"].map(str::to_owned);
        let open = |name: String| (name.clone(), store.container(&name, BlobOptions::default()).unwrap());
        let containers: BTreeMap<_, _> = names.clone().map(open).into();
        let grants = names.map(|name| (name, Access::ReadWrite)).into();
        let until = Instant::now() + Duration::from_secs(60);
        Call {
            containers: super::super::granted(&containers, &grants).unwrap(),
            held: Arc::new(Semaphore::new(BLOBS_HELD)),
            table: ResourceTable::new(),
            budget: Budget::new(Arc::new(Tally::new("blobstore")), allowance, until),
            _store: store,
            _directory: directory,
        }
    }

    fn blob(&mut self) -> BlobView<'_> {
        View { openable: &self.containers, table: &mut self.table, budget: &mut self.budget }
    }

    fn values(&mut self) -> Values<'_> {
        let blob = View { openable: &self.containers, table: &mut self.table, budget: &mut self.budget };
        Values { blob, held: &self.held }
    }

    async fn album(&mut self) -> Resource<OpenContainer> {
        self.blob().get_container("album".to_owned()).await.unwrap()
    }

    /// A new content and its stream.
    async fn content(&mut self) -> Result<(Resource<OutgoingValue>, Resource<DynOutputStream>), ()> {
        let value = self.values().new_outgoing_value().await.unwrap();
        let stream = self.values().outgoing_value_write_body(again(&value)).await?;
        Ok((value, stream))
    }

    fn stream(&mut self, stream: &Resource<DynOutputStream>) -> &mut DynOutputStream {
        self.table.get_mut(stream).unwrap()
    }

    async fn write_data(&mut self, name: &str, value: &Resource<OutgoingValue>) -> Result<(), String> {
        let album = self.album().await;
        self.blob().write_data(album, name.to_owned(), again(value)).await
    }

    /// Writes an object of these bytes as those do who say where it goes first.
    async fn write(&mut self, name: &str, content: &[u8]) -> Result<(), String> {
        let (value, stream) = self.content().await.map_err(|()| "no stream")?;
        self.write_data(name, &value).await?;
        for piece in content.chunks(BLOB_STREAM_BYTES) {
            let stream = self.stream(&stream);
            stream.write_ready().await.map_err(text)?;
            stream.write(piece.to_vec().into()).map_err(text)?;
        }
        self.values().finish(value).await
    }

    async fn get(&mut self, name: &str) -> Result<Resource<IncomingValue>, String> {
        let album = self.album().await;
        self.blob().get_data(album, name.to_owned(), 0, u64::MAX).await
    }
}

fn again<T: 'static>(handle: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(handle.rep())
}

fn text(error: StreamError) -> String {
    error.to_string()
}

#[tokio::test]
async fn a_stream_answers_an_object_to_its_end_in_pieces_of_any_length() {
    let mut call = Call::new(Allowance::WORK);
    let content: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    call.write("long", &content).await.unwrap();
    let value = call.get("long").await.unwrap();
    assert_eq!(call.values().size(again(&value)).await, content.len() as u64);
    let stream: Resource<DynInputStream> = call.values().incoming_value_consume_async(value).await.unwrap();
    let stream = call.table.get_mut(&stream).unwrap();
    let (mut read, mut most) = (Vec::new(), 1);
    let end = loop {
        // Who does not wait is answered nothing, or what there is.
        match stream.read(most) {
            Ok(bytes) if bytes.is_empty() => stream.ready().await,
            Ok(bytes) => {
                assert!(bytes.len() <= most);
                read.extend_from_slice(&bytes);
                most = most * 3 % 400_000 + 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(end, StreamError::Closed) && read == content, "{end:?} {}", read.len());
}

#[tokio::test]
async fn who_asks_again_and_again_rather_than_wait_writes_all_the_same() {
    let mut call = Call::new(Allowance::WORK);
    let (value, stream) = call.content().await.unwrap();
    call.write_data("k", &value).await.unwrap();
    let content = vec![7; 3 << 20];
    let mut rest = content.as_slice();
    while !rest.is_empty() {
        let stream = call.stream(&stream);
        let now = stream.check_write().unwrap().min(rest.len());
        if now == 0 {
            tokio::task::yield_now().await;
        } else {
            stream.write(rest[..now].to_vec().into()).unwrap();
            rest = &rest[now..];
            // Nothing comes on top of what is on its way, and nothing of it is lost by asking.
            stream.write(Vec::new().into()).unwrap();
        }
    }
    call.values().finish(value).await.unwrap();
    assert!(matches!(call.stream(&stream).check_write(), Err(StreamError::Closed)));
    let value = call.get("k").await.unwrap();
    assert!(call.values().incoming_value_consume_sync(value).await.unwrap() == content);
}

#[tokio::test]
async fn what_is_held_is_bounded_in_bytes_and_in_number_and_may_be_as_large_as_the_bound() {
    let mut call = Call::new(Allowance::WORK);
    let (value, stream) = call.content().await.unwrap();
    let mut held = 0;
    while held < BLOB_HELD_BYTES {
        let most = call.stream(&stream).check_write().unwrap();
        assert!(most > 0 && most <= BLOB_STREAM_BYTES);
        call.stream(&stream).write(vec![7; most].into()).unwrap();
        held += most;
    }
    assert_eq!(held, BLOB_HELD_BYTES);
    assert!(call.stream(&stream).flush().is_ok() && call.stream(&stream).write_ready().await.is_ok());
    call.write_data("full", &value).await.unwrap();
    assert!(call.write_data("other", &value).await.unwrap_err().contains("said before"));
    call.values().finish(value).await.unwrap();
    let found = call.get("full").await.unwrap();
    assert_eq!(call.values().size(found).await, BLOB_HELD_BYTES as u64);

    let (value, stream) = call.content().await.unwrap();
    let too_much = vec![7; BLOB_STREAM_BYTES + 1];
    let refused = call.stream(&stream).write(too_much.into()).map_err(text).unwrap_err();
    assert!(refused.contains("check-write"), "{refused}");
    // What has lost bytes becomes no object any more.
    assert!(call.write_data("lossy", &value).await.unwrap_err().contains("check-write"));
    assert!(call.values().finish(value).await.unwrap_err().contains("check-write"));

    let mut open = Vec::new();
    for _ in 0..BLOBS_HELD {
        open.push(call.content().await.unwrap());
    }
    assert!(call.content().await.is_err());
    // Where it is said first, nothing is held; and a dropped one gives its place back, though its stream is there.
    let (value, _stream) = open.pop().unwrap();
    types::HostOutgoingValue::drop(&mut call.values(), value).await.unwrap();
    assert!(call.content().await.is_ok());
    assert!(call.content().await.is_err());
    let value = call.values().new_outgoing_value().await.unwrap();
    call.write_data("streamed", &value).await.unwrap();
    assert!(call.values().outgoing_value_write_body(again(&value)).await.is_ok());
    assert!(call.values().outgoing_value_write_body(again(&value)).await.is_err());
}

#[tokio::test]
async fn streams_take_from_the_budget_of_the_call() {
    let mut call = Call::new(Allowance::POLICY);
    let half = vec![7; POLICY_HOST_BYTES / 2 + 1];
    call.write("half", &half).await.unwrap();
    let moved = call.budget.bytes_moved();
    assert!(moved > half.len(), "{moved}");
    let refused = call.write("half again", &half).await.unwrap_err();
    assert!(refused.contains("all the bytes"), "{refused}");
    let later = Instant::now() + Duration::from_secs(60);
    call.budget.refill(Allowance::POLICY, later);
    let value = call.get("half").await.unwrap();
    let stream = call.values().incoming_value_consume_async(value).await.unwrap();
    call.budget.answer(POLICY_HOST_BYTES / 2).unwrap();
    let read = async |call: &mut Call, stream: &Resource<DynInputStream>| -> Result<usize, String> {
        let stream = call.table.get_mut(stream).unwrap();
        let mut all = 0;
        loop {
            match stream.blocking_read(100_000).await {
                Ok(bytes) => all += bytes.len(),
                Err(StreamError::Closed) => return Ok(all),
                Err(error) => return Err(format!("{all} {error}")),
            }
        }
    };
    let refused = read(&mut call, &stream).await.unwrap_err();
    assert!(refused.contains("all the bytes"), "{refused}");
    // A later call reads on where it stands.
    call.budget.refill(Allowance::POLICY, later);
    let before: usize = refused.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(before + read(&mut call, &stream).await.unwrap(), half.len());
    assert!(call.budget.bytes_moved() >= half.len() - before);
}

#[tokio::test]
async fn containers_of_any_length_are_listed_and_cleared_in_bounded_steps() {
    let mut call = Call::new(Allowance::WORK);
    let album = call.album().await;
    let container = call.table.get(&album).unwrap().container.clone();
    for number in 0..LIST_ITEMS + 5 {
        container.put(&format!("{number:05}"), b"", PutOptions::default()).await.unwrap();
    }
    let names = call.blob().list_objects(album).await.unwrap();
    assert_eq!(call.blob().read_stream_object_names(again(&names), 0).await.unwrap(), (Vec::new(), false));
    let (first, ended) = call.blob().read_stream_object_names(again(&names), u64::MAX).await.unwrap();
    assert_eq!((first.len(), ended), (LIST_ITEMS, false));
    assert_eq!(call.blob().skip_stream_object_names(again(&names), u64::MAX).await.unwrap(), (5, true));
    assert_eq!(call.blob().read_stream_object_names(again(&names), 1).await.unwrap(), (Vec::new(), true));
    let many = vec!["k".to_owned(); LIST_ITEMS + 1];
    let album = call.album().await;
    assert!(call.blob().delete_objects(album, many).await.unwrap_err().contains("1000 items"));
    let album = call.album().await;
    call.blob().clear(album).await.unwrap();
    let album = call.album().await;
    let names = call.blob().list_objects(album).await.unwrap();
    assert_eq!(call.blob().read_stream_object_names(names, 1).await.unwrap(), (Vec::new(), true));
}

#[tokio::test]
async fn an_instance_without_room_for_handles_is_refused_in_every_way_that_the_standard_has() {
    let mut call = Call::new(Allowance::WORK);
    call.write("k", &vec![7; BLOB_GET_BYTES + 1]).await.unwrap();
    let value = call.get("k").await.unwrap();
    let refused = call.values().incoming_value_consume_sync(value).await.unwrap_err();
    assert!(refused.contains("read it"), "{refused}");
    let album = call.album().await;
    let value = call.values().new_outgoing_value().await.unwrap();
    // Full from here on.
    call.table.set_max_capacity(16);
    while call.table.push(()).is_ok() {}
    assert!(call.blob().get_container("album".to_owned()).await.unwrap_err().contains("handles"));
    assert!(call.blob().list_objects(again(&album)).await.unwrap_err().contains("handles"));
    assert!(call.blob().get_data(album, "k".to_owned(), 0, 1).await.unwrap_err().contains("handles"));
    assert!(call.values().outgoing_value_write_body(value).await.is_err());
    assert!(call.values().new_outgoing_value().await.is_err());
}

#[tokio::test]
async fn contents_that_their_guest_leaves_half_written_keep_no_other_upload_waiting() {
    let mut call = Call::new(Allowance::WORK);
    let mut random = fastrand::Rng::with_seed(7);
    let mut open = Vec::new();
    for container in ["album", "attic"] {
        for number in 0..BLOB_WRITERS {
            let (value, stream) = call.content().await.unwrap();
            let into = call.blob().get_container(container.to_owned()).await.unwrap();
            call.blob().write_data(into, number.to_string(), again(&value)).await.unwrap();
            open.push((value, stream));
        }
    }
    // More than is gathered before it goes to the store, and asked for until it is about to go.
    for _ in 0..=(4 << 20) / BLOB_STREAM_BYTES {
        for (_, stream) in &open {
            let piece: Vec<u8> = (0..BLOB_STREAM_BYTES).map(|_| random.u8(..)).collect();
            let stream = call.stream(stream);
            if stream.check_write().unwrap() > 0 {
                stream.write(piece.into()).unwrap();
            }
        }
        tokio::task::yield_now().await;
    }
    let album = call.album().await;
    let container = call.table.get(&album).unwrap().container.clone();
    let other: Vec<u8> = (0..5 << 20).map(|_| random.u8(..)).collect();
    let put = container.put("other", &other, PutOptions::default());
    tokio::time::timeout(Duration::from_secs(60), put).await.expect("it waits for ever").unwrap();
}

#[tokio::test]
async fn names_that_could_not_be_answered_come_in_the_next_answer() {
    let mut call = Call::new(Allowance::POLICY);
    let album = call.album().await;
    let container = call.table.get(&album).unwrap().container.clone();
    container.put("first", b"", PutOptions::default()).await.unwrap();
    let names = call.blob().list_objects(album).await.unwrap();
    let left = POLICY_HOST_BYTES - call.budget.bytes_moved();
    call.budget.answer(left - 1).unwrap();
    let refused = call.blob().read_stream_object_names(again(&names), 9).await.unwrap_err();
    assert!(refused.contains("all the bytes"), "{refused}");
    call.budget.refill(Allowance::POLICY, Instant::now() + Duration::from_secs(60));
    let read = call.blob().read_stream_object_names(names, 9).await.unwrap();
    assert_eq!(read, (vec!["first".to_owned()], true));
}
